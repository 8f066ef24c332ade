"""Logs written out by hand or drawn with a seed, for the tests of this folder."""

from __future__ import annotations

import numpy as np

from pagellm.types import DAY, Contexts, Event, Interactions


def make_log(events: list[tuple[int, int, int]]) -> Interactions:
    """A log from (user, item, day) triples; a user's events of one day are one basket."""
    user, item, day = (np.array(column) for column in zip(*sorted(events, key=lambda e: (e[0], e[2], e[1])), strict=True))
    basket = np.zeros(len(user), np.int32)
    for u in np.unique(user):
        basket[user == u] = np.unique(day[user == u], return_inverse=True)[1]
    nan = np.full(len(user), np.nan, np.float32)
    return Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        day.astype(np.int64) * DAY,
        basket,
        np.full(len(user), int(Event.INTERACTION), np.int8),
        nan,
        nan,
        np.arange(user.max() + 1).astype(np.str_),
    )


def last_baskets(log: Interactions) -> Contexts:
    """Every user's last basket as the target of one context."""
    ends = np.searchsorted(log.user, np.arange(log.users), side="right")
    start = np.searchsorted(log.user, np.arange(log.users))
    stop = np.array([s + np.argmax(log.basket[s:e] == log.basket[e - 1]) for s, e in zip(start, ends, strict=True)])
    return Contexts(log, start, stop, ends, np.arange(log.users, dtype=np.int32), log.time[stop])


def random_log(users: int, items: int, seed: int, days: int = 60) -> Interactions:
    """Users with 3 to 12 events on items of skewed popularity; no repeats of an item by a user."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, items + 1)
    events = []
    for u in range(users):
        chosen = rng.choice(items, int(rng.integers(3, 13)), replace=False, p=share / share.sum())
        events += [(u, int(i), int(d)) for i, d in zip(chosen, rng.integers(0, days, len(chosen)), strict=True)]
    return make_log(events)
