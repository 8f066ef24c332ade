"""Random numbers by counting: a hash of seed, purpose and counters gives the same draw in any order, chunk or thread.

Takes integers, gives uniforms in [0, 1) and standard normals. Knows no users, no pages.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pagellm.data.counters import GOLDEN, mix
from pagellm.simulation.compiled import compiled
from pagellm.types import F64

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_S11 = np.uint64(11)
_S16, _S32, _S48, _LOW16 = np.uint64(16), np.uint64(32), np.uint64(48), np.uint64(0xFFFF)
_UNIT = 2.0**-53
_FOUR_UNIFORMS = 1.0 / (65536.0 * np.sqrt(4.0 / 12.0))  # sum of four 16-bit uniforms to unit variance


class Purpose(IntEnum):
    """What a draw decides. Two purposes never share a stream."""

    FAVORITE = 1
    LEANING = 2
    DRIFT = 3
    INTENT = 4
    TASTE = 5
    PURSE = 6
    DEVICE = 7
    FEEDBACK = 8
    COMPOSE = 9
    POLICY = 10
    POLICY_NOISE = 11
    ACTIVITY = 12
    VISIT = 13
    SHOP = 14
    PROFILE = 15


@compiled
def stream(seed: int, purpose: int, first: int, second: int) -> np.uint64:
    """The key of one stream: a hash of seed, purpose and two counters, for instance user and visit."""
    key = mix(np.uint64(seed) + GOLDEN * np.uint64(purpose + 1))
    key = mix(key + GOLDEN * np.uint64(first + 1))
    return mix(key + _FIRST * np.uint64(second + 1))


@compiled
def draw(key: np.uint64, counter: int) -> np.uint64:
    """The counter-th 64 random bits of a stream."""
    return mix(key + GOLDEN * np.uint64(counter + 1))


@compiled
def uniform(bits: np.uint64) -> float:
    """64 random bits as a uniform in [0, 1), 53 bits deep."""
    return float(np.float64(bits >> _S11) * _UNIT)


@compiled
def normal(bits: np.uint64) -> float:
    """64 random bits as a standard normal: the sum of four 16-bit uniforms, so never beyond 3.5 (and free of libm)."""
    total = (bits & _LOW16) + ((bits >> _S16) & _LOW16) + ((bits >> _S32) & _LOW16) + (bits >> _S48)
    return float((np.float64(total) - 131070.0) * _FOUR_UNIFORMS)


@compiled
def _fill_uniforms(key: np.uint64, out: F64) -> None:
    for i in range(out.size):
        out[i] = uniform(draw(key, i))


@compiled
def _fill_normals(key: np.uint64, out: F64) -> None:
    for i in range(out.size):
        out[i] = normal(draw(key, i))


def uniforms(seed: int, purpose: Purpose, part: int, count: int) -> F64:
    """[draw] `count` uniforms of one stream; `part` tells streams of one purpose apart."""
    out = np.empty(count)
    _fill_uniforms(np.uint64(stream(seed, int(purpose), part, 0)), out)
    return out


def normals(seed: int, purpose: Purpose, part: int, count: int) -> F64:
    """[draw] `count` standard normals of one stream; `part` tells streams of one purpose apart."""
    out = np.empty(count)
    _fill_normals(np.uint64(stream(seed, int(purpose), part, 0)), out)
    return out
