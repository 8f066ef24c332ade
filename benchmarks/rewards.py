"""Do the learned rewards know what a good page is? Accuracy on held-out users and unseen defects, three seeds, on real sets and the world.

    python benchmarks/rewards.py DATA… --runs DIR --seeds 3 [--save]
    python benchmarks/rewards.py --world PAGES --runs DIR --seeds 3 [--save]

Figures come from the test part, after all choices. A run that is finished is not trained again. With --world the truth is known: how often
the page that feedback calls worse really is, how often somebody who knows the truth would tell pairs apart, and how the page reward ranks
pages by their true value.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import RESULTS, environment
from pagellm.__main__ import tune_allocator

WORLD_CONTEXTS, PAGES_EACH = 300, 12


def main() -> None:
    """Measures each set and prints or saves what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*", help="data folders")
    parser.add_argument("--world", type=int, metavar="PAGES", help="simulate a shop with so many logged pages instead")
    parser.add_argument("--runs", type=Path, help="folder for runs; finished ones are used again")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--profile", help="of the runs: small, for a world tiny")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--save", action="store_true", help="write the figures to benchmarks/results")
    parser.add_argument("--smoke", action="store_true", help="does nothing: training takes minutes")
    args = parser.parse_args()
    if args.smoke or args.runs is None or not (args.data or args.world):
        print("This benchmark needs DATA or --world PAGES, and --runs FOLDER.")
        sys.exit(0 if args.smoke else 2)
    tune_allocator()
    sets = [(folder.name, folder, None) for folder in args.data]
    if args.world:
        sets.append((f"world-{args.world}", *simulated(args.runs, args.world)))
    for name, folder, world in sets:
        result = measure(name, folder, world, args)
        show(result)
        if args.save:
            record = {"environment": environment(), "settings": args.set, **result}
            (RESULTS / f"rewards-{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def simulated(runs: Path, pages: int) -> tuple[Path, Any]:
    """The folder of a simulated shop, and its truth."""
    from pagellm.simulation.disk import write_world
    from pagellm.simulation.shop_log import simulate_log
    from pagellm.simulation.spec import profile
    from pagellm.simulation.world import World

    world, folder = World.make(profile("demo", pages=pages), 7), runs / f"shop-{pages}"
    if not folder.exists():
        write_world(world, simulate_log(world, "mixed"), folder)
    return folder, world


def measure(name: str, data: Path, world: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Trains what is missing and pools the seeds."""
    from pagellm.evaluation.reward_checks import pair_accuracy, pool_cases
    from pagellm.pipeline import finished, stage_config, train_run
    from pagellm.rewarding.check import check_rewards

    checks, took, truths = [], [], []
    for seed in range(args.seeds):
        run = args.runs / f"{name}-{seed}"
        config = stage_config("reward", args.profile or ("tiny" if world else "small"), args.set, seed)
        began = time.monotonic()
        if not (finished(run) and (run / "reward.safetensors").exists()):
            for _ in train_run(data, run, config, resume=run.exists(), tell=lambda line: None, until="reward"):
                pass
        took.append(round(time.monotonic() - began, 1))
        checks.append(check_rewards(run, "test", seed, tell=lambda line: None))
        if world is not None:
            truths.append(truth_of(run, world, seed))
        print(f"{name} seed {seed}: {took[-1]:.0f} s", flush=True)
    kinds: dict[str, list[Any]] = {}
    for check in checks:
        for cases in (*check.cases, *check.unseen_cases):
            kinds.setdefault(cases.kind, []).append(cases)
    pairs = {kind: pair_accuracy(pool_cases(parts)).as_json() for kind, parts in kinds.items()}
    result = {
        "data": name,
        "seeds": args.seeds,
        "seconds": took,
        "pairs": pairs,
        "laws": {law.name: [c.as_json()["laws"][law.name] for c in checks] for law in checks[0].laws},
        "calibration": [c.calibration.as_json() for c in checks],
        "learned_from": [c.facts.pairs for c in checks],
    }
    return result | ({"truth": pooled_truth(truths)} if truths else {})


def truth_of(run_folder: Path, world: Any, seed: int) -> dict[str, Any]:
    """What the world says: of pairs, and of fresh pages of several policies for held-out users."""
    from pagellm.data.preferences.pairs import HeldOut, Operator
    from pagellm.models.reward_files import load_rewards
    from pagellm.models.run import load_run
    from pagellm.rewarding.judge import judge_of

    run = load_run(run_folder)
    reward, _ = load_rewards(run)
    judge = judge_of(run, reward, "test", seed)
    source, log = judge.source, judge.source.log
    who = np.array([int(str(u)[1:]) for u in log.user_ids], np.int32)
    worse: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for pairs, kinds in ((judge.trained_pairs(), Operator), (judge.unseen_pairs(), HeldOut)):
        values = [world.expected(pages, who[pairs.user], pairs.time).clicks for pages in (pairs.chosen, pairs.rejected)]
        for kind in kinds:
            some = pairs.operator == kind
            if some.any():
                worse[kind.name.lower()] = ((values[0] > values[1])[some].astype(np.float64), pairs.user[some])
    return {"worse": worse, "rank": fresh_pages(run, reward, source, world, who, seed)}


def fresh_pages(run: Any, reward: Any, source: Any, world: Any, who: np.ndarray, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Spearman correlation of rewards with true value, of fresh pages, for each policy: [context] within, and the page's figures across."""
    from pagellm.data.contexts import contexts_at
    from pagellm.simulation.page_policies import LoggedBy
    from pagellm.types import DAY, PageBatch

    rng = np.random.default_rng(seed)
    held = np.flatnonzero(source.users & (np.bincount(run.split.log.user, minlength=len(source.users)) > 0))
    user = rng.choice(held, WORLD_CONTEXTS).astype(np.int32)
    time_of = source.begin + rng.integers(0, 5 * DAY, WORLD_CONTEXTS)
    contexts = contexts_at(run.split.log, user, time_of)
    place = np.tile(np.arange(WORLD_CONTEXTS), PAGES_EACH)
    slots = world.spec.slots
    row, col = (np.tile(a, (len(place), 1)).astype(np.int16) for a in np.divmod(np.arange(slots), world.spec.cols))
    pool, logits = source.candidates(contexts)
    noise = -np.log(-np.log(rng.random((PAGES_EACH, *logits.shape))))
    order = np.argsort(-(logits + noise), axis=2)[:, :, :slots].reshape(-1, slots)
    pages = {"current policy": np.take_along_axis(pool[place], order, 1)}
    for name in ("uniform", "popularity", "personal"):
        pages[name] = LoggedBy.named(world, name).draw(who[user][place], time_of[place], rng.integers(2**62, size=len(place)))
    out = {}
    for name, items in pages.items():
        batch = PageBatch(contexts, place, items.astype(np.int32), row, col)
        scores = reward.model.scores(batch)
        found = {
            "true": world.expected(items, who[user][place], time_of[place]).clicks,
            "page": scores.page_total.mean(1),
            "item": scores.item.mean(2).sum(1),
            "both": reward(batch).sum(1),
        }
        out[name] = {key: value.reshape(PAGES_EACH, -1).T for key, value in found.items()}
    return out


def pooled_truth(truths: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates and correlations over all seeds."""
    from scipy.stats import spearmanr

    from pagellm.evaluation.reward_checks import rate

    worse = {}
    for kind in truths[0]["worse"]:
        parts = [t["worse"][kind] for t in truths if kind in t["worse"]]
        worse[kind] = rate(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])).as_json()
    ranks: dict[str, Any] = {}
    for policy in truths[0]["rank"]:
        ranks[policy] = {}
        for reward in ("page", "item", "both"):
            within, across = [], []
            for t in truths:
                true, value = t["rank"][policy]["true"], t["rank"][policy][reward]
                within += [spearmanr(v, x).statistic for v, x in zip(value, true, strict=True) if np.ptp(x) > 0 and np.ptp(v) > 0]
                rng = np.random.default_rng(0)
                draws = [rng.integers(len(true), size=len(true)) for _ in range(200)]
                whole = spearmanr(value.ravel(), true.ravel()).statistic
                across.append(
                    [whole, *np.percentile([spearmanr(value[d].ravel(), true[d].ravel()).statistic for d in draws], [2.5, 97.5])]
                )
            w = np.array(within)
            half = 1.96 * w.std() / len(w) ** 0.5
            ranks[policy][reward] = {
                "within": [round(float(x), 3) for x in (w.mean(), w.mean() - half, w.mean() + half)],
                "across": [[round(float(x), 3) for x in a] for a in across],
            }
        ranks[policy]["true_clicks"] = round(float(np.mean([t["rank"][policy]["true"].mean() for t in truths])), 3)
    return {"rejected_is_worse": worse, "spearman": ranks}


def show(result: dict[str, Any]) -> None:
    """Prints one line a kind of pair."""
    print(f"\n{result['data']}: test part, held-out users, {result['seeds']} seeds")
    for kind, found in result["pairs"].items():
        cells = [
            f"{found[c]['rate']:.3f} [{found[c]['ci95'][0]:.3f}, {found[c]['ci95'][1]:.3f}]" for c in ("reward", "whole", "probe")
        ]
        truth = result.get("truth", {}).get("rejected_is_worse", {}).get(kind)
        told = f"  truth {truth['rate']:.3f}" if truth else ""
        print(f"  {found['family']:<10} {kind:<15} own {cells[0]}  whole {cells[1]}  policy alone {cells[2]}", end="")
        print(f"  n {found['reward']['n']:,}{told}")
    for policy, found in result.get("truth", {}).get("spearman", {}).items():
        print(f"  spearman {policy:<15} {json.dumps(found)}")


if __name__ == "__main__":
    main()
