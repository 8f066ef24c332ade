"""S5: how often intervals of off-policy estimates hold the truth, on 1,000 logs of the simulated shop, and how often they are refused.

Each log is 2,000 pages of 400 users of their own on one day, shown by the logging policy `uniform`. Policies that follow popularity more
and more sharply are judged on it. The truth is the world's exact expectation of their pages, over 200,000 other users. In this world a
slot's reward depends on what stands above it, so what reads pages downwards or whole is unbiased. What reads slots alone (iips, sniips, pi)
is not: its coverage is a measurement, no claim. Run: python benchmarks/ope_coverage.py [--logs N] [--save]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import environment
from pagellm.evaluation.ope.estimators import logging_alone
from pagellm.evaluation.ope.judging import METHODS, judge
from pagellm.evaluation.ope.records import Logged, Predicted, free_shares
from pagellm.evaluation.ope.reward_model import fit_reward_model
from pagellm.simulation.logging_policies import LoggingPolicy
from pagellm.simulation.page_policies import LoggedBy
from pagellm.simulation.world import World
from pagellm.types import DAY, F64, I32

SEED, DAY_NUMBER, USERS, PAGES_EACH = 3, 60, 400, 5
SHARPNESS = (0.2, 0.4, 0.8)
RESAMPLES = 1_000
CLAIMED = ("ips", "snips", "rips", "cascade-dr", "dr")
RESULT = Path(__file__).parent / "results" / "ope_coverage.json"


class Target:
    """A policy to be judged: Plackett-Luce by popularity alone, so that its chances are the same for everybody and can be written down."""

    def __init__(self, world: World, sharpness: float) -> None:
        self.world, self.policy = world, LoggedBy(world, world.table(LoggingPolicy("target", sharpness), 50))
        self.weight = self.policy.table.weight[DAY_NUMBER]
        users, pages = self.draw(200_000, 10_000_000, 1)
        self.truth = float(world.expected(pages, *users[:2]).clicks.mean())
        self.alone = self.given(pages[:100_000]).mean(0)  # [slot, item]

    def draw(self, count: int, first: int, each: int) -> tuple[tuple[I32, F64, F64], I32]:
        """((user, time, visit), pages [page, slot]) of so many users from this number on."""
        who = visits(self.world, count, first, each)
        return who, self.policy.draw(*who)

    def given(self, pages: I32) -> F64:
        """[page, slot, item] chance of every item given the slots before it."""
        left, out = np.tile(self.weight, (len(pages), 1)), np.empty((*pages.shape, len(self.weight)))
        for slot, item in enumerate(pages.T):
            out[:, slot] = left / left.sum(1, keepdims=True)
            left[np.arange(len(pages)), item] = 0.0
        return out


def visits(world: World, users: int, first: int, each: int) -> tuple[Any, Any, Any]:
    """(user, time, visit) of visits on the one day."""
    user = np.repeat(np.arange(first, first + users, dtype=np.int32), each)
    rng = np.random.default_rng((SEED, first))
    time = world.spec.start + DAY_NUMBER * DAY + rng.integers(0, DAY, len(user))
    return user, time.astype(np.int64), np.arange(len(user), dtype=np.int64) + first * each


def one_log(world: World, target: Target, number: int) -> Logged:
    """What a shop would have: pages of one logging policy, feedback, propensities; and the target's chances for them."""
    who = visits(world, USERS, number * USERS, PAGES_EACH)
    logging = LoggedBy.named(world, "uniform")
    pages = logging.draw(*who)
    rewards = world.sample_feedback(pages, *who).clicked.astype(np.float64)
    chances = target.given(pages)
    at, slot = np.arange(len(pages))[:, None], np.arange(pages.shape[1])
    real, unit = np.ones(pages.shape, bool), who[0].astype(np.int64) - number * USERS
    model = fit_reward_model(rewards, pages, real, unit, len(target.weight))
    rate, factor = model.rate[model.fold], model.factor[model.fold]
    predicted = Predicted(
        rate * np.take_along_axis(factor, pages, 1),
        rate * np.einsum("psi,pi->ps", chances, factor),
        rate * np.einsum("si,pi->ps", target.alone, factor),
    )
    propensities = logging.propensities(pages, *who[:2])
    free = free_shares(pages, real, len(target.weight))
    ratio = np.where(target.alone > 0, target.alone / free.clip(1e-9), 0.0)  # [slot, item]
    before = np.tril(ratio[slot[:, None], pages[:, None, :]], -1).sum(2)  # of the items that stand before each slot
    both = logging_alone(propensities, free[slot, pages])
    sides = (propensities, chances[at, slot, pages], target.alone[slot, pages], both, ratio.sum(1) - before)
    return Logged(rewards, *sides, real, unit, True, predicted)


