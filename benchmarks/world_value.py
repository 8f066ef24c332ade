"""What a page is worth in the simulated shop, by how it was made: the figures of docs/world.md.

Every maker knows the true relevance of every item; they differ only in what they know of the page. Values are exact
expectations, so the intervals are over users and moments alone. Run: python benchmarks/world_value.py [--save]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pagellm.simulation.oracle import best_page, greedy_page, mmr_page, relevance_page, values
from pagellm.simulation.world import World
from pagellm.types import DAY, F64, I32

SEEDS = (1, 2, 3)
METRICS = ("clicks", "purchases", "gmv")
MMR_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RESULT = Path(__file__).parent / "results" / "world_value.json"


def contexts(world: World, count: int) -> list[tuple[int, int]]:
    """(user, time) pairs spread over users and over the log."""
    rng = np.random.default_rng(world.seed)
    times = world.spec.start + rng.integers(0, world.spec.days * DAY, count)
    return [(int(u), int(t)) for u, t in zip(rng.choice(world.spec.users, count, replace=False), times, strict=True)]


def page_values(world: World, metric: str, count: int) -> dict[str, F64]:
    """[context] value of the page of each maker. The candidates are all items that may be shown at the moment."""
    slots = world.spec.slots
    rng = np.random.default_rng(world.seed + 1)

    def over(make: Callable[[int, int, I32], I32]) -> F64:
        made = [(make(u, t, world.candidates(t)), u, t) for u, t in contexts(world, count)]
        return np.array([values(world, page[None, :], u, t, metric)[0] for page, u, t in made])

    greedy: Callable[[int, int, I32], I32] = lambda u, t, c: greedy_page(world, u, t, c, slots, metric)  # noqa: E731
    result = {
        "relevance": over(lambda u, t, c: relevance_page(world, u, t, c, slots, metric)),
        "page-aware": over(greedy),
        "page-aware, shuffled": over(lambda u, t, c: rng.permutation(greedy(u, t, c)).astype(np.int32)),
        "random": over(lambda u, t, c: rng.choice(c, slots, replace=False).astype(np.int32)),
    }
    mmr = {w: over(lambda u, t, c, w=w: mmr_page(world, u, t, c, slots, w, metric)) for w in MMR_WEIGHTS}
    best = max(mmr, key=lambda w: float(mmr[w].mean()))
    return result | {f"MMR, best weight ({best:g})": mmr[best]}


def ratio(value: F64, base: F64, seed: int = 0, draws: int = 1000) -> tuple[float, float, float]:
    """Ratio of means with its 95 % bootstrap interval, contexts drawn in pairs."""
    place = np.random.default_rng(seed).integers(0, len(value), (draws, len(value)))
    sampled = value[place].mean(axis=1) / base[place].mean(axis=1)
    low, high = np.quantile(sampled, (0.025, 0.975))
    return float(value.mean() / base.mean()), float(low), float(high)


def tiny_regret(seed: int, count: int, items: int = 8, slots: int = 5) -> dict[str, float]:
    """Mean share of the brute-force best page's clicks that simpler pages reach, over random pools of a tiny world."""
    world = World.make("tiny", seed)
    rng = np.random.default_rng(seed)
    row, share = np.array([0, 0, 0, 1, 1], np.int32)[:slots], {"relevance": [], "page-aware": []}
    for user, time in contexts(world, count):
        likely = relevance_page(world, user, time, world.candidates(time), 3 * items)
        pool = rng.choice(likely, items, replace=False).astype(np.int32)
        _, best = best_page(world, user, time, pool, slots, row=row)
        for name, make in (("relevance", relevance_page), ("page-aware", greedy_page)):
            share[name].append(values(world, make(world, user, time, pool, slots)[None, :], user, time, row=row)[0] / best)
    return {name: float(np.mean(v)) for name, v in share.items()}


def measure(profile: str = "demo", count: int = 200) -> dict[str, object]:
    """All figures: ratios to the relevance page per seed and metric, and shares of the best page on tiny worlds."""
    table: dict[str, dict[str, dict[str, list[float]]]] = {}
    for seed in SEEDS:
        world = World.make(profile, seed)
        for metric in METRICS:
            found = page_values(world, metric, count)
            rows = {name: [round(x, 4) for x in ratio(v, found["relevance"])] for name, v in found.items()}
            rows["relevance"] = [round(float(found["relevance"].mean()), 4)] * 3
            table.setdefault(metric, {})[str(seed)] = rows
    return {
        "profile": profile,
        "contexts": count,
        "ratio_to_relevance": table,
        "share_of_best_page": {str(seed): tiny_regret(seed, 100) for seed in SEEDS},
        "command": "python benchmarks/world_value.py --save",
    }


def tables(found: Any) -> str:
    """The figures as the two Markdown tables of docs/world.md; rows are seeds, cells ratios with their 95 % intervals."""
    lines = []
    for metric, seeds in found["ratio_to_relevance"].items():
        makers = [name for name in next(iter(seeds.values())) if name != "relevance" and not name.startswith("MMR")]
        lines += [
            "",
            f"| {metric} a page | relevance | MMR at its best weight | {' | '.join(makers)} |",
            "|---" * (3 + len(makers)) + "|",
        ]
        for seed, rows in seeds.items():
            mmr = next(v for k, v in rows.items() if k.startswith("MMR"))
            cells = [f"{v[0]:.2f} [{v[1]:.2f}, {v[2]:.2f}]" for v in (mmr, *(rows[name] for name in makers))]
            lines.append(f"| seed {seed} | {rows['relevance'][0]:.3g} = 1 | {' | '.join(cells)} |")
    lines += ["", "| share of the best page's clicks | relevance | page-aware |", "|---|---|---|"]
    for seed, share in found["share_of_best_page"].items():
        lines.append(f"| seed {seed} | {share['relevance']:.3f} | {share['page-aware']:.3f} |")
    return "\n".join(lines[1:])


def main() -> None:
    """Prints the figures, and saves them if asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="few contexts: does it run")
    parser.add_argument("--contexts", type=int, default=200)
    arguments = parser.parse_args()
    found = measure(count=3 if arguments.smoke else arguments.contexts)
    print(tables(found))
    if arguments.save:
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
