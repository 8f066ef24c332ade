"""How much of the best possible page do learned pages reach, in shops so small that every page can be tried?

Each shop has 16 items, of which some are near-duplicates, and pages of 4 slots: 43,680 ordered pages, whose true expected clicks are exact.
A run is trained on 20,000 logged pages up to its rewards; then PPO learns pages from the joint reward and from parts of it. Judged are the
likeliest pages for users of the test part whom rewards and PPO have never met, as a share of the clicks of the best page for that user
and moment. *Known* shops have nothing that a log cannot tell: no passing intents, no drift of taste. The others have both, and the
best page knows them, so no policy can reach it. The truth chooses nothing: settings are those of the profile or named in the arm.

    python benchmarks/oracle_share.py [--shop known|standard] [--seeds 0 1 2 3 4] [--pages N] [--set KEY=VALUE ...] [--out DIR] [--save]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import RESULTS, environment
from harness import _pin as pin

SLOTS, ITEMS = 4, 16
BEHAVIOR = {"known": {"intent_share": 0.0, "drift": 0.0}, "standard": {}}
RUN = (f"pairs.slots={SLOTS}", "split.repeats=true", "split.held_out=0.3", "threads=1", "ppo.learn=evidence")
RELEVANCE = ("reward.alpha=1", "reward.ranking=0", "reward.diversity=0", "reward.redundancy=0")
FREE = ("ppo.kl_coef=0", "ppo.kl_target=0", "ppo.kl_budget=1000", "ppo.iterations=80")
ARMS: dict[str, tuple[str, ...]] = {
    "joint": (),
    "page only": ("reward.alpha=1",),
    "item only": ("reward.alpha=0",),
    "relevance only": RELEVANCE,
    "joint, free and longer": FREE,
    "relevance only, free and longer": (*RELEVANCE, *FREE),
    "joint, repetition alone": ("ppo.learn=repetition",),
    "joint, all weights": ("ppo.learn=all",),
}
"""Arms and the settings in which they differ. *Free and longer*: no price of distance from the supervised policy, 80 iterations."""


@dataclass(frozen=True)
class Sizes:
    """What a measurement costs."""

    pages: int = 20_000
    users: int = 1_000
    judged: int = 80  # contexts a seed
    tried: int = 6  # of them, for which the learned reward is asked for its best page among all
    changes: tuple[str, ...] = ()  # settings of run and arms
    arms: tuple[str, ...] = tuple(ARMS)


def shop(kind: str, seed: int, sizes: Sizes, folder: Path) -> Any:
    """A world and its log on disk, without rules for its pages."""
    from pagellm.simulation.disk import write_world
    from pagellm.simulation.shop_log import simulate_log
    from pagellm.simulation.spec import Behavior, profile
    from pagellm.simulation.world import World

    spec = profile(
        "tiny", items=ITEMS, users=sizes.users, pages=sizes.pages, themes=4, rows=1, cols=SLOTS, new_items=0.0, out_of_stock=0.0,
        sponsored=0.0, behavior=Behavior(**BEHAVIOR[kind]),
    )  # fmt: skip
    world = World.make(spec, seed)
    write_world(world, simulate_log(world, "mixed"), folder)
    (folder / "layout.toml").unlink()
    return world


def shares(kind: str, seed: int, sizes: Sizes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """([context] share of the best page's clicks by maker, facts) of one shop."""
    from pagellm.data.cohorts import held_out_users
    from pagellm.models.run import load_run
    from pagellm.pipeline import stage_config, train_run
    from pagellm.reproduction.stand import Stand
    from pagellm.simulation.oracle import best_page, relevance_page, values
    from pagellm.training.rollouts import likeliest_pages

    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        data, folder = Path(scratch) / "shop", Path(scratch) / "run"
        world = shop(kind, seed, sizes, data)
        for _ in train_run(
            data, folder, stage_config("reward", "tiny", (*RUN, *sizes.changes), seed), tell=lambda line: None, until="reward"
        ):
            pass
        run = load_run(folder)
        stand = Stand.of(run, data)
        base = stand.base(run.net)["test"].asked
    users, log = np.arange(len(base)), run.split.log
    held = held_out_users(log.user_ids, run.config.split.held_out)
    users = users[held[base.contexts.user]]
    asked = base.take(np.sort(np.random.default_rng(seed).permutation(users)[: sizes.judged]))
    who = [int(str(log.user_ids[u])[1:]) for u in asked.contexts.user]
    when, every = asked.contexts.time.tolist(), np.arange(ITEMS, dtype=np.int32)
    assert all(set(pool.tolist()) >= set(range(ITEMS)) for pool in asked.pool), "a context has not all items as candidates"

    def worth(pages: np.ndarray) -> np.ndarray:
        return np.array([values(world, page[None], u, t)[0] for page, u, t in zip(pages, who, when, strict=True)])

    best = np.array([best_page(world, u, t, every, SLOTS)[1] for u, t in zip(who, when, strict=True)])
    found = {
        "items of highest true relevance": worth(
            np.stack([relevance_page(world, u, t, every, SLOTS) for u, t in zip(who, when, strict=True)])
        )
        / best,
        "supervised": worth(likeliest_pages(run.net, asked, stand.desk).items) / best,
    }
    facts: dict[str, Any] = {"run CPU s": round(time.process_time() - began, 1), "best clicks": float(best.mean())}
    for arm, settings in ((arm, ARMS[arm]) for arm in sizes.arms):
        print(f"  {time.process_time():.0f} s: {arm}", file=sys.stderr, flush=True)
        began = time.process_time()
        net, last, reward = learned(stand, (*settings, *sizes.changes), seed)
        found[f"PPO {arm}"] = worth(likeliest_pages(net, asked, stand.desk).items) / best
        facts[arm] = {"CPU s": round(time.process_time() - began, 1), "nats": last.kl, "iterations": last.step}
        if arm in ("joint", "relevance only"):
            some = asked.take(np.arange(min(sizes.tried, len(asked))))
            tried = best_by_reward(reward, some)
            found[f"best page by the {arm} reward, all tried"] = worth_of(world, tried, who, when) / best[: len(tried)]
    return found, facts


def worth_of(world: Any, pages: np.ndarray, who: list[int], when: list[int]) -> np.ndarray:
    """[page] true clicks of pages for the first contexts."""
    from pagellm.simulation.oracle import values

    return np.array([values(world, page[None], who[n], when[n])[0] for n, page in enumerate(pages)])


def learned(stand: Any, settings: tuple[str, ...], seed: int) -> tuple[Any, Any, Any]:
    """(policy, statistics of the last iteration, reward) of an arm, from the run's policy and rewards."""
    from pagellm.config import adjust
    from pagellm.models.multi_grained import MultiGrainedReward, Whitening
    from pagellm.training.learner import Learner
    from pagellm.training.ppo import ppo
    from pagellm.training.run_ppo import learning_reward

    config = adjust(stand.run.config, settings)
    model = replace(stand.rewards.model, config=config.reward)
    reward = MultiGrainedReward(model, Whitening(), Whitening(), config.ppo.caution, config.ppo.stepwise)
    net = copy.deepcopy(stand.run.net)
    net.page_evidence.attach(stand.likeness)
    learner = Learner.start(net, stand.run.net, config.ppo, seed)
    told = learning_reward(reward, stand.facts, config)
    steps = ppo(learner, lambda n: stand.asked.drawn(config.ppo.contexts, seed, n), told, config.ppo, stand.desk, seed)
    return net, list(steps)[-1], reward


def best_by_reward(reward: Any, asked: Any) -> np.ndarray:
    """[context, slot] of all ordered pages the one that a learned reward likes best."""
    from itertools import permutations

    from pagellm.types import PageBatch

    pages = np.array(list(permutations(range(ITEMS), SLOTS)), np.int32)
    col = np.tile(np.arange(SLOTS, dtype=np.int16), (len(pages), 1))
    out = []
    for n in range(len(asked)):
        batch = PageBatch(asked.contexts, np.full(len(pages), n), pages, np.zeros_like(col), col)
        out.append(pages[reward(batch).sum(1).argmax()])
    return np.stack(out)


def pooled(by_seed: list[np.ndarray], draws: int = 4_000) -> dict[str, float]:
    """Mean and 95 % interval: seeds are drawn, then contexts within each."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(draws):
        some = rng.integers(0, len(by_seed), len(by_seed))
        means.append(np.mean([by_seed[s][rng.integers(0, len(by_seed[s]), len(by_seed[s]))].mean() for s in some]))
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": float(np.mean([one.mean() for one in by_seed])), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Share of the best possible page's clicks, in shops where every page can be tried."
    )
    parser.add_argument("--shop", choices=tuple(BEHAVIOR), default="known")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pages", type=int, default=Sizes.pages, help="logged pages, by 1,000 users")
    parser.add_argument("--set", dest="changes", nargs="+", default=[], metavar="KEY=VALUE", help="settings of run and arms")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--name", default="", help="added to the name of the saved file")
    parser.add_argument("--out", type=Path, help="folder where each seed leaves a file, and where seeds that have one are read")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--save", action="store_true", help="write benchmarks/results/oracle_share-SHOP.json")
    output.add_argument("--smoke", action="store_true", help="one small shop")
    options = parser.parse_args()
    pin(1)
    sizes = (
        Sizes(5_000, 600, 5, 1, ("ppo.iterations=2",), ("joint", "page only"))
        if options.smoke
        else Sizes(options.pages, changes=tuple(options.changes), arms=tuple(options.arms))
    )
    rows = [one_seed(options.shop, seed, sizes, options.out) for seed in ([0] if options.smoke else options.seeds)]
    table = {name: pooled([np.array(row["shares"][name]) for row in rows]) for name in rows[0]["shares"]}
    for name, row in table.items():
        print(f"{name:<55}{row['mean']:>8.3f} [{row['low']:.3f}, {row['high']:.3f}]")
    if options.save:
        path = RESULTS / f"oracle_share-{options.shop}{options.name}.json"
        command = " ".join(["python", "benchmarks/oracle_share.py", *sys.argv[1:]])
        by_seed = [{name: float(np.mean(row["shares"][name])) for name in table} for row in rows]
        record = {"environment": environment(), "command": command, "shares": table, "by_seed": by_seed}
        path.write_text(json.dumps(record | {"facts": [row["facts"] for row in rows]}, indent=2) + "\n")
        print(f"written: {path}")


def one_seed(kind: str, seed: int, sizes: Sizes, out: Path | None) -> dict[str, Any]:
    """Shares and facts of one shop, from its file where it has one."""
    path = out / f"{kind}-{seed}.json" if out else None
    if path and path.exists():
        return dict(json.loads(path.read_text()))
    found, facts = shares(kind, seed, sizes)
    row = {"shares": {name: values.tolist() for name, values in found.items()}, "facts": facts}
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row) + "\n")
    print(
        f"seed {seed}: {json.dumps({name: round(float(values.mean()), 4) for name, values in found.items()} | facts)}", flush=True
    )
    return row


if __name__ == "__main__":
    main()
