"""Who is judged where a window holds more pages than memory should: users, drawn whole, until their pages fill what was asked for.

Takes a source of pairs, says how many pages each user would bring, and whose count. Makes no page and knows no reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pagellm.data.contexts import contexts_between
from pagellm.errors import DataError
from pagellm.training.pair_sources import PairSource
from pagellm.types import I64, Bool

MOST_PAGES = 20_000
"""Pages that are judged unless asked otherwise. Each takes about 10 KB: 1,000 candidates of 8 bytes, a dozen pairs of ten slots."""


@dataclass(frozen=True)
class Sample:
    """Who is judged, out of whom. Pages are logged ones with feedback; without logged pages, baskets of users with a history."""

    users: Bool  # [user] whose pages are judged
    pages: int  # pages of these users in the window
    of_pages: int  # pages of all users who could be judged
    judged: int  # users with a page, among these
    of_users: int  # among all

    @property
    def words(self) -> str:
        """How many of how many."""
        return f"{self.pages:,} of {self.of_pages:,} pages, of {self.judged:,} of {self.of_users:,} users"

    def as_json(self) -> dict[str, Any]:
        """pages, of_pages, users, of_users."""
        return {"pages": self.pages, "of_pages": self.of_pages, "users": self.judged, "of_users": self.of_users}


def draw_users(source: PairSource, most: int, seed: int) -> Sample:
    """All users of the source where their pages are at most so many; else drawn ones, each with all of their pages.

    Users come in a drawn order and are taken as long as their pages still fit, so no user is ever cut. Raises DataError where nobody fits.
    """
    counts = pages_by_user(source)
    every = np.flatnonzero(counts)
    taken = every if int(counts.sum()) <= most else _that_fit(counts, np.random.default_rng((seed, 12)).permutation(every), most)
    if len(every) and not len(taken):
        raise DataError(
            f"Each of the {len(every):,} users to be judged has more than {most:,} pages (the fewest: {int(counts[every].min()):,}). "
            "Judge more pages: --pages."
        )
    users = source.counts(np.arange(len(counts), dtype=np.int32))
    if len(taken) < len(every):
        users = np.isin(np.arange(len(counts)), taken)
    return Sample(users, int(counts[taken].sum()), int(counts.sum()), len(taken), len(every))


def pages_by_user(source: PairSource) -> I64:
    """[user] how many situations the source would bring."""
    shown, log = source.impressions, source.log
    if shown is None:
        contexts = contexts_between(log, source.begin, source.end)
        who = contexts.user[contexts.warm & (contexts.target_stop > contexts.stop)]
    else:
        so_far = np.concatenate([[0], np.cumsum(shown.engaged)])
        engaged = so_far[shown.offsets[1:]] > so_far[shown.offsets[:-1]]
        who = shown.user[engaged & (shown.time >= source.begin) & (shown.time < source.end)]
    return np.bincount(who[source.counts(who)], minlength=log.users).astype(np.int64)


def _that_fit(counts: I64, order: I64, most: int) -> I64:
    taken, left = [], most
    for user, pages in zip(order.tolist(), counts[order].tolist(), strict=True):
        if pages <= left:
            taken.append(user)
            left -= pages
    return np.array(taken, np.int64)
