"""From a log of pages to the pages that a run may be judged on: in its catalog, its layout and later than all that it learned from.

Takes a run and a checked log, gives arrays [page, slot] and why pages were left out. Knows no estimator and no network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pagellm.catalog import Catalog
from pagellm.data.contexts import ALWAYS
from pagellm.data.log import Log
from pagellm.errors import DataError, RunError, UsageError
from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.spec import Layout
from pagellm.models.run import Run, run_layout
from pagellm.training.pair_sources import known_since
from pagellm.types import F64, I32, I64, NO_ITEM, Bool, Impressions, Interactions

REWARDS = ("clicks", "carts", "purchases", "value")
"""What a page can be judged by: counts of slots, or money."""

UNKNOWN = -2
"""Stands for an item that the run's catalog does not hold: the run's policy never shows it."""

_SAME_TITLES, _KNOWN_ITEMS = 0.9, 0.5  # below, a catalog is another one rather than a later state of the same


@dataclass(frozen=True)
class JudgedPages:
    """Logged pages in reading order of a layout. Items are indexes of the run's catalog."""

    items: I32  # [page, slot] NO_ITEM where there is no slot, UNKNOWN where the run does not know the item
    real: Bool  # [page, slot]
    propensity: F64  # [page, slot] NaN where unknown, 1 where there is no slot
    rewards: F64  # [page, slot]
    user: I32  # [page] index into the users of `log`
    time: I64  # [page] unix seconds
    log: Interactions  # the log's feedback on items of the run's catalog: what contexts know
    since: I64  # [item] unix seconds at which the log first knows each item of the run's catalog, see `known_since`
    left_out: tuple[str, ...]  # which pages are not judged, in words

    def __len__(self) -> int:
        return len(self.items)

    def take(self, pages: Bool) -> JudgedPages:
        """The pages at which this holds."""
        names = ("items", "real", "propensity", "rewards", "user", "time")
        return replace(self, **{name: getattr(self, name)[pages] for name in names})

    def drawn(self, most: int, seed: int) -> JudgedPages:
        """At most so many pages: users are drawn, each with all of their pages."""
        if len(self) <= most:
            return self
        counts = np.bincount(self.user)
        order = np.random.default_rng((seed, 21)).permutation(np.flatnonzero(counts))
        kept = order[np.cumsum(counts[order]) <= most]
        if not len(kept):
            raise DataError(f"The first user drawn has {counts[order[0]]:,} pages, more than {most:,}. Raise --pages.")
        return self.take(np.isin(self.user, kept))


def layout_of(run: Run, shown: Impressions, layout: Layout | None) -> Layout:
    """The layout given, else the run's own, else one row as long as the log's longest. Raises UsageError for one that cannot be judged."""
    chosen = layout or run_layout(run, int(shown.col.max(initial=0)) + 1)
    if chosen.order == "policy":
        raise UsageError(
            f"Layout {chosen.id!r} lets the policy choose rows, and logs do not say which row a page showed. Judge one with "
            'order = "fixed" (--layout FILE).'
        )
    if chosen.rules.frequency_cap is not None:
        raise UsageError(
            f"Layout {chosen.id!r} caps how often an item is shown, and that is not counted for logged pages. Judge a copy of it without "
            "frequency_cap (--layout FILE)."
        )
    return chosen


def judged_pages(run: Run, log: Log, rules: CompiledLayout, reward: str, logged_by: str | None) -> JudgedPages:
    """The log's pages after the run's past. Raises DataError where none is left or the layout is another, RunError for another catalog."""
    shown = log.impressions
    assert shown is not None  # the caller has looked
    place = catalog_places(run, log.catalog)
    cut = learned_until(run)
    kept = shown.time >= cut
    left_out = (
        [f"{int((~kept).sum()):,} of {len(shown):,} pages are no later than what the run learned from"] if (~kept).any() else []
    )
    if logged_by is not None:
        others = kept & (shown.policy != logged_by)
        kept &= shown.policy == logged_by
        if others.any():
            left_out.append(f"{int(others.sum()):,} later pages are of other logging policies")
    if not kept.any():
        policies = ", ".join(np.unique(shown.policy)[:10].tolist())
        raise DataError(
            f"{log.name} holds no page to judge the run {run.folder.name} on: {'; '.join(left_out)}. Name a later log, or with "
            f"--logged-by one of its policies: {policies}."
        )
    part = shown.where(kept)
    return _arrays(part, place, rules, reward, log, tuple(left_out))


