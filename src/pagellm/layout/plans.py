"""One way a page, for a batch of pages, to meet what is still needed and somewhat more: items in free slots ahead, as arrays.

Limits only ever forbid, so any part of a plan is as good as the whole while enough of it is left. A candidate costs a plan at most
one item a limit that it fills, one for the slot that it takes, and itself: few enough, and no further thought is needed.
"""

from __future__ import annotations

import numpy as np

from pagellm.layout.needs import Needs
from pagellm.layout.puzzle import PAGE, Plan, Puzzle
from pagellm.layout.state import NONE
from pagellm.types import I16, I64, Bool

_NEVER = -2  # no row: `reserve` must be counted anew
_PLENTY = np.int16(10_000)


class Plans:
    """A plan for each page."""

    def __init__(self, needs: Needs, width: int) -> None:
        state = needs.state
        pages = len(state.items)
        self.needs, self.state = needs, state
        self.item = np.full((pages, width), NONE)  # [page, use] candidate; NONE where the entry is free
        self.row = np.full((pages, width), NONE)  # [page, use] layout row
        self.ad = np.zeros((pages, width), np.bool_)  # [page, use] in an ad slot
        self.rows = np.zeros((pages, len(state.rules.capacity)), np.bool_)  # [page, layout_row] rows of the planned page
        self.eroded = np.zeros(pages, np.bool_)  # [page] has lost items since it was made
        self.reserve = np.zeros(state.count.shape, np.int16)  # [page, cap, candidate] planned items of its value in the window
        self.reserve_row = np.full(pages, _NEVER)  # [page] current row that `reserve` stands for

    @property
    def uses(self) -> Bool:
        """[page, use] entries that hold an item."""
        return np.asarray(self.item != NONE, np.bool_)

    def store(self, page: int, puzzle: Puzzle, plan: Plan) -> None:
        """This is the page's plan from now on."""
        size = len(plan.item)
        self.item[page], self.row[page] = NONE, NONE
        self.item[page, :size] = puzzle.item[plan.item]
        self.row[page, :size] = puzzle.row[plan.kind]
        self.ad[page, :size] = puzzle.ad[plan.kind]
        self.rows[page] = plan.rows
        self.eroded[page] = False
        self.reserve_row[page] = _NEVER

    def clear(self, page: int) -> None:
        """The page plans nothing."""
        self.item[page] = NONE
        self.reserve_row[page] = _NEVER

    def here(self) -> Bool:
        """[page, use] uses that stand in slots of the current row and of the current slot's kind."""
        return np.asarray(self._in_row() & (self.ad == self.state.ad_here()[:, None]), np.bool_)

    def tight(self) -> Bool:
        """[page] the plan needs the current slot."""
        return np.asarray(self.here().sum(1) > self.state.room_after(self.state.ad_here()), np.bool_)

    def safe(self) -> Bool:
        """[page, candidate] after which enough of the plan is left."""
        self._refresh()
        here, uses = self.here(), self.uses
        planned, planned_here, planned_row = self._marks(uses), self._marks(here), self._marks(self._in_row())
        cost = planned.astype(np.int16)
        for place, cap in enumerate(self.state.rules.caps):
            cost += self._filled(place, planned_row if cap.per_row else planned)
        # where the whole plan stands here, an item given up for a limit frees the slot as well
        freed = planned_here | ((cost > 0) & (here.sum(1) == uses.sum(1))[:, None])
        cost += self.tight()[:, None] & ~freed
        return np.asarray(cost <= self._slack(), np.bool_)

    def left(self, pages: I64, pick: I64) -> Bool:
        """[pick, use] what is left of the plans once the picks stand in the current slots. Shapes [pick]."""
        state, item = self.state, self.item[pages]  # [pick, use]
        alive = (item != NONE) & (item != pick[:, None])
        inside = self.row[pages] == state.row[pages, None]
        here = inside & (self.ad[pages] == state.ad_here()[pages, None])
        for place, cap in enumerate(state.rules.caps):
            value = state.codes[pages, place, pick]
            same = alive & (state.codes[pages[:, None], place, item] == value[:, None]) & (inside if cap.per_row else True)
            full = state.count[pages, place, pick] + same.sum(1) >= state.limits[state.row[pages], place]
            alive &= ~_first(same, here, full & (value >= 0) & state.cap_on[pages, place])
        crowded = (alive & here).sum(1) > state.room_after(state.ad_here())[pages]
        alive &= ~_first(alive & here, here, crowded)
        return np.asarray(alive, np.bool_)

    def enough(self, pages: I64, pick: I64) -> Bool:
        """[pick] whether what is left of the plan meets the needs, less what the pick meets. Shapes [pick]."""
        state, needs, alive = self.state, self.needs, self.left(pages, pick)
        good = np.ones(len(pages), np.bool_)
        for place, one in enumerate(needs.instances):
            members = needs.members[pages[:, None], one.need, self.item[pages]]  # [pick, use]
            got = (alive & members & ((one.row == PAGE) | (self.row[pages] == one.row))).sum(1)
            helps = needs.members[pages, one.need, pick] & ((one.row == PAGE) | (state.row[pages] == one.row))
            good &= ~self._due(place)[pages] | (got + helps >= needs.short[pages, place])
        return good

    def _due(self, place: int) -> Bool:
        """[page] whether a need is open: its window is the page, the current row, or a row that is planned."""
        row, state = self.needs.instances[place].row, self.state
        due = self.needs.short[:, place] > 0
        if row != PAGE:
            due &= (state.row == row) | (~state.standing[:, row] & self.rows[:, row])
        return np.asarray(due, np.bool_)

    def _marks(self, uses: Bool) -> Bool:
        marks = np.zeros(self.state.items.shape, np.bool_)
        marks[np.repeat(np.arange(len(uses)), uses.sum(1)), self.item[uses]] = True
        return marks

    def _in_row(self) -> Bool:
        return np.asarray(self.uses & (self.row == self.state.row[:, None]), np.bool_)

    def _filled(self, cap: int, itself: Bool) -> Bool:
        """[page, candidate] whether the limit would not take the candidate beside the plan, less the candidate itself."""
        state = self.state
        count = state.count[:, cap] + self.reserve[:, cap] - itself
        return np.asarray((count >= state.limits[state.row, cap][:, None]) & state.cap_on[:, cap, None], np.bool_)

    def _slack(self) -> I16:
        """[page, candidate] planned items beyond those still needed once the candidate stands, for the need with the fewest."""
        state, needs, uses = self.state, self.needs, self.uses
        slack = np.full(state.items.shape, _PLENTY)
        for place, one in enumerate(needs.instances):
            due = self._due(place)
            if not due.any():
                continue
            members = needs.members[:, one.need]  # [page, candidate]
            counted = (
                np.take_along_axis(members, np.maximum(self.item, 0), 1) & uses & ((one.row == PAGE) | (self.row == one.row))
            )
            spare = (counted.sum(1) - needs.short[:, place]).astype(np.int16)[:, None]
            helps = members & ((one.row == PAGE) | (state.row == one.row))[:, None]
            slack = np.where(due[:, None], np.minimum(slack, spare + helps), slack)
        return slack

    def _refresh(self) -> None:
        state = self.state
        stale = np.flatnonzero(self.reserve_row != state.row)
        if not len(stale):
            return
        self.reserve[stale] = 0
        uses = self.uses[stale]
        for use in np.flatnonzero(uses.any(0)):
            self._reserve(stale, np.full(len(stale), use), 1, uses[:, use])
        self.reserve_row[stale] = state.row[stale]

    def _reserve(self, pages: I64, use: I64, sign: int, holds: Bool) -> None:
        state = self.state
        item, row = self.item[pages, use], self.row[pages, use]
        for place, cap in enumerate(state.rules.caps):
            value = state.codes[pages, place, item]
            counts = holds & (value >= 0) & ((row == state.row[pages]) if cap.per_row else True)
            if counts.any():
                same = state.codes[pages, place] == value[:, None]
                self.reserve[pages, place] += (sign * (same & counts[:, None])).astype(np.int16)

    def give_way(self, pages: I64, pick: I64) -> None:
        """Takes out of the plans what cannot stand beside the picks, before `state` moves on. Shapes [pick]."""
        self._refresh()
        out = (self.item[pages] != NONE) & ~self.left(pages, pick)  # [pick, use]
        for use in np.flatnonzero(out.any(0)):
            at = pages[out[:, use]]
            self._reserve(at, np.full(len(at), use), -1, np.ones(len(at), np.bool_))
            self.item[at, use] = NONE
        self.eroded[pages[out.any(1)]] = True


def _first(uses: Bool, rather: Bool, wanted: Bool) -> Bool:
    """[pick, use] one use of each wanted pick, rather one that `rather` marks; none where there is none."""
    best = np.argmax(uses.astype(np.int8) + (uses & rather), 1)
    one = np.zeros(uses.shape, np.bool_)
    one[np.arange(len(uses)), best] = wanted
    return one & uses
