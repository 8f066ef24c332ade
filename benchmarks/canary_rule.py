"""Does the canary keep what is truly better? Trainings in simulated shops, whose truth is known, and rules that choose by held-out users.

Each shop is another draw of the demo's (2,000 items, 3,000 users, 20,000 logged pages), trained up to its rewards; then PPO learns to its
last iteration with no guard that stops it, once for each arm. *Item only* is there to be refused: in these shops it lowers pages. At every
look held-out users give a page value, as in a training, and the truth gives the expected clicks of the likeliest pages for users of the
test part. Each rule then keeps one policy of the course:

    start               the one at the start, always
    last                the one at the end, always
    0, 1, 2 errors      the latest whose page value is not below the best by more than so many standard errors: runs do with 1
    truth               the best true clicks: no rule can, the bound

Gains are true clicks a page over the policy at the start. The truth chooses nothing else.

    python benchmarks/canary_rule.py [--seeds 0 1 ...] [--out DIR] [--save]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import RESULTS, environment
from harness import _pin as pin
from oracle_share import pooled

ARMS = {
    "joint, repetition alone": ("ppo.learn=repetition",),
    "joint, evidence head, too": ("ppo.learn=evidence",),
    "item only, evidence head, too": ("ppo.learn=evidence", "reward.alpha=0"),
}
RULES = ("start", "last", "0 errors", "1 error", "2 errors", "truth")
PARTS = {"a quarter": 0.25, "all": 1.0}
"""Shares of the held-out users' contexts, of which such a shop has some 240."""

EVERY = 2  # iterations between looks


@dataclass(frozen=True)
class Sizes:
    """What a measurement costs."""

    pages: int = 20_000
    changes: tuple[str, ...] = ("threads=1",)


def courses(seed: int, sizes: Sizes) -> dict[str, Any]:
    """What every arm's course was in one shop: {arm: {"true": [look][context], "contexts": {part: n}, PART: sightings [look]}}."""
    from pagellm.models.run import load_run
    from pagellm.pipeline import stage_config, train_run
    from pagellm.reproduction.stand import Stand
    from pagellm.simulation.disk import write_world
    from pagellm.simulation.shop_log import simulate_log
    from pagellm.simulation.spec import profile
    from pagellm.simulation.world import World

    with tempfile.TemporaryDirectory() as scratch:
        data, folder = Path(scratch) / "shop", Path(scratch) / "run"
        world = World.make(profile("demo", pages=sizes.pages), seed)
        write_world(world, simulate_log(world, "mixed"), data)
        config = stage_config("reward", "tiny", sizes.changes, seed)
        for _ in train_run(data, folder, config, tell=lambda line: None, until="reward"):
            pass
        stand = Stand.of(load_run(folder), data)
        judged = stand.base(stand.run.net)["test"]
        return {arm: course(stand, judged, settings) for arm, settings in ARMS.items()}


def course(stand: Any, judged: Any, settings: tuple[str, ...]) -> dict[str, Any]:
    """One arm's training to its end, looked at all the way."""
    from pagellm.config import adjust
    from pagellm.models.run import run_layout
    from pagellm.training.rollouts import likeliest_pages
    from pagellm.training.run_ppo import open_stage

    config = adjust(stand.run.config, settings)
    run = replace(stand.run, config=config, net=copy.deepcopy(stand.run.net))
    stage = open_stage(run, run_layout(run, config.pairs.slots))
    net, every = stage.progress.learner.net, stage.progress.canary
    order = np.random.default_rng(config.seed).permutation(len(every.asked))
    some = {part: np.sort(order[: round(share * len(order))]) for part, share in PARTS.items()}
    canaries = {
        part: replace(every, asked=every.asked.take(places), h=None if every.h is None else every.h[places])
        for part, places in some.items()
    }
    found: dict[str, Any] = {"true": [], "contexts": {part: len(places) for part, places in some.items()}}
    found |= {part: [] for part in PARTS}

    def look(step: int, kl: float, reward: float) -> None:
        found["true"].append(judged.truth(likeliest_pages(net, judged.asked, stand.desk))["true_clicks"].tolist())
        for part, canary in canaries.items():
            found[part].append(asdict(canary.sight(net, step, kl, reward)))

    look(0, 0.0, 0.0)
    for stats in stage.iterations():
        if stats.step % EVERY == 0 or stats.step == stats.steps:
            look(stats.step, stats.kl, stats.reward)
    return found


