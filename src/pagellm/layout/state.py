"""A batch of pages half written: what stands where, and which candidates the prohibitions leave for the current slot.

Takes compiled rules and candidate pools; every page moves on its own through rows and columns. Knows prohibitions only
(exclude, pin, fill, ads, limits, duplicates, frequency cap); what minimum rules still need is the business of `outlook`.
"""

from __future__ import annotations

import numpy as np

from pagellm.errors import UsageError
from pagellm.layout.compiled import CompiledLayout
from pagellm.types import I16, I32, I64, NO_ITEM, Bool

NONE = -1
"""No row, no candidate."""


class PageState:
    """Arrays over page and candidate. Pinned items count from the start: nothing written before them may collide."""

    def __init__(self, rules: CompiledLayout, candidates: I32 | I64, exclude: Bool | None, shown: I32 | None) -> None:
        pages, pool = candidates.shape
        self.rules = rules
        self.items = np.asarray(candidates, np.int64)  # [page, candidate] catalog index, NO_ITEM pads
        self.codes = np.empty((pages, len(rules.caps), pool), np.int32)  # [page, cap, candidate]
        for place, cap in enumerate(rules.caps):
            self.codes[:, place] = cap.codes[self.items]
        self.again = _repeats(self.items)  # [page, candidate] a second copy in the pool
        self.unique = not (self.again & (self.items >= 0)).any()  # no pool holds an item twice
        self.base = rules.eligible[self.items] & (self.items >= 0) & ~self.again  # [page, candidate] may stand somewhere
        if exclude is not None:
            self.base &= ~exclude
        self.limits = self._limits()  # [layout_row, cap]
        self.cap_on = np.ones((pages, len(rules.caps)), np.bool_)  # False where a soft rule was dropped from the page
        self.fresh = np.ones((pages, pool), np.bool_)  # [page, candidate] below the frequency cap
        if rules.frequency is not None and shown is not None:
            self.fresh = shown < rules.frequency.shown
        self.fresh_on = np.ones(pages, np.bool_)
        self.row = np.full(pages, NONE)  # [page] layout row of the current slot, NONE between rows and at the end
        self.col = np.zeros(pages, np.int64)  # [page] column of the current slot
        self.number = np.full(pages, NONE)  # [page] row on the page, from 0
        self.standing = np.zeros((pages, len(rules.capacity)), np.bool_)  # [page, layout_row] placed so far
        self.rows = np.full((pages, rules.layout.shown), NONE)  # [page, row] layout row that stands there
        self.chosen = np.full((pages, rules.places), NONE)  # [page, slot] candidate in reading order
        self.written = np.zeros(pages, np.int64)  # [page] slots passed
        self.used = np.zeros((pages, pool), np.bool_)  # [page, candidate] stands on the page or is pinned
        self.count = np.where(self.codes < 0, -1, 0).astype(np.int16)  # [page, cap, candidate] items of its value in the window
        self.row_fill = np.ones((pages, pool), np.bool_)  # [page, candidate] the current row takes it
        self.pinned = self._pin()  # [page, layout_row, col] candidate pinned there, NONE
        self.free = self._free()  # [page, layout_row, col] slot that is not pinned

    def _limits(self) -> I16:
        limits = np.empty((len(self.rules.capacity), len(self.rules.caps)), np.int16)
        for place, cap in enumerate(self.rules.caps):
            limits[:, place] = np.where(cap.rows, cap.limit, np.iinfo(np.int16).max)
        return limits

    def _pin(self) -> I64:
        pages = len(self.items)
        pinned = np.full((pages, *self.rules.ad_slots.shape), NONE)
        for pin in self.rules.pins:
            same = self.items == pin.item  # [page, candidate]
            if not same.any(1).all():
                raise UsageError(
                    f"{pin.name}: item {pin.item} is missing from {int((~same.any(1)).sum())} of {pages} candidate pools. "
                    "Add CompiledLayout.required_items to each pool."
                )
            place_of = np.argmax(same, 1)
            holds = np.take_along_axis(self.base, place_of[:, None], 1)[:, 0]  # excluded for this context: no pin
            pinned[holds, pin.row, pin.col] = place_of[holds]
            self.used |= same & holds[:, None]
            for place, cap in enumerate(self.rules.caps):
                if not cap.per_row and cap.codes[pin.item] >= 0:
                    self.count[:, place] += (self.codes[:, place] == cap.codes[pin.item]) & holds[:, None]
        return pinned

    def _free(self) -> Bool:
        exists = np.arange(self.rules.ad_slots.shape[1]) < self.rules.capacity[:, None]  # [layout_row, col]
        return np.asarray(exists & (self.pinned == NONE), np.bool_)

    @property
    def left(self) -> I64:
        """[page] rows still to place after the current one."""
        return np.asarray(self.rules.layout.shown - 1 - self.number, np.int64)

    @property
    def between(self) -> Bool:
        """[page] whether the page waits for its next row."""
        return np.asarray((self.row == NONE) & (self.left > 0), np.bool_)

    @property
    def done(self) -> Bool:
        """[page] whether all slots have been passed."""
        return np.asarray((self.row == NONE) & (self.left <= 0), np.bool_)

    def pin_here(self) -> I64:
        """[page] candidate pinned to the current slot, NONE."""
        if not self.rules.pins:
            return np.full(len(self.row), NONE)
        here = self.pinned[np.arange(len(self.row)), self.row, np.minimum(self.col, self.pinned.shape[2] - 1)]
        return np.where(self.row == NONE, NONE, here)

    def ad_here(self) -> Bool:
        """[page] whether the current slot takes sponsored items only."""
        return np.asarray(self.rules.ad_slots[self.row, np.minimum(self.col, self.rules.ad_slots.shape[1] - 1)], np.bool_)

    def room_after(self, ad: Bool | None) -> I64:
        """[page] free slots of the current row after the current slot; of one kind where `ad` [page] is given."""
        free = self.free[np.arange(len(self.row)), self.row] & (np.arange(self.free.shape[2]) > self.col[:, None])
        if ad is not None:
            free = free & (self.rules.ad_slots[self.row] == ad[:, None])
        return np.asarray(free.sum(1), np.int64)

    def start_row(self, pages: I64, rows: I64) -> None:
        """The next row of these pages is this layout row."""
        self.row[pages], self.col[pages] = rows, 0
        self.number[pages] += 1
        self.rows[pages, self.number[pages]] = rows
        self.standing[pages, rows] = True
        if not self.rules.fills_all:
            self.row_fill[pages] = self.rules.fill[rows[:, None], self.items[pages]]
        for place, cap in enumerate(self.rules.caps):
            if cap.per_row:
                self.count[pages, place] = self.row_counts(place, pages, rows)

    def row_counts(self, cap: int, pages: I64, rows: I64) -> I16:
        """[page, candidate] items of the candidate's value that are pinned in the row, before anything else stands in it."""
        codes = self.codes[pages, cap]  # [page, candidate]
        counts = np.where(codes < 0, -1, 0).astype(np.int16)
        for pin in self.rules.pins:
            code = self.rules.caps[cap].codes[pin.item]
            here = (rows == pin.row) & (self.pinned[pages, pin.row, pin.col] != NONE)
            if code >= 0 and here.any():
                counts += (codes == code) & here[:, None]
        return counts

    def open(self, fresh: bool = True, unique: bool = True) -> Bool:
        """Candidates that the prohibitions leave for the current free slot of each page. Shape [page, candidate].

        `fresh`, `unique`: whether a soft frequency cap, soft dedup rules hold in this slot. No page may be pinned here.
        """
        keep = self.base & ~self.used
        if not self.rules.fills_all:
            keep &= self.row_fill
        if self.rules.ad_slots.any():
            keep &= self.rules.sponsored[self.items] == self.ad_here()[:, None]
        soft = self.rules.frequency is not None and self.rules.frequency.soft
        if self.rules.frequency is not None and not soft:
            keep &= self.fresh
        elif soft and fresh:
            keep &= self.fresh | ~self.fresh_on[:, None]
        for place, cap in enumerate(self.rules.caps):
            if cap.soft and not unique:
                continue
            below = self.count[:, place] < self.limits[self.row, place][:, None]
            keep &= below | ~self.cap_on[:, place, None] if cap.soft else below
        return np.asarray(keep & (self.row != NONE)[:, None], np.bool_)

    def put(self, choice: I64) -> None:
        """Puts a candidate (NONE: nothing) into the current slot of each page that has one, and moves to the next slot."""
        pages = np.flatnonzero(self.row != NONE)
        pick = choice[pages]
        self.chosen[pages, self.written[pages]] = pick
        free = (pick != NONE) & (self.pin_here()[pages] == NONE)  # pinned items were counted at the start
        self._count(pages[free], pick[free])
        self.written[pages] += 1
        self.col[pages] += 1
        ended = pages[self.col[pages] >= self.rules.capacity[self.row[pages]]]
        self.row[ended] = NONE

    def put_rest(self, choices: I64) -> None:
        """Puts candidates into all slots that are left, where the order of rows is fixed and no cap counts. Shape [page, slot]."""
        self.chosen[:, self.rules.places - choices.shape[1] :] = choices
        self.written[:], self.row[:] = self.rules.places, NONE
        self.col[:], self.number[:] = self.rules.capacity[-1], self.rules.layout.shown - 1
        self.rows[:], self.standing[:] = np.arange(self.rules.layout.shown), True
        np.put_along_axis(self.used, choices, True, 1)

    def _count(self, pages: I64, pick: I64) -> None:
        if not len(pages):
            return
        every = len(pages) == len(self.items)
        at = slice(None) if every else pages
        if self.unique:
            self.used[pages, pick] = True
        else:
            self.used[at] |= self.items[at] == self.items[pages, pick][:, None]
        if self.rules.caps:
            codes = self.codes[at]
            value = self.codes[pages, :, pick][:, :, None]
            self.count[at] += (codes == value) & (value >= 0)

    def slot_item(self, page: int, slot: int) -> int:
        """Catalog index in a passed slot, NO_ITEM if it stayed empty."""
        pick = self.chosen[page, slot]
        return int(self.items[page, pick]) if pick != NONE else NO_ITEM


def _repeats(items: I64) -> Bool:
    """[page, candidate] whether the same item stands earlier in the pool."""
    if (items[:, 1:] > items[:, :-1]).all():  # a sorted pool, as one of the whole catalog is, has no repeats
        return np.zeros(items.shape, np.bool_)
    order = np.argsort(items, axis=1, kind="stable")
    ranked = np.take_along_axis(items, order, 1)
    again = np.zeros(items.shape, np.bool_)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], 1)
    return again
