"""How sure an off-policy estimate is. Takes `Terms` and whose pages they are, gives intervals; knows no estimator and no policy.

Users are the unit: pages of one user are not independent, so they are added up before anything is counted or drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np
from scipy.special import ndtri

from pagellm.evaluation.ope.records import Terms
from pagellm.evaluation.significance import RESAMPLES, interval, resampled_means
from pagellm.types import F64, I64


@dataclass(frozen=True)
class Interval:
    """Both ends; infinite where nothing bounds the estimate."""

    low: float
    high: float

    def as_json(self) -> list[Any]:
        """[low, high]; null where an end is not finite."""
        return [end if np.isfinite(end) else None for end in (self.low, self.high)]


def unit_values(contributions: F64, unit: I64) -> F64:
    """[user] what each user adds to a mean over pages: their mean is the mean over pages, however unequal users' numbers of pages are.

    V + (S_u - V n_u) U / n, with S_u the sum over the user's n_u pages, n the pages, U the users, V the mean over pages.
    """
    counts = np.bincount(unit)
    kept = counts > 0
    sums, counts = np.bincount(unit, contributions)[kept], counts[kept]
    mean = contributions.mean()
    return np.asarray(mean + (sums - mean * counts) * (len(counts) / len(contributions)))


def empirical_bernstein(values: F64, span: float | None = None, level: float = 0.95) -> Interval:
    """mean ± (√(2 V ln(4/δ) / n) + 7 span ln(4/δ) / (3 (n - 1))), V the sample variance (Maurer and Pontil 2009, theorem 4, both sides).

    Holds for any n and any distribution of independent values [user] whose range is at most `span`. Without one it is the range that was
    seen: then it holds as far as no heavier value was only missed by chance. Infinite below two values.
    """
    n = len(values)
    if n < 2:
        return Interval(-np.inf, np.inf)
    tail = log(4 / (1 - level))
    width = float(np.ptp(values)) if span is None else span
    half = sqrt(2 * float(values.var(ddof=1)) * tail / n) + 7 * width * tail / (3 * (n - 1))
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


def normal(values: F64, level: float = 0.95) -> Interval:
    """mean ± z √(V / n) of independent values [user], by the central limit theorem. Infinite below two values."""
    n = len(values)
    if n < 2:
        return Interval(-np.inf, np.inf)
    half = float(ndtri((1 + level) / 2)) * sqrt(float(values.var(ddof=1)) / n)
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


def bootstrap(estimates: Sequence[Terms], unit: I64, resamples: int = RESAMPLES, seed: int = 0) -> F64:
    """Each estimate anew on users drawn with replacement (Efron 1979), the same draws for all. Shape [resample, estimate].

    NaN where a draw holds nothing to divide by.
    """
    columns = np.concatenate([part for terms in estimates for part in (terms.numerator, terms.denominator)], axis=1)
    draws = resampled_means(_by_user(columns, unit), resamples, seed)
    out, at = np.empty((resamples, len(estimates))), 0
    for place, terms in enumerate(estimates):
        width = terms.numerator.shape[1]
        over, under = draws[:, at : at + width], draws[:, at + width : at + 2 * width]
        with np.errstate(invalid="ignore", divide="ignore"):
            out[:, place] = (over / under).sum(1)
        at += 2 * width
    return out


def bootstrap_interval(draws: F64, level: float = 0.95) -> Interval:
    """Percentile interval of draws [resample]; infinite where a draw had nothing to divide by."""
    if not np.isfinite(draws).all():
        return Interval(-np.inf, np.inf)
    low, high = interval(draws[:, None], level)[:, 0]
    return Interval(float(low), float(high))


def _by_user(columns: F64, unit: I64) -> F64:
    """[user, column] sums over each user's pages; columns that are all ones are counted once."""
    kept = np.bincount(unit) > 0
    counts = np.bincount(unit)[kept].astype(np.float64)
    constant = (columns == 1.0).all(0)
    sums = [counts if same else np.bincount(unit, column)[kept] for same, column in zip(constant, columns.T, strict=True)]
    return np.stack(sums, axis=1)