def kept(rule: str, sightings: list[dict[str, Any]], true: np.ndarray) -> int:
    """The look whose policy a rule keeps. `true` [look, context]."""
    from pagellm.config import PPOConfig
    from pagellm.training.canary import Sighting
    from pagellm.training.watch import Watch

    if rule in ("start", "last"):
        return 0 if rule == "start" else len(sightings) - 1
    if rule == "truth":
        return int(true.mean(1).argmax())
    watch = Watch(PPOConfig(patience=len(sightings)))
    for row in sightings:
        sighting = Sighting(**row)
        watch.see(replace(sighting, error=int(rule[0]) * sighting.error))
    return watch.best


def table_of(shops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each rule brought, by arm and by size of the canary."""
    rows = []
    for arm, part, rule in product(ARMS, PARTS, RULES):
        gains, steps = [], []
        for shop in shops:
            true, sightings = np.array(shop[arm]["true"]), shop[arm][part]
            at = kept(rule, sightings, true)
            gains.append(true[at] - true[0])
            steps.append(sightings[at]["step"])
        means = [float(gain.mean()) for gain in gains]
        contexts = float(np.mean([shop[arm]["contexts"][part] for shop in shops]))
        row = {"arm": arm, "canary": part, "contexts": contexts, "rule": rule, "gain": pooled(gains), "shops": len(shops)}
        found = {"worse": sum(mean < 0 for mean in means), "least": min(means), "kept start": steps.count(0), "by_shop": means}
        rows.append(row | found)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="What rules that choose a policy by held-out users are truly worth.")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--out", type=Path, help="folder where each shop leaves a file, and where shops that have one are read")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--save", action="store_true", help="write benchmarks/results/canary_rule.json")
    output.add_argument("--smoke", action="store_true", help="one small shop")
    options = parser.parse_args()
    pin(1)
    smoke = Sizes(4_000, ("threads=1", "ppo.iterations=2", "split.held_out=0.4"))
    shops = [
        one_shop(seed, smoke if options.smoke else Sizes(), options.out) for seed in ([0] if options.smoke else options.seeds)
    ]
    table = table_of(shops)
    for row in table:
        gain, by = row["gain"], f"{row['arm']:<31}{row['canary']:<10}{row['contexts']:>5.0f} {row['rule']:<9}"
        print(
            f"{by}{gain['mean']:>+8.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]  worse {row['worse']:>2} of {row['shops']}, "
            f"least {row['least']:+.3f}, start kept {row['kept start']}"
        )
    if options.save:
        path = RESULTS / "canary_rule.json"
        command = " ".join(["python", "benchmarks/canary_rule.py", *sys.argv[1:]])
        path.write_text(json.dumps({"environment": environment(), "command": command, "table": table}, indent=2) + "\n")
        print(f"written: {path}")


def one_shop(seed: int, sizes: Sizes, out: Path | None) -> dict[str, Any]:
    """The courses of one shop, from its file where it has one."""
    path = out / f"{seed}.json" if out else None
    if path and path.exists():
        return dict(json.loads(path.read_text()))
    found = courses(seed, sizes)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found) + "\n")
    at_the_end = {arm: round(float(np.mean(course["true"][-1]) - np.mean(course["true"][0])), 4) for arm, course in found.items()}
    print(f"seed {seed}: {json.dumps(at_the_end)}", flush=True)
    return found


if __name__ == "__main__":
    main()
