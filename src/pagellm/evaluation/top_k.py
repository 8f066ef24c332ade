"""The best k of a row of scores, exactly. Takes arrays, gives places; knows no items and no users."""

from __future__ import annotations

import numpy as np
from numba import njit

from pagellm.types import F32, I32, I64, NO_ITEM

_SAMPLE = 512  # scores that a first bound is guessed from
_SPARE = 1.7  # times k: how many scores the guess should leave


@njit(cache=True)
def top_row(row: F32, out: I32, heap_key: F32, heap_place: I64, found: I32) -> None:
    """Writes the places of the largest scores into `out`, largest first, of equals the earlier place; NO_ITEM once there are no more.

    NaN is never taken. The heaps are room of the length of `out`, `found` of that of the row. A bound guessed from a sample leaves few
    scores to be kept in order; where it was too high, all are looked at again without one.
    """
    bound = _guess(row, len(out), heap_key, heap_place)
    size = _fill(row, bound, len(out), heap_key, heap_place, found)
    if size < len(out) and bound > -np.inf:
        size = _fill(row, np.float32(-np.inf), len(out), heap_key, heap_place, found)
    out[size:] = NO_ITEM
    while size:
        size -= 1
        out[size] = heap_place[0]
        sink(heap_key, heap_place, size, heap_key[size], heap_place[size])


@njit(cache=True)
def _guess(row, k, heap_key, heap_place):  # type: ignore[no-untyped-def]
    """A score that somewhat more than k scores should reach; -inf for short rows."""
    step = len(row) // _SAMPLE
    wanted = int(_SPARE * k / max(step, 1)) + 3
    if step < 4 or wanted > k:
        return np.float32(-np.inf)
    size = 0
    for i in range(step >> 1, len(row), step):
        key = row[i]
        if size < wanted:
            if key == key:
                rise(heap_key, heap_place, size, key, i)
                size += 1
        elif key > heap_key[0]:
            sink(heap_key, heap_place, size, key, i)
    return heap_key[0] if size == wanted else np.float32(-np.inf)


@njit(cache=True)
def _fill(row, bound, k, heap_key, heap_place, found):  # type: ignore[no-untyped-def]
    """Keeps the k largest scores of at least `bound` in a heap with the worst on top; returns how many there are."""
    reach = 0
    for i in range(len(row)):
        found[reach] = i
        reach += row[i] >= bound  # no branch: whether a score reaches the bound cannot be foreseen
    size = 0
    for at in range(reach):
        i = found[at]
        key = row[i]
        if size < k:
            rise(heap_key, heap_place, size, key, i)
            size += 1
        elif key > heap_key[0]:
            sink(heap_key, heap_place, size, key, i)
    return size


@njit(cache=True)
def rise(heap_key, heap_place, at, key, place):  # type: ignore[no-untyped-def]
    """Puts a key into the free leaf `at` of the heap and lets it rise."""
    while at:
        parent = (at - 1) >> 1
        if heap_key[parent] < key or (heap_key[parent] == key and heap_place[parent] > place):
            break
        heap_key[at], heap_place[at] = heap_key[parent], heap_place[parent]
        at = parent
    heap_key[at], heap_place[at] = key, place


@njit(cache=True)
def sink(heap_key, heap_place, size, key, place):  # type: ignore[no-untyped-def]
    """Puts a key in place of the top of the heap and lets it sink."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and (
            heap_key[child + 1] < heap_key[child]
            or (heap_key[child + 1] == heap_key[child] and heap_place[child + 1] > heap_place[child])
        ):
            child += 1
        if key < heap_key[child] or (key == heap_key[child] and place > heap_place[child]):
            break
        heap_key[at], heap_place[at] = heap_key[child], heap_place[child]
        at = child
    if size:
        heap_key[at], heap_place[at] = key, place
