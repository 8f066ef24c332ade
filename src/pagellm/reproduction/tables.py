"""From a matrix of finished jobs to tables: means with intervals over users, paired with the supervised policy of the same base.

A user's value is the mean over seeds, and users are what the bootstrap draws; rows of single seeds stand beside the pooled ones. Takes
jobs, gives polars frames. Knows no training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from pagellm.evaluation.significance import interval, resampled_means
from pagellm.reproduction.jobs import Matrix, Outcome
from pagellm.types import F64

PARTS = ("choices", "test")
FIGURES = ("ndcg@10", "ndcg@100", "near_duplicates@10", "ild@10", "category_coverage@10", "true_clicks", "true_gmv")


@dataclass(frozen=True)
class Point:
    """One method on one base of one data set, in all of its seeds."""

    dataset: str
    arm: str  # name of the job
    base: str
    method: str
    reward: str
    setting: str
    kl: float | None  # nats a page at the end of learning, mean over seeds
    seeds: tuple[int, ...]
    values: dict[str, F64]  # PART/FIGURE -> [seed, user]

    def users(self, part: str, figure: str) -> F64:
        """[user] mean over seeds."""
        return np.asarray(self.values[f"{part}/{figure}"].mean(0))

    def mean(self, part: str, figure: str) -> float:
        """Over users and seeds."""
        return float(self.values[f"{part}/{figure}"].mean())

    @property
    def kind(self) -> str:
        """Which arms it is a sibling of: those that learn the same parts of the policy have a line of their own in a frontier."""
        return "repetition" if "-rep" in self.arm else "evidence"

    def has(self, part: str, figure: str) -> bool:
        """Whether it was judged by this figure."""
        return f"{part}/{figure}" in self.values


@dataclass(frozen=True)
class Points:
    """All points of a matrix that have every seed of their data set."""

    every: tuple[Point, ...]

    @classmethod
    def of(cls, matrix: Matrix) -> Points:
        """Reads all finished jobs; what lacks a seed that the data set's supervised policy has is left out."""
        found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        for key in matrix.finished():
            dataset, seed, arm = key.split("/")
            found[dataset, arm][int(seed)] = key
        points: list[Point] = []
        for (dataset, arm), keys in found.items():
            wanted = found.get((dataset, "sft.start"), keys)
            if set(keys) >= set(wanted):
                points += _points(dataset, arm, {seed: matrix.read(keys[seed]) for seed in sorted(wanted)})
        return cls(tuple(points))

    @cached_property
    def datasets(self) -> list[str]:
        """Their names, sorted."""
        return sorted({point.dataset for point in self.every})

    def of_dataset(self, dataset: str) -> list[Point]:
        """The points of one data set."""
        return [point for point in self.every if point.dataset == dataset]


def _points(dataset: str, arm: str, outcomes: Mapping[int, Outcome]) -> Iterator[Point]:
    first = next(iter(outcomes.values()))
    kl = [outcome.notes["kl"] for outcome in outcomes.values() if "kl" in outcome.notes]
    method, reward, setting = (str(first.notes[name]) for name in ("method", "reward", "setting"))
    nats = float(np.mean(kl)) if kl else None
    for base in sorted({name.split("/")[0] for name in first.arrays}):
        names = [name for name in first.arrays if name.startswith(f"{base}/")]
        values = {name.removeprefix(f"{base}/"): np.stack([o.arrays[name] for o in outcomes.values()]) for name in names}
        yield Point(dataset, arm, base, method, reward, setting, nats, tuple(outcomes), values)


def tidy(points: Points, seed: int = 0) -> pl.DataFrame:
    """The long table: a row for each point, part, figure and seed (null: all seeds), with 95 % intervals over users.

    `paired_*` is the difference from the supervised policy of the same base, users drawn in pairs.
    """
    rows: list[dict[str, object]] = []
    for dataset in points.datasets:
        for part in PARTS:
            cells, columns = [], []
            for point in points.of_dataset(dataset):
                for figure in (f for f in FIGURES if point.has(part, f)):
                    every = point.values[f"{part}/{figure}"]
                    cells += [(point, figure, None), *((point, figure, s) for s in point.seeds)]
                    columns += [every.mean(0), *every]
            rows += _rows(part, cells, np.stack(columns, 1), seed)
    return pl.DataFrame(rows, infer_schema_length=None)


def _rows(part: str, cells: list[tuple[Point, str, int | None]], values: F64, seed: int) -> Iterator[dict[str, object]]:
    """The rows of one data set and part; `values` is [user, cell]."""
    draws = resampled_means(values, seed=seed)
    low, high = interval(draws)
    means = values.mean(0)
    place = {(point.arm, point.base, figure, s): at for at, (point, figure, s) in enumerate(cells)}
    for at, (point, figure, s) in enumerate(cells):
        row: dict[str, object] = {
            "dataset": point.dataset, "seed": s, "part": part, "method": point.method, "reward": point.reward, "kl": point.kl,
            "setting": point.setting, "base": point.base, "arm": point.arm, "metric": figure, "users": len(values),
            "mean": float(means[at]), "lo": float(low[at]), "hi": float(high[at]),
        }  # fmt: skip
        other = place.get((f"sft.{point.base}", point.base, figure, s))
        if other is not None:
            ends = interval((draws[:, at] - draws[:, other])[:, None])[:, 0]
            row |= {"paired_diff": float(means[at] - means[other]), "paired_lo": float(ends[0]), "paired_hi": float(ends[1])}
        yield row
