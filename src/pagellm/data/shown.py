"""What users were shown lately: what frequency caps count. Takes a log's pages; knows no layout and no rules."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pagellm.types import DAY, I32, Context, Contexts, Impressions


def recently_shown(shown: Impressions | None, user: int, now: int, days: int) -> I32:
    """Items that the log's pages showed to a user in the days before `now`, once a showing. A slot that is known to have stayed unseen
    showed nothing."""
    if shown is None or days <= 0:
        return np.empty(0, np.int32)
    pages = np.flatnonzero((shown.user == user) & (shown.time < now) & (shown.time >= now - days * DAY))
    slots = np.concatenate([np.arange(shown.offsets[p], shown.offsets[p + 1]) for p in pages] or [np.empty(0, np.int64)])
    seen: I32 = shown.item[slots[shown.viewed[slots] != 0]]
    return seen


def askers(contexts: Contexts, shown: Impressions | None, days: int) -> Iterator[Context]:
    """Contexts of a log as records for rules: who asks, when, and what they were shown in so many days. Their histories are left out."""
    items, codes, times = np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64)
    for user, time in zip(contexts.user.tolist(), contexts.time.tolist(), strict=True):
        yield Context(time, items, codes, times, str(contexts.log.user_ids[user]), shown=recently_shown(shown, user, time, days))
