"""From a sorted log to contexts: baskets, windows of time, histories at any moment. Knows no protocol and no files.

A context knows what its user did strictly before its time. Its target is the basket that follows. A basket that begins
in the same second in which the one before it ends has no knowable order to it, so it makes no context.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pagellm.types import DAY, I32, I64, Bool, Context, Contexts, Interactions

ALWAYS = 2**62
"""A time that no event reaches."""


def cut_time(log: Interactions, share: float) -> int:
    """The time that has `share` of the events before it: the element at floor(share · n) of the sorted times.

    Events at this very time stand after the cut, so ties never straddle it.
    """
    if len(log) == 0:
        return ALWAYS
    place = min(int(share * len(log)), len(log) - 1)
    return int(np.partition(log.time, place)[place])


def basket_starts(log: Interactions) -> I64:
    """First event of every basket, in log order. Shape [basket]."""
    if len(log) == 0:
        return np.empty(0, np.int64)
    new = (np.diff(log.user) != 0) | (np.diff(log.basket) != 0)
    return np.flatnonzero(np.concatenate(([True], new))).astype(np.int64)


def user_starts(log: Interactions) -> I64:
    """`[user + 1]`: the events of user u are `starts[u]:starts[u + 1]`."""
    return np.searchsorted(log.user, np.arange(log.users + 1)).astype(np.int64)


def orderless(log: Interactions) -> Bool:
    """[basket] whether a basket begins no later than its user's basket before it ends, so that nothing says which came first."""
    first = basket_starts(log)
    same_user = np.zeros(len(first), bool)
    if len(first) > 1:
        later = first[1:]
        same_user[1:] = (log.user[later] == log.user[later - 1]) & (log.time[later] <= log.time[later - 1])
    return same_user


def contexts_between(log: Interactions, begin: int, end: int) -> Contexts:
    """Every basket that begins in [begin, end) as the target of a context that knows all its user did before it.

    A first basket makes a cold context (empty history). Events of a basket at or after `end` leave the target: a
    basket of clock times may straddle a cut. Times are unix seconds; use `ALWAYS` for "to the end".
    """
    first = basket_starts(log)
    stop = np.append(first[1:], len(log))
    chosen = (log.time[first] >= begin) & (log.time[first] < end) & ~orderless(log)
    first, stop = first[chosen], stop[chosen]
    user = log.user[first]
    if len(first) and int(log.time.max()) >= end:
        late = np.concatenate(
            ([0], np.cumsum(log.time >= end))
        )  # events of a basket rise with time, so the late ones are its tail
        stop = stop - (late[stop] - late[first])
    return Contexts(log, user_starts(log)[user], first, stop.astype(np.int64), user, log.time[first])


def first_of_user(contexts: Contexts) -> Contexts:
    """Only each user's earliest context; the contexts must be in log order."""
    if len(contexts) == 0:
        return contexts
    return contexts.take(np.concatenate(([True], np.diff(contexts.user) != 0)))


def contexts_at(log: Interactions, user: I32, time: I64) -> Contexts:
    """Contexts without a target for given users at given moments, for instance the logged pages. Shapes [context].

    Each knows the events of its user strictly before its time.
    """
    starts = user_starts(log)
    stop = _first_at_or_after(log, user, time)
    return Contexts(log, starts[user], stop, stop, user.astype(np.int32), time.astype(np.int64))


def _first_at_or_after(log: Interactions, user: I32, time: I64) -> I64:
    """[context] first event of the user at or after the time: one search in (user, time) keys."""
    low = int(min(log.time.min(initial=ALWAYS), time.min(initial=ALWAYS)))
    high = int(max(log.time.max(initial=low), time.max(initial=low)))
    width = high - low + 2
    keys: NDArray[np.int64] = log.user.astype(np.int64) * width + (log.time - low)
    return np.searchsorted(keys, user.astype(np.int64) * width + (time - low)).astype(np.int64)


def contexts_of(pages: Sequence[Context]) -> Contexts:
    """Contexts that need no log: each one's own history as a little log of its own.

    Events at or after a context's time are left out: nothing from the future is known.
    """
    past = [np.asarray(page.times) < page.time for page in pages]
    lengths = np.array([int(keep.sum()) for keep in past], np.int64)
    user = np.repeat(np.arange(len(pages), dtype=np.int32), lengths)
    item, event, time = (
        np.concatenate([np.asarray(getattr(page, name))[keep] for page, keep in zip(pages, past, strict=True)] or [np.empty(0)])
        for name in ("items", "events", "times")
    )
    key = np.concatenate([_basket_keys(page)[keep] for page, keep in zip(pages, past, strict=True)] or [np.empty(0, np.int64)])
    new_basket = np.concatenate(([0], (np.diff(key) != 0) | (np.diff(user) != 0))).astype(np.int64)[: len(user)]
    missing = np.full(len(user), np.nan, np.float32)
    log = Interactions(
        user,
        item.astype(np.int32),
        time.astype(np.int64),
        np.cumsum(new_basket).astype(np.int32),
        event.astype(np.int8),
        missing,
        missing,
        np.array([page.user or "" for page in pages], np.str_),
    )
    stop = np.cumsum(lengths)
    now = np.array([page.time for page in pages], np.int64)
    return Contexts(log, stop - lengths, stop, stop, np.arange(len(pages), dtype=np.int32), now)


def _basket_keys(page: Context) -> I64:
    """[event] equal for neighbors of one basket."""
    if page.baskets is not None:
        return np.asarray(page.baskets, np.int64)
    return np.asarray(page.times, np.int64) // DAY
