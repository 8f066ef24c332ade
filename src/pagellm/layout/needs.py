"""What minimum rules still ask of each page, and the exact puzzle that it leaves. Reads `state`, changes nothing but its own counts.

A rule over rows is one instance a row; all counts are of items beyond the pinned ones. Knows no plans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.layout.puzzle import PAGE, Limit, Puzzle, Want
from pagellm.layout.state import NONE, PageState
from pagellm.types import I16, I32, I64, Bool


@dataclass(frozen=True, slots=True)
class Instance:
    """A minimum rule in one window: the page, or one row."""

    need: int  # place in `CompiledLayout.needs`
    row: int  # layout row, or PAGE
    limit: int
    soft: bool
    name: str


class Needs:
    """Outstanding needs of a batch of pages."""

    def __init__(self, state: PageState) -> None:
        self.state = state
        self.instances = _instances(state)
        self.members = np.stack([need.members[state.items] for need in state.rules.needs], 1)  # [page, need, candidate]
        self.short = np.zeros((len(state.items), len(self.instances)), np.int64)  # [page, instance] items still needed

    def full(self, page: int) -> I64:
        """[instance] what the layout asks for beyond the pinned items."""
        return np.array([max(0, one.limit - self._pinned(page, one)) for one in self.instances])

    def _pinned(self, page: int, one: Instance) -> int:
        members = self.state.rules.needs[one.need].members
        pins = [pin for pin in self.state.rules.pins if self.state.pinned[page, pin.row, pin.col] != NONE]
        return sum(bool(members[pin.item]) for pin in pins if one.row in (PAGE, pin.row))

    def count(self, pages: I64, pick: I64) -> None:
        """Takes the picks off the outstanding needs, before `state` moves on. Shapes [pick]."""
        for place, one in enumerate(self.instances):
            helps = self.members[pages, one.need, pick] & ((one.row == PAGE) | (self.state.row[pages] == one.row))
            self.short[pages, place] -= helps

    def useful(self, page: int) -> Bool:
        """[candidate] may stand on the page and counts for some minimum rule."""
        state = self.state
        usable = state.base[page] & ~state.used[page] & self.members[page].any(0)
        if state.rules.frequency is not None and state.fresh_on[page]:
            usable &= state.fresh[page]
        return np.asarray(usable, np.bool_)

    def out_of_reach(self) -> Bool:
        """[page, candidate] after which more items are needed than slots are left: cheap, catches most of what must be refused."""
        state = self.state
        in_row = state.room_after(None)
        ahead = np.sort(np.where(state.standing, 0, state.free.sum(2)), 1)[:, ::-1]  # [page, layout_row] largest first
        room = in_row + np.where(np.arange(ahead.shape[1]) < state.left[:, None], ahead, 0).sum(1)
        out = np.zeros(state.items.shape, np.bool_)
        for place, one in enumerate(self.instances):
            left = self.short[:, place, None] - self.members[:, one.need]
            out |= (left > room[:, None]) if one.row == PAGE else (left > in_row[:, None]) & (state.row == one.row)[:, None]
        return out

    def kinds(self, page: int, places: I64) -> I32:
        """[candidate, feature] two candidates with equal features leave the same puzzle."""
        state, items, useful = self.state, self.state.items[page, places], self.useful(page)
        features = [*self.members[page][:, places].astype(np.int32)]
        # a value that no useful item has cannot get in the way of one
        features += [np.where(np.isin(codes[places], codes[useful]), codes[places], -1) for codes in state.codes[page]]
        if useful[places].any():
            mine = useful[places]
            features += [*np.where(mine, state.rules.fill[:, items], False).astype(np.int32)]
            features += [mine.astype(np.int32), (mine & state.rules.sponsored[items]).astype(np.int32)]
        return np.stack(features, 1).astype(np.int32)

    def puzzle(self, page: int, spent: bool = False, pick: int = NONE, row: int = NONE) -> Puzzle:
        """What is ahead of one page: after its current slot holds `pick` if `spent`, with `row` certain to stand if given."""
        state = self.state
        current = int(state.row[page])
        ahead = ~state.standing[page]
        must = ahead & ~state.rules.optional
        must[[r for r in (current, row) if r != NONE]] = True
        may = ahead & ~must
        picks = int(state.left[page]) - int((must & ahead).sum())
        wants = self._wants(page, current, pick, must | may)
        rows, ads, room = self._slots(page, current, int(state.col[page]) + spent, must | may)
        helps = np.logical_or.reduce([want.members for want in wants] or [np.zeros(state.items.shape[1], np.bool_)])
        helps = helps & self.useful(page)
        if pick != NONE:
            helps[pick] = False
        useful = np.flatnonzero(helps)
        items = state.items[page, useful]
        fits = state.rules.fill[rows][:, items].T
        if state.rules.ad_slots.any():
            fits = fits & (state.rules.sponsored[items][:, None] == ads)
        limits = self._limits(page, current, pick, np.unique(rows), useful)
        cut = tuple(Want(want.members[useful], want.amount, want.row) for want in wants)
        return Puzzle(useful, room, rows, ads, fits, must, may, picks, limits, cut)

    def _wants(self, page: int, current: int, pick: int, rows: Bool) -> list[Want]:
        wants = []
        for place, one in enumerate(self.instances):
            members = self.members[page, one.need]
            helped = pick != NONE and bool(members[pick]) and one.row in (PAGE, current)
            amount = int(self.short[page, place]) - helped
            if amount > 0 and (one.row == PAGE or rows[one.row]):
                wants.append(Want(members, amount, one.row))
        return wants

    def _slots(self, page: int, current: int, col: int, rows: Bool) -> tuple[I64, Bool, I64]:
        """Row, ad or not, and number of the free slots of each kind ahead; the current row first."""
        state = self.state
        kinds = []
        for row in sorted(np.flatnonzero(rows), key=lambda r: r != current):
            free = state.free[page, row].copy()
            if row == current:
                free[:col] = False
            kinds += [(row, ad, int((free & (state.rules.ad_slots[row] == ad)).sum())) for ad in (False, True)]
        table = np.array([kind for kind in kinds if kind[2]], np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1].astype(np.bool_), table[:, 2]

    def _limits(self, page: int, current: int, pick: int, rows: I64, useful: I64) -> tuple[Limit, ...]:
        state, found = self.state, []
        for place in np.flatnonzero(state.cap_on[page]):
            cap, codes = state.rules.caps[place], state.codes[page, place]
            taken = (codes == codes[pick]) & (codes >= 0) if pick != NONE else np.zeros(len(codes), np.bool_)
            for row in rows if cap.per_row else [PAGE]:
                if row != PAGE and not cap.rows[row]:
                    continue
                count = self._window_count(page, int(place), int(row), current) + (taken & (row in (PAGE, current)))
                found.append(Limit(codes[useful], (cap.limit - count[useful]).astype(np.int64), int(row)))
        return tuple(found)

    def _window_count(self, page: int, cap: int, row: int, current: int) -> I16:
        if row in (PAGE, current):
            return np.asarray(self.state.count[page, cap], np.int16)
        return np.asarray(self.state.row_counts(cap, np.array([page]), np.array([row]))[0], np.int16)


def _instances(state: PageState) -> list[Instance]:
    windows = [
        (place, need, int(row))
        for place, need in enumerate(state.rules.needs)
        for row in (np.flatnonzero(need.rows) if need.per_row else [PAGE])
    ]
    return [Instance(place, row, need.limit, need.soft, need.name) for place, need, row in windows]
