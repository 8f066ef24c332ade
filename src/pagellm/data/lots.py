"""Lots: numbers that stand for ids and records and put them into an order of chance, the same wherever in a log they come from.

Takes ids or rows of numbers, gives one unsigned number each. Knows no record.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pagellm.data.counters import GOLDEN, mix
from pagellm.types import I64, U64, Bool


def id_keys(ids: np.ndarray) -> U64:
    """[id] the key of each text: equal texts, equal keys, however wide the array. Two of ten million ids meet by chance once in 370,000
    logs."""
    texts = np.ascontiguousarray(ids, np.str_)
    width = texts.itemsize // 4  # of four bytes a letter
    letters = texts.view(np.uint32).reshape(len(texts), width) if width else np.zeros((len(texts), 1), np.uint32)
    return np.asarray(_hashed_texts(letters))


def draw_lots(numbers: U64, ends: np.uint64 | None = None) -> U64:
    """[row] one number from each row of numbers [row, any]; a row ends before the first number `ends`, if one is given."""
    return np.asarray(_hashed(np.ascontiguousarray(numbers), np.uint64(0) if ends is None else ends, ends is not None))


def first_by_lot(key: I64, lot: U64, most: int) -> Bool:
    """[any] whether fewer than `most` of the same key have a lower lot; of equal lots the earlier is lower."""
    order = np.lexsort((lot, key))
    ranked = key[order]
    first = np.concatenate((np.ones(min(1, len(key)), bool), ranked[1:] != ranked[:-1]))
    begin = np.maximum.accumulate(np.where(first, np.arange(len(key)), 0))
    out = np.empty(len(key), bool)
    out[order] = np.arange(len(key)) - begin < most
    return out


@njit(cache=True)
def _hashed(numbers, ends, ended):  # type: ignore[no-untyped-def]
    out = np.zeros(len(numbers), np.uint64)
    for n in range(len(numbers)):
        for value in numbers[n]:
            if ended and value == ends:
                break
            out[n] = mix(out[n] + GOLDEN + value)
    return out


@njit(cache=True)
def _hashed_texts(letters):  # type: ignore[no-untyped-def]
    out = np.zeros(len(letters), np.uint64)
    for n in range(len(letters)):
        length = letters.shape[1]
        while length and letters[n, length - 1] == 0:  # numpy fills the array's width with zeros
            length -= 1
        for a in range(length):
            out[n] = mix(out[n] + GOLDEN + np.uint64(letters[n, a]))
    return out
