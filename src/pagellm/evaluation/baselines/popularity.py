"""Live popularity: what was taken most often in the days before each context. Takes a log, gives a ranker; knows no tastes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from pagellm.evaluation.baselines.ranking import select
from pagellm.types import DAY, I32, NO_ITEM, Bool, Contexts, Interactions

_FOREVER_S = 2**62


@dataclass(frozen=True)
class Popularity:
    """Counts as of each context's own time: events strictly before it and not older than the window.

    Equal counts, and items that the window does not hold, are ordered by their count over all time before the context,
    then by index.
    """

    name: str
    log: Interactions
    counted: Bool  # [event] which events may be counted at all
    candidates: Bool  # [item]
    days: float | None  # length of the window, None for all of the past
    repeats: bool = False  # whether items of the context's own history may be ranked

    def among(self, candidates: Bool) -> Popularity:
        """The same method over other candidates."""
        return replace(self, candidates=candidates)

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k most popular candidates at each context's time. Shape [context, k]."""
        events = np.flatnonzero(self.counted)
        events = events[np.argsort(self.log.time[events], kind="stable")]
        by_time = np.argsort(contexts.time, kind="stable")
        ranked = np.full((len(contexts), k), NO_ITEM, np.int32)
        history = contexts.start, (contexts.start if self.repeats else contexts.stop)
        order = np.flatnonzero(self.candidates).astype(np.int32)
        window_s = _FOREVER_S if self.days is None else int(self.days * DAY)
        moved = self.log.time[events], self.log.item[events], len(self.candidates)
        _slide(*moved, contexts.time, by_time, window_s, order, contexts.log.item, contexts.log.taken, *history, ranked)
        return ranked


def fit_popularity(
    log: Interactions, counted: Bool, candidates: Bool, days: float | None = None, repeats: bool = False
) -> Popularity:
    """Popularity over the last `days` before each context, named as in `popularity-7d`; None counts all of the past.

    `counted` [event] is every event where a context's time parts past from future, else those that may be fitted on.
    """
    name = "popularity" if days is None else f"popularity-{days:g}d"
    return Popularity(name, log, counted, candidates, days, repeats)


@njit(cache=True)
def _slide(time, item, n_items, moments, by_time, window_s, order, own, taken, start, stop, out):  # type: ignore[no-untyped-def]
    in_window = np.int64(1) << np.int64(32)  # the key of an item is its count in the window, then its count over all time
    keys = np.zeros(n_items, np.int64)
    banned = np.zeros(n_items, np.int32)
    heap_key, heap_place = np.empty(out.shape[1], np.int64), np.empty(out.shape[1], np.int64)
    enter, leave = 0, 0
    for c in by_time:
        while enter < len(time) and time[enter] < moments[c]:
            keys[item[enter]] += in_window + 1
            enter += 1
        while leave < enter and time[leave] < moments[c] - window_s:
            keys[item[leave]] -= in_window
            leave += 1
        for e in range(start[c], stop[c]):
            if taken[e]:
                banned[own[e]] = c + 1
        select(keys, order, banned, c + 1, heap_key, heap_place, out[c])
