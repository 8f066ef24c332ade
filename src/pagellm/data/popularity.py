"""How often items were taken, as it was known at any past moment. Takes postings and times, gives counts; knows no user."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pagellm.data.cooccurrence import Postings, _older
from pagellm.types import DAY, F32, I32, I64, NO_ITEM, Bool

WINDOWS_D = (1, 3, 7, 30, 90, 365)
"""Windows in days that popularity is counted over, beside all of the past."""


def popularity_evidence(postings: Postings, times: I64, pool: I32) -> F32:
    """Log-counts of each candidate in each window before each context, and the days since it was first and last taken.

    Shape [context, candidate, len(WINDOWS_D) + 3]: log(1 + count) a window, of all the past, then log(1 + days) twice.
    """
    out = np.zeros((*pool.shape, len(WINDOWS_D) + 3), np.float32)
    windows = np.array(WINDOWS_D, np.int64) * DAY
    _counts(postings.taken_offsets, postings.taken, times, pool, windows, out)
    return out


def popular_candidates(postings: Postings, times: I64, window_d: float | None, k: int, allowed: Bool) -> I32:
    """The k items taken most often in the window before each time, ties by index. Shape [context, k], NO_ITEM where fewer.

    `window_d` None counts all of the past.
    """
    n_items = len(postings.taken_offsets) - 1
    by_time = np.argsort(postings.taken, kind="stable")
    item = np.repeat(np.arange(n_items, dtype=np.int32), np.diff(postings.taken_offsets))[by_time]
    moments, place = np.unique(times, return_inverse=True)
    width = 2**62 if window_d is None else int(window_d * DAY)
    tops = _tops(postings.taken[by_time], item, moments, width, n_items, k, allowed)
    return np.ascontiguousarray(tops[place])


@njit(cache=True, parallel=True)
def _counts(offsets: I64, taken: I64, times: I64, pool: I32, windows: I64, out: F32) -> None:
    last = len(windows)
    for c in prange(len(times)):
        for a in range(pool.shape[1]):
            i = pool[c, a]
            if i < 0:
                continue
            lo = offsets[i]
            past = _older(taken, lo, offsets[i + 1], times[c])
            for w in range(last):
                before = _older(taken, lo, lo + past, times[c] - windows[w])
                out[c, a, w] = np.log1p(past - before)
            out[c, a, last] = np.log1p(past)
            first_s = times[c] - taken[lo] if past else 0
            last_s = times[c] - taken[lo + past - 1] if past else 20 * 365 * DAY
            out[c, a, last + 1] = np.log1p(first_s / DAY)
            out[c, a, last + 2] = np.log1p(last_s / DAY)


@njit(cache=True)
def _tops(time: I64, item: I32, moments: I64, width: int, n_items: int, k: int, allowed: Bool) -> I32:
    tops = np.full((len(moments), k), NO_ITEM, np.int32)
    counts = np.zeros(n_items, np.int64)
    enter, leave = 0, 0
    for m in range(len(moments)):
        while enter < len(time) and time[enter] < moments[m]:
            counts[item[enter]] += 1
            enter += 1
        while leave < enter and time[leave] < moments[m] - width:
            counts[item[leave]] -= 1
            leave += 1
        order = np.argsort(-np.where(allowed, counts, 0), kind="mergesort")
        for a in range(min(k, n_items)):
            if allowed[order[a]] and counts[order[a]] > 0:
                tops[m, a] = order[a]
    return tops
