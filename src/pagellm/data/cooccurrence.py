"""Which items were taken by the same users, as it was known at any past moment.

Takes a log, gives postings: per item the other items of its users, in the order in which each pair became known. A context reads the
prefix older than its own time, so training, test and service count the same way. Knows no candidates and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from pagellm.types import F32, I8, I32, I64, NO_ITEM, Bool, Contexts, Interactions

KINDS = ("cosine", "next", "same", "recent", "last")
"""What is counted for an item, given a history. In this order in the last axis of all arrays of this module.

cosine: pairs of all ages, over the root of both popularities (Sarwar et al. 2001); next: the other came later, by 1 / baskets between;
same: both in one basket; recent: as cosine, pairs fading with their age; last: as cosine, from the last basket alone.
"""

_SPAN = 30  # a pair more than this many events apart in a user's history says little and costs memory
_DEPTH = 30  # events of a history that are looked up, the newest first
_FADE_S = 180 * 86_400.0  # e-fold time of `recent`
_SHRINK = 10.0  # added to the popularity of the other item: a pair seen once with a rare item is weak evidence
_HISTORY_FADE = 0.85  # weight of a history event, per event back from the newest


@dataclass(frozen=True, slots=True)
class Postings:
    """For each item, what its users also took. Entries of item i: `offsets[i]:offsets[i+1]`, rising in `known`."""

    offsets: I64  # [item + 1]
    known: I64  # [entry] unix seconds at which the later of the two events happened
    other: I32  # [entry] the other item
    gap: I8  # [entry] baskets from the item to the other one, negative if the other came first, clipped to +-127
    taken_offsets: I64  # [item + 1] into `taken`
    taken: I64  # [event] times at which the item was taken, rising within an item


def build_postings(log: Interactions, n_items: int, keep: Bool | None = None) -> Postings:
    """Postings of all pairs within `_SPAN` events of one user. `keep` [event] leaves out what may not be known."""
    events = log if keep is None else log.where(keep)
    counts = _count_pairs(events.user, n_items, events.item)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    known, other, gap = _fill_pairs(events.user, events.item, events.time, events.basket, offsets)
    _sort_rows(offsets, known, other, gap)
    taken_offsets = np.concatenate([[0], np.cumsum(np.bincount(events.item, minlength=n_items))])
    taken = events.time[np.lexsort((events.time, events.item))]
    return Postings(offsets, known, other, gap, taken_offsets, taken)


@njit(cache=True)
def _count_pairs(user: I32, n_items: int, item: I32) -> I64:
    counts = np.zeros(n_items, np.int64)
    for a in range(len(user)):
        for b in range(a + 1, min(a + 1 + _SPAN, len(user))):
            if user[b] != user[a]:
                break
            if item[a] != item[b]:
                counts[item[a]] += 1
                counts[item[b]] += 1
    return counts


@njit(cache=True)
def _fill_pairs(user: I32, item: I32, time: I64, basket: I32, offsets: I64) -> tuple[I64, I32, I8]:
    total = offsets[-1]
    known, other, gap = np.empty(total, np.int64), np.empty(total, np.int32), np.empty(total, np.int8)
    at = offsets[:-1].copy()
    for a in range(len(user)):
        for b in range(a + 1, min(a + 1 + _SPAN, len(user))):
            if user[b] != user[a]:
                break
            i, j = item[a], item[b]
            if i == j:
                continue
            late = max(time[a], time[b])
            between = min(basket[b] - basket[a], 127)
            known[at[i]], other[at[i]], gap[at[i]] = late, j, between
            known[at[j]], other[at[j]], gap[at[j]] = late, i, -between
            at[i] += 1
            at[j] += 1
    return known, other, gap


@njit(cache=True, parallel=True)
def _sort_rows(offsets: I64, known: I64, other: I32, gap: I8) -> None:
    for i in prange(len(offsets) - 1):
        lo, hi = offsets[i], offsets[i + 1]
        order = np.argsort(known[lo:hi], kind="mergesort")
        known[lo:hi] = known[lo:hi][order]
        other[lo:hi] = other[lo:hi][order]
        gap[lo:hi] = gap[lo:hi][order]


@njit(cache=True)
def _older(times: I64, lo: int, hi: int, moment: int) -> int:
    """Number of entries of the rising `times[lo:hi]` that are older than the moment."""
    first = lo
    while lo < hi:
        middle = (lo + hi) // 2
        if times[middle] < moment:
            lo = middle + 1
        else:
            hi = middle
    return lo - first


def pair_evidence(postings: Postings, contexts: Contexts, pool: I32) -> F32:
    """What the postings say of each candidate, as of each context's time. Shape [context, candidate, kind], see `KINDS`."""
    out = np.zeros((*pool.shape, len(KINDS)), np.float32)
    _evidence(*_arrays(postings), *_spans(contexts), pool, out)
    return out