def coverage(world: World, sharpness: float, logs: int) -> dict[str, Any]:
    """Figures of every estimator over the logs."""
    target = Target(world, sharpness)
    found: dict[str, list[Any]] = {method.name: [] for method in METHODS}
    for number in range(logs):
        for figure in judge(one_log(world, target, number), number, RESAMPLES, by_slot=False).figures:
            found[figure.name].append(figure)
    return {"truth": target.truth, "estimators": {name: row(figures, target.truth) for name, figures in found.items()}}


def row(figures: list[Any], truth: float) -> dict[str, Any]:
    """Coverage with its own 95 % interval (Wilson), bias and spread, over the logs that were not refused."""
    given = [f for f in figures if f.refusal is None]
    out: dict[str, Any] = {"answered": len(given), "refused": len(figures) - len(given)}
    if not given:
        return out
    values = np.array([f.value for f in given])
    out |= {"bias_percent": 100 * float(values.mean() / truth - 1), "spread_percent": 100 * float(values.std() / truth)}
    out["median_ess"] = float(np.median([f.overlap.ess for f in given]))
    for name in ("bootstrap", "normal", "bernstein"):
        held = np.mean([getattr(f, name).low <= truth <= getattr(f, name).high for f in given])
        out[name] = {"coverage": float(held), "ci95": wilson(float(held), len(given))}
    return out


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))


def measure(logs: int) -> dict[str, Any]:
    """All levels."""
    world = World.make("tiny", SEED)
    return {f"sharpness {sharpness:g}": coverage(world, sharpness, logs) for sharpness in SHARPNESS}


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of off-policy intervals in the simulated shop.")
    parser.add_argument("--logs", type=int, default=1_000)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="seconds: does it run; nothing is claimed")
    options = parser.parse_args()
    began = time.process_time()
    levels = measure(10 if options.smoke else options.logs)
    for level, figures in levels.items():
        print(f"{level}: truth {figures['truth']:.4f} clicks a page")
        for name, f in figures["estimators"].items():
            told = f"  {name:<11} answered {f['answered']:>5}, refused {f['refused']:>5}"
            if f["answered"]:
                told += (
                    f"  bias {f['bias_percent']:+.2f} %  spread {f['spread_percent']:.1f} %  median ESS {f['median_ess']:,.0f}  "
                    + "  ".join(
                        f"{kind} {f[kind]['coverage']:.3f} [{f[kind]['ci95'][0]:.3f}, {f[kind]['ci95'][1]:.3f}]"
                        for kind in ("bootstrap", "normal", "bernstein")
                    )
                )
            print(told)
    claimed = [
        f[kind]["coverage"]
        for figures in levels.values()
        for name, f in figures["estimators"].items()
        for kind in ("bootstrap", "normal")
        if name in CLAIMED and f["answered"] >= 100
    ]
    held = all(0.93 <= share <= 0.97 for share in claimed)
    print(
        f"S5, coverage of unbiased estimators in 93 to 97 %: {'held' if held else 'MISSED'} ({time.process_time() - began:.0f} s CPU)"
    )
    if options.save:
        record = {
            "environment": environment(),
            "command": f"python benchmarks/ope_coverage.py --logs {options.logs} --save",
            "world": f"tiny, seed {SEED}, day {DAY_NUMBER}, {USERS} users of {PAGES_EACH} pages a log, logged by uniform",
            "logs": options.logs,
            "held": held,
            "levels": levels,
        }
        RESULT.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written: {RESULT}")
    sys.exit(0 if held or options.smoke else 4)


if __name__ == "__main__":
    main()
