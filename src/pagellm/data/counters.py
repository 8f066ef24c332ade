"""Random numbers by counting: a key and a number give the same draw in any order, chunk or thread. For compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., object])

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""The step of SplitMix64: counters that are multiplied by it stand far apart."""

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def _compiled(function: F) -> F:
    return cast(F, njit(cache=True, nogil=True)(function))


@_compiled
def mix(x: np.uint64) -> np.uint64:
    """Spreads the bits of one unsigned 64-bit integer: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> _S30)) * _FIRST
    x = (x ^ (x >> _S27)) * _SECOND
    return x ^ (x >> _S31)


@_compiled
def chance(key: np.uint64, number: int) -> float:
    """The number-th uniform draw of a key, in (0, 1)."""
    return (float(mix(np.uint64(key) + GOLDEN * np.uint64(number + 1)) >> _S11) + 0.5) / 9007199254740992.0