def pair_candidates(postings: Postings, contexts: Contexts, k: int, allowed: Bool) -> I32:
    """The k items with the most `cosine` + `recent` evidence. Shape [context, k], NO_ITEM where fewer have any."""
    out = np.full((len(contexts), k), NO_ITEM, np.int32)
    _candidates(*_arrays(postings), *_spans(contexts), allowed, out)
    return out


def _arrays(p: Postings) -> tuple[I64, I64, I32, I8, I64, I64]:
    return p.offsets, p.known, p.other, p.gap, p.taken_offsets, p.taken


def _spans(c: Contexts) -> tuple[I32, I32, I64, I64, I64]:
    return c.log.item, c.log.basket, c.start, c.stop, c.time


@njit(cache=True)
def _accumulate(offsets, known, other, gap, taken_offsets, taken, items, baskets, moment, sums, touched):  # type: ignore[no-untyped-def]
    """Adds one history's evidence to `sums` [item, kind]; returns how many items it touched (listed in `touched`)."""
    n, weight = 0, 1.0
    for e in range(len(items) - 1, max(-1, len(items) - 1 - _DEPTH), -1):
        i = items[e]
        taken_i = _older(taken, taken_offsets[i], taken_offsets[i + 1], moment)
        scale = weight / np.sqrt(max(taken_i, 1))
        is_last = baskets[e] == baskets[-1]
        stop = offsets[i] + _older(known, offsets[i], offsets[i + 1], moment)
        for p in range(offsets[i], stop):
            j = other[p]
            if sums[j, 0] == 0.0:
                touched[n] = j
                n += 1
            sums[j, 0] += scale
            if gap[p] > 0:
                sums[j, 1] += scale / gap[p]
            elif gap[p] == 0:
                sums[j, 2] += scale
            sums[j, 3] += scale * np.exp((known[p] - moment) / _FADE_S)
            if is_last:
                sums[j, 4] += scale
        weight *= _HISTORY_FADE
    for t in range(n):
        j = touched[t]
        damp = np.sqrt(_older(taken, taken_offsets[j], taken_offsets[j + 1], moment) + _SHRINK)
        for kind in range(sums.shape[1]):
            sums[j, kind] /= damp
    return n


@njit(cache=True, parallel=True)
def _evidence(offsets, known, other, gap, taken_offsets, taken, item, basket, start, stop, time, pool, out):  # type: ignore[no-untyped-def]
    n_items, chunks = len(offsets) - 1, 64
    for chunk in prange(chunks):
        sums = np.zeros((n_items, out.shape[2]), np.float32)
        touched = np.empty(n_items, np.int32)
        for c in range(chunk, len(time), chunks):
            h = slice(start[c], stop[c])
            n = _accumulate(offsets, known, other, gap, taken_offsets, taken, item[h], basket[h], time[c], sums, touched)
            for a in range(pool.shape[1]):
                if pool[c, a] >= 0:
                    out[c, a] = sums[pool[c, a]]
            for t in range(n):
                sums[touched[t]] = 0.0


@njit(cache=True, parallel=True)
def _candidates(offsets, known, other, gap, taken_offsets, taken, item, basket, start, stop, time, allowed, out):  # type: ignore[no-untyped-def]
    n_items, chunks = len(offsets) - 1, 64
    for chunk in prange(chunks):
        sums = np.zeros((n_items, 5), np.float32)
        touched = np.empty(n_items, np.int32)
        for c in range(chunk, len(time), chunks):
            h = slice(start[c], stop[c])
            n = _accumulate(offsets, known, other, gap, taken_offsets, taken, item[h], basket[h], time[c], sums, touched)
            score = np.empty(n, np.float32)
            for t in range(n):
                j = touched[t]
                score[t] = -(sums[j, 0] + sums[j, 3]) if allowed[j] else 1.0
                sums[j] = 0.0
            best = np.argsort(score, kind="mergesort")
            for a in range(min(n, out.shape[1])):
                if score[best[a]] < 0:
                    out[c, a] = touched[best[a]]
