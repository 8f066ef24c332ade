"""The logging policy: for each context the page that its user really saw. Takes logged pages, gives a ranker; a review-type log has none.

What was taken was taken from that page, so its accuracy says how much of what users took they were shown, and no method that writes
other pages can be told worse by it. It stands beside the others for what pages were like.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pagellm.evaluation.baselines.ranking import KnownUsers
from pagellm.types import I32, I64, NO_ITEM, Bool, Contexts, Impressions


@dataclass(frozen=True)
class LoggedPages:
    """The page on which a context begins: its user's last one at or before the context's time that was not over by then.

    Items that are no candidates are left out, an item that stands twice counts once; without such a page the ranking is empty.
    """

    pages: Impressions
    user_ids: NDArray[np.str_]  # of the log that `pages.user` counts in
    candidates: Bool  # [item]
    name: str = "logging"

    def among(self, candidates: Bool) -> LoggedPages:
        """The same pages, other items left out."""
        return replace(self, candidates=candidates)

    def rank(self, contexts: Contexts, k: int) -> I32:
        """Items in the reading order of the page. Shape [context, k]."""
        out = np.full((len(contexts), k), NO_ITEM, np.int32)
        for c, page in enumerate(self.page_of(contexts)):
            if page >= 0:
                items = self.pages.item[self.pages.offsets[page] : self.pages.offsets[page + 1]]
                items = items[np.sort(np.unique(items, return_index=True)[1])]
                items = items[self.candidates[items]][:k]
                out[c, : len(items)] = items
        return out

    def page_of(self, contexts: Contexts) -> I64:
        """The page of each context, -1 where there is none. Shape [context]."""
        ids, place = np.unique(self.user_ids, return_inverse=True)
        user, asked = place[self.pages.user], KnownUsers(ids).rows(contexts)
        order = np.lexsort((self.pages.time, user))
        low = int(min(self.pages.time.min(initial=0), contexts.time.min(initial=0)))
        width = int(max(self.pages.time.max(initial=0), contexts.time.max(initial=0))) - low + 1
        keys = user[order].astype(np.int64) * width + self.pages.time[order] - low
        at = np.searchsorted(keys, asked * width + contexts.time - low, side="right") - 1
        page = order[np.maximum(at, 0)] if len(order) else np.zeros(len(contexts), np.int64)
        there = (at >= 0) & (asked >= 0)
        if len(order):
            there &= (user[page] == asked) & (self.pages.settled[page] >= contexts.time)
        return np.where(there, page, -1).astype(np.int64)
