"""From loose event arrays to sorted `Interactions` with baskets. Knows no file and no rule.

A basket is an unbroken run, in time, of one user's events with the same key: a given basket number, a page, or a UTC day.
So a basket never mixes keys, baskets rise with time, and whoever stands at a moment knows exactly the events before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagellm.data.ids import Ids
from pagellm.types import DAY, F32, I8, I32, I64, Interactions


@dataclass(frozen=True)
class Loose:
    """Accepted events in file order."""

    user: I32  # [event] code of `Ids`
    item: I32  # [event] catalog index
    time: I64  # [event] unix seconds
    key: I64  # [event] basket key, comparable within a user; see `day_keys`
    event: I8  # [event]
    rating: F32  # [event]
    value: F32  # [event]


def day_keys(time: I64) -> I64:
    """[event] a basket key for events without one: their UTC day, below every other key."""
    return -1 - time // DAY


def join(parts: list[Loose]) -> Loose:
    """The parts as one."""
    return Loose(
        np.concatenate([np.empty(0, np.int32), *(p.user for p in parts)]),
        np.concatenate([np.empty(0, np.int32), *(p.item for p in parts)]),
        np.concatenate([np.empty(0, np.int64), *(p.time for p in parts)]),
        np.concatenate([np.empty(0, np.int64), *(p.key for p in parts)]),
        np.concatenate([np.empty(0, np.int8), *(p.event for p in parts)]),
        np.concatenate([np.empty(0, np.float32), *(p.rating for p in parts)]),
        np.concatenate([np.empty(0, np.float32), *(p.value for p in parts)]),
    )


def assemble(loose: Loose, users: Ids) -> tuple[Interactions, I32]:
    """(the events sorted by user, time, key and all else; `place` [code]: index of each user code in the result)."""
    user_ids, place = users.sorted()
    user = place[loose.user] if len(loose.user) else loose.user
    order = np.lexsort((_bits(loose.value), _bits(loose.rating), loose.event, loose.item, loose.key, loose.time, user))
    user, key = user[order].astype(np.int32), loose.key[order]
    return Interactions(
        user,
        loose.item[order],
        loose.time[order],
        _runs(user, key),
        loose.event[order],
        loose.rating[order],
        loose.value[order],
        user_ids,
    ), place


def _bits(values: F32) -> NDArray[np.int32]:
    """Floats as integers, so that NaN sorts at one place."""
    return np.where(np.isnan(values), np.float32(-1), values).astype(np.float32).view(np.int32)


def _runs(user: I32, key: I64) -> I32:
    """[event] number of the run of equal keys within its user, from 0."""
    if len(user) == 0:
        return np.empty(0, np.int32)
    new_user = np.concatenate(([True], np.diff(user) != 0))
    new_run = new_user | np.concatenate(([True], np.diff(key) != 0))
    run = np.cumsum(new_run) - 1
    first: NDArray[np.int64] = run[new_user][np.cumsum(new_user) - 1]
    return (run - first).astype(np.int32)