def catalog_places(run: Run, catalog: Catalog) -> I32:
    """[item of the log] its index in the run's catalog, UNKNOWN where it has none. Raises RunError where the catalogs are different."""
    index = {str(item): at for at, item in enumerate(run.catalog.item_ids)}
    place = np.array([index.get(str(item), UNKNOWN) for item in catalog.item_ids], np.int32)
    known = np.flatnonzero(place >= 0)
    same = sum(catalog.titles[item] == run.catalog.titles[place[item]] for item in known.tolist())
    if len(known) < _KNOWN_ITEMS * len(catalog) or same < _SAME_TITLES * len(known):
        raise RunError(
            f"The run {run.folder.name} was trained on another catalog: of {len(catalog):,} items of the log it knows {len(known):,}, and "
            f"{same:,} of these have the same title. Judge it on a log of the shop that it was trained on."
        )
    return place


def learned_until(run: Run) -> int:
    """Unix seconds from which on nothing was learned from. Raises RunError where no time parts what was learned from the rest."""
    if not run.split.point_in_time:
        raise RunError(
            f"The run {run.folder.name} was trained on the split {run.split.protocol}, which no moment parts into past and future, so no "
            "logged page is known to be later. Train one with --split temporal."
        )
    if run.knows_all:
        return int(run.split.log.time.max(initial=0)) + 1
    return int(str(run.split.card["test_cut"]))


def estimated_propensities(pages: JudgedPages) -> JudgedPages:
    """Unknown propensities replaced by how often each item stands in the slot, over all judged pages.

    Right only if the logging policy ignores who asks and what else is on the page; figures that rest on it say so.
    """
    propensity = pages.propensity.copy()
    for slot in range(propensity.shape[1]):
        there = pages.real[:, slot]
        _, which, count = np.unique(pages.items[there, slot], return_inverse=True, return_counts=True)
        frequency = count[which] / max(int(there.sum()), 1)
        propensity[there, slot] = np.where(np.isnan(propensity[there, slot]), frequency, propensity[there, slot])
    return replace(pages, propensity=propensity)


def _arrays(
    shown: Impressions, place: I32, rules: CompiledLayout, reward: str, log: Log, left_out: tuple[str, ...]
) -> JudgedPages:
    first = np.concatenate([[0], np.cumsum(rules.capacity)])
    row, col = shown.row.astype(np.int64), shown.col.astype(np.int64)
    rows = len(rules.capacity)
    outside = (row >= rows) | (col >= rules.capacity[row.clip(0, rows - 1)])
    page = np.repeat(np.arange(len(shown)), np.diff(shown.offsets))
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"Page {shown.page_ids[page[at]]} has a slot r{row[at]}c{col[at]}, which layout {rules.layout.id!r} does not have "
            f"({rows} rows of {', '.join(map(str, rules.capacity))} slots). Give the layout that the pages were logged with: --layout FILE."
        )
    slot, shape = first[row] + col, (len(shown), int(first[-1]))
    items, propensity = np.full(shape, NO_ITEM, np.int32), np.ones(shape)
    rewards, real = np.zeros(shape), np.zeros(shape, bool)
    earned = {"clicks": shown.clicked, "carts": shown.carted, "purchases": shown.purchased, "value": shown.value}[reward]
    items[page, slot], real[page, slot] = place[shown.item], True
    propensity[page, slot], rewards[page, slot] = shown.propensity, earned
    known = log.interactions.where(place[log.interactions.item] >= 0)
    since, there = np.full(len(rules.eligible), ALWAYS, np.int64), place >= 0
    since[place[there]] = known_since(log.interactions, log.impressions, log.catalog)[there]
    return JudgedPages(
        items, real, propensity, rewards, shown.user, shown.time, replace(known, item=place[known.item]), since, left_out
    )
