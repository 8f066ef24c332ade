"""How sure a figure is. Takes one value a user and column, gives intervals and p-values; knows no metric and no method.

Users are the unit that is drawn, and seeds beside them where a method was trained several times. All columns share each draw, so
differences and ratios of two columns are paired for free. Draws come from a counter-based generator: the same seed draws the same users
whatever the batch size or number of columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit

from pagellm.data.counters import GOLDEN, mix
from pagellm.types import F64

RESAMPLES = 2000
_BATCH_BYTES = 64_000_000  # of weights held at once
_MOST_FLIPS = 20_000


def resampled_means(values: F64, resamples: int = RESAMPLES, seed: int = 0) -> F64:
    """Means over users drawn with replacement (Efron 1979). `values` is [user, column]; returns [resample, column]."""
    values = np.ascontiguousarray(values, np.float64)
    draws = np.empty((resamples, values.shape[1]))
    for rows in _batches(resamples, len(values)):
        draws[rows] = _multinomial(rows.start, rows.stop, len(values), seed) @ values
    return draws / len(values)


def seeded_means(values: F64, resamples: int = RESAMPLES, seed: int = 0) -> F64:
    """Means over users and over training seeds, both drawn with replacement (the two-way bootstrap of Owen 2007).

    `values` is [seed, user, column]; returns [resample, column]. The users of each draw are those of `resampled_means`, so both may be
    paired. What one seed differs from the mean of all S counts sqrt(S / (S - 1)) times, or S seeds would seem to vary less than they do
    in the drawn ones. With one seed users alone are drawn, and nothing is said of other seeds.
    """
    seeds, users, columns = values.shape
    flat = np.ascontiguousarray(values.transpose(1, 0, 2), np.float64).reshape(users, seeds * columns)
    drawn = resampled_means(flat, resamples, seed).reshape(resamples, seeds, columns)
    if seeds == 1:
        return drawn[:, 0]
    counts = _multinomial(0, resamples, seeds, seed + 1)
    mean = drawn.mean(1)
    off = np.einsum("rs,rsc->rc", counts / seeds, drawn - mean[:, None])
    return np.asarray(mean + np.sqrt(seeds / (seeds - 1)) * off)


def interval(draws: F64, level: float = 0.95) -> F64:
    """Percentile interval over the first axis. `draws` is [resample, column]; returns [2, column], low then high."""
    tail = 50 * (1 - level)
    return np.percentile(draws, [tail, 100 - tail], axis=0)


def ratio_interval(numerator: F64, denominator: F64, level: float = 0.95) -> F64:
    """Percentile interval of the ratio of two means from paired draws [resample, column]; NaN where a draw divides by zero."""
    zero = (denominator == 0).any(0)
    ends = interval(numerator / np.where(denominator == 0, 1.0, denominator), level)
    return np.where(zero, np.nan, ends)


def sign_flip_p(differences: F64, flips: int = RESAMPLES, seed: int = 0) -> F64:
    """Two-sided p-value [column] of no difference between paired values, by the randomization test (Fisher 1935).

    `differences` is [user, column]. If two methods were alike, each user's difference could as well have the other sign: p is the
    share of random sign flips whose mean is at least as far from zero, the observed one included.
    """
    differences = np.ascontiguousarray(differences, np.float64)
    observed = np.abs(differences.sum(0)) * (1 - 1e-12)  # summation order must not turn a tie into a smaller value
    extreme = np.ones(differences.shape[1])
    for rows in _batches(flips, len(differences)):
        extreme += (np.abs(_signs(rows.start, rows.stop, len(differences), seed) @ differences) >= observed).sum(0)
    return extreme / (flips + 1)


def holm(p: Sequence[float] | F64) -> list[float]:
    """p-values after Holm's step-down correction (Holm 1979), in their order; they bound the chance of any false finding."""
    order = np.argsort(p, kind="stable")
    out, largest = np.zeros(len(p)), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * float(p[at])))
        out[at] = largest
    return [float(x) for x in out]


def flips_for(tests: int) -> int:
    """Sign flips after which the smallest p-value of so many tests can still reach .01 when it is corrected; 20,000 at most."""
    return int(np.clip(100 * tests, RESAMPLES, _MOST_FLIPS))


def _batches(rows: int, users: int) -> Iterator[slice]:
    size = max(1, _BATCH_BYTES // (8 * max(users, 1)))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@njit(cache=True)
def _multinomial(first: int, last: int, users: int, seed: int) -> F64:
    """[resample, user] how often each user is drawn in the resamples first..last."""
    weights = np.zeros((last - first, users))
    for row in range(last - first):
        state = mix(np.uint64(seed) * GOLDEN + np.uint64(first + row + 1))
        for _ in range(users):
            state += GOLDEN
            weights[row, ((mix(state) >> np.uint64(32)) * np.uint64(users)) >> np.uint64(32)] += 1.0
    return weights


@njit(cache=True)
def _signs(first: int, last: int, users: int, seed: int) -> F64:
    """[flip, user] -1 or 1 with equal chance."""
    signs = np.empty((last - first, users))
    for row in range(last - first):
        state = mix(np.uint64(seed) * GOLDEN + np.uint64(first + row + 1))
        for u in range(users):
            state += GOLDEN
            signs[row, u] = 1.0 if mix(state) >> np.uint64(63) else -1.0
    return signs
