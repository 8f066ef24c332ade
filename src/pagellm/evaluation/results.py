"""From one value a user and metric to tables with intervals. Takes results of methods, gives means, differences, ratios and p-values.

Users are the unit. Where a method was trained with several seeds, its value is the mean over them, and seeds are drawn beside users.
Knows no metric and no method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from pagellm.errors import UsageError
from pagellm.evaluation.significance import (
    RESAMPLES,
    flips_for,
    holm,
    interval,
    ratio_interval,
    resampled_means,
    seeded_means,
    sign_flip_p,
)
from pagellm.types import F64, I32


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Results:
    """What every method reached for every user. One context a user."""

    users: I32  # [user] index into the log's `user_ids`
    metrics: tuple[str, ...]  # [metric]
    values: dict[str, F64]  # method name -> [user, metric]
    seeds: dict[str, F64] = field(default_factory=dict)  # method name -> [seed, user, metric] where there are several seeds

    def column(self, method: str, metric: str) -> F64:
        """One metric of one method. Shape [user]."""
        return self.values[method][:, self.metrics.index(metric)]

    def frame(self) -> pl.DataFrame:
        """The per-user values as a table: user, method, then a column a metric."""
        parts = [
            pl.DataFrame({"user": self.users, "method": [name] * len(self.users)}).hstack(
                pl.DataFrame(v, schema=list(self.metrics))
            )
            for name, v in self.values.items()
        ]
        return pl.concat(parts)


def over_seeds(parts: Sequence[Results]) -> Results:
    """Results of runs that differ in their seed alone, as one: methods that all parts have count as the mean over them.

    A method that only the first has, a baseline that was fitted once, stays as it is. Raises UsageError where users or metrics differ.
    """
    first = parts[0]
    for other in parts[1:]:
        if not np.array_equal(first.users, other.users) or first.metrics != other.metrics:
            raise UsageError("Runs can be put together only where they were judged on the same users by the same metrics.")
    shared = [name for name in first.values if all(name in part.values for part in parts)]
    seeds = {name: np.stack([part.values[name] for part in parts]) for name in shared}
    return Results(first.users, first.metrics, first.values | {name: v.mean(0) for name, v in seeds.items()}, seeds)


@dataclass(frozen=True)
class Tables:
    """Results in figures, each with its interval. Inner dictionaries are keyed by method, then by metric."""

    methods: dict[str, dict[str, Estimate]]
    paired: dict[str, dict[str, Estimate]]  # subject minus the other
    ratio: dict[str, dict[str, Estimate]]  # subject over the other; absent where the other can be 0
    p: dict[str, dict[str, float]]  # of no difference, two-sided randomization test over users, one by one
    p_holm: dict[str, dict[str, float]]  # the same after Holm's correction over all of them

    def as_json(self) -> dict[str, object]:
        """Plain values; every interval is of 95 %."""
        return {
            "methods": plain(self.methods, "mean"),
            "paired": plain(self.paired, "diff"),
            "ratio": plain(self.ratio, "ratio"),
            "p": self.p,
            "p_holm": self.p_holm,
        }


def tables(results: Results, subject: str, resamples: int = RESAMPLES, seed: int = 0) -> Tables:
    """Every method's means, and the subject against each other method where it is among them. All share the draws of users."""
    draws = {name: _draws(results, name, resamples, seed) for name in results.values}
    others = [name for name in results.values if name != subject] if subject in results.values else []
    p, corrected = _p_values(results, subject, others, seed)
    return Tables(
        {name: _means(results, name, draws[name]) for name in results.values},
        {name: _differences(results, subject, name, draws) for name in others},
        {name: _ratios(results, subject, name, draws) for name in others},
        p,
        corrected,
    )


def means(results: Results, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """The means alone."""
    return {name: _means(results, name, _draws(results, name, resamples, seed)) for name in results.values}


def plain(table: Mapping[str, Mapping[str, Estimate]], key: str) -> dict[str, dict[str, dict[str, object]]]:
    """A table as plain values: the figure under `key`, its interval under `ci95`."""
    return {name: {m: {key: e.value, "ci95": [e.low, e.high]} for m, e in row.items()} for name, row in table.items()}


def _draws(results: Results, name: str, resamples: int, seed: int) -> F64:
    if name in results.seeds:
        return seeded_means(results.seeds[name], resamples, seed)
    return resampled_means(results.values[name], resamples, seed)


def _p_values(
    results: Results, subject: str, others: Sequence[str], seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """(one by one, corrected): a test for each other method and metric that differs for any user."""
    if not others:
        return {}, {}
    gaps = np.concatenate([results.values[subject] - results.values[name] for name in others], axis=1)
    tested = (gaps != 0).any(0)
    p, corrected = np.ones(gaps.shape[1]), np.ones(gaps.shape[1])
    if tested.any():
        p[tested] = sign_flip_p(gaps[:, tested], flips_for(int(tested.sum())), seed)
        corrected[tested] = holm(p[tested])
    shaped = (dict(zip(others, column.reshape(len(others), -1).tolist(), strict=True)) for column in (p, corrected))
    one, all_ = ({name: dict(zip(results.metrics, row, strict=True)) for name, row in table.items()} for table in shaped)
    return one, all_


def _means(results: Results, name: str, draws: F64) -> dict[str, Estimate]:
    return _estimates(results.metrics, results.values[name].mean(0), interval(draws))


def _differences(results: Results, subject: str, other: str, draws: Mapping[str, F64]) -> dict[str, Estimate]:
    difference = results.values[subject].mean(0) - results.values[other].mean(0)
    return _estimates(results.metrics, difference, interval(draws[subject] - draws[other]))


def _ratios(results: Results, subject: str, other: str, draws: Mapping[str, F64]) -> dict[str, Estimate]:
    mean, ends = results.values[other].mean(0), ratio_interval(draws[subject], draws[other])
    ratio = results.values[subject].mean(0) / np.where(mean == 0, np.nan, mean)
    found = np.isfinite(ends).all(0) & np.isfinite(ratio)
    metrics = tuple(m for m, ok in zip(results.metrics, found, strict=True) if ok)
    return _estimates(metrics, ratio[found], ends[:, found])


def _estimates(metrics: Sequence[str], values: F64, ends: F64) -> dict[str, Estimate]:
    rows = zip(metrics, values.tolist(), ends[0].tolist(), ends[1].tolist(), strict=True)
    return {metric: Estimate(value, low, high) for metric, value, low, high in rows}
