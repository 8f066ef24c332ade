"""Look-ahead for minimum rules: which candidates and rows leave a way to meet what is still needed.

Each page carries a plan with some items to spare. A candidate that leaves enough of it is safe; that is a few array operations.
Only candidates in doubt are decided, one kind at a time, exactly, by `puzzle`. Knows no probabilities.
"""

from __future__ import annotations

import numpy as np

from pagellm.layout.needs import Needs
from pagellm.layout.plans import Plans
from pagellm.layout.puzzle import PAGE, extend, solve
from pagellm.layout.state import NONE, PageState
from pagellm.types import I64, Bool


class Outlook:
    """Needs and plans of a batch of pages. Built after the pins stand and before the first row is placed."""

    def __init__(self, state: PageState) -> None:
        self.state = state
        self.needs = Needs(state)
        count = len(self.needs.instances)
        self.extra = 1 + min(len(state.rules.caps), 6 // max(1, count))  # planned beyond each need; fewer where needs are many
        self.plans = Plans(self.needs, max(1, sum(one.limit + self.extra for one in self.needs.instances)))
        self.lost = np.zeros(len(state.items), np.bool_)  # [page] a forced choice left no way; the needs no longer bind
        self.notes: list[list[str]] = [self._settle(page) for page in range(len(state.items))]

    # What the page can be asked for, decided before its first slot

    def _settle(self, page: int) -> list[str]:
        full = self.needs.full(page)
        self.needs.short[page] = full
        optional = any(one.row != PAGE and self.state.rules.optional[one.row] for one in self.needs.instances)
        if not optional and self._replan(page):
            return []
        return self._settle_in_order(page, full)

    def _settle_in_order(self, page: int, full: I64) -> list[str]:
        """In order of precedence a hard need takes what it can get; a soft rule holds in full beside those before it, or is dropped."""
        state, frequency = self.state, self.state.rules.frequency
        soft_caps = [place for place, cap in enumerate(state.rules.caps) if cap.soft]
        state.cap_on[page, soft_caps] = False
        state.fresh_on[page] = frequency is None or not frequency.soft
        self.needs.short[page] = 0
        notes = [note for place in self._hard_first() if (note := self._ask(page, place, int(full[place])))]
        dropped = "is dropped: a minimum rule cannot be met with it"
        for place in soft_caps:
            state.cap_on[page, place] = True
            if solve(self.needs.puzzle(page)) is None:
                state.cap_on[page, place] = False
                notes.append(f"{state.rules.caps[place].name} {dropped}")
        if frequency is not None and frequency.soft:
            state.fresh_on[page] = True
            if solve(self.needs.puzzle(page)) is None:
                state.fresh_on[page] = False
                notes.append(f"{frequency.name} {dropped}")
        self._replan(page)
        return notes

    def _hard_first(self) -> list[int]:
        return sorted(range(len(self.needs.instances)), key=lambda place: self.needs.instances[place].soft)

    def _ask(self, page: int, place: int, full: int) -> str:
        """Sets what one instance asks of the page; a note if that is less than the layout says."""
        one, rules = self.needs.instances[place], self.state.rules
        row = one.row if one.row != PAGE and rules.optional[one.row] else NONE
        for amount in (full,) if one.soft else range(full, 0, -1):
            self.needs.short[page, place] = amount
            if solve(self.needs.puzzle(page, row=row)) is not None:
                break
        else:
            amount = self.needs.short[page, place] = 0
        where = "" if one.row == PAGE else f" in row {rules.layout.rows[one.row].id!r}"
        if amount == full:
            return ""
        if one.soft:
            return f"{one.name}{where} is dropped: the candidates cannot meet it"
        return f"{one.name}{where} cannot be met: the candidates allow {one.limit - full + amount}"

    # Which candidates and rows keep a way open

    def keep(self, open_: Bool) -> Bool:
        """Those of the open candidates after which the needs can still be met. Shapes [page, candidate]."""
        if not (self.needs.short > 0).any():
            return open_
        kept = open_ & self.plans.safe()
        doubt = open_ & ~kept
        if not doubt.any():
            return kept
        doubt &= ~self.needs.out_of_reach()
        kept |= self._spared(doubt)
        renew = np.flatnonzero((doubt & ~kept).any(1) & self.plans.eroded)
        for page in renew:
            self._replan(int(page))
        kept |= self._spared(doubt & ~kept)
        doubt &= ~kept
        for page in np.flatnonzero(doubt.any(1)):
            kept[page] |= self._decide(int(page), doubt[page])
        return kept

    def _spared(self, doubt: Bool) -> Bool:
        """Candidates in doubt that turn out safe once it is counted what each would really take from its page's plan."""
        pages, places = np.nonzero(doubt)
        good = np.zeros_like(doubt)
        good[pages, places] = self.plans.enough(pages, places)
        return good

    def _decide(self, page: int, doubt: Bool) -> Bool:
        """[candidate] those in doubt after which a plan exists."""
        places = np.flatnonzero(doubt)
        _, first, group = np.unique(self.needs.kinds(page, places), axis=0, return_index=True, return_inverse=True)
        ways = [solve(self.needs.puzzle(page, spent=True, pick=int(places[place]))) is not None for place in first]
        good = np.zeros_like(doubt)
        good[places] = np.array(ways)[group.reshape(-1)]
        return good

    def keep_rows(self, open_: Bool) -> Bool:
        """Those of the open rows after which the needs can still be met. Shapes [page, layout_row]."""
        kept = open_.copy()
        for page, row in zip(*np.nonzero(open_ & ~self.plans.rows & ~self.lost[:, None]), strict=True):
            kept[page, row] = solve(self.needs.puzzle(int(page), row=int(row))) is not None
        return kept

    # After a choice

    def rows_started(self, pages: I64) -> None:
        """Plans anew where the row that now stands was not planned."""
        for page in pages:
            if not self.lost[page] and not self.plans.rows[page, self.state.row[page]] and not self._replan(int(page)):
                self._lose(int(page))

    def put(self, choice: I64) -> None:
        """Moves `state` past the current slots with these candidates, and the plans with it."""
        state = self.state
        pages = np.flatnonzero((state.row != NONE) & (choice != NONE) & (state.pin_here() == NONE) & ~self.lost)
        pick = choice[pages]
        unsafe = pages[~self.plans.enough(pages, pick)]
        self.plans.give_way(pages, pick)
        self.needs.count(pages, pick)
        state.put(choice)
        for page in unsafe:
            if not self._replan(int(page)):
                self._lose(int(page))

    def _lose(self, page: int) -> None:
        self.lost[page] = True
        self.needs.short[page] = 0
        self.plans.clear(page)
        self.notes[page].append("a choice outside the mask left no way to meet the minimum rules")

    def _replan(self, page: int) -> bool:
        """A new plan for what is still needed; False if there is none."""
        puzzle = self.needs.puzzle(page)
        plan = solve(puzzle)
        if plan is None:
            return False
        self.plans.store(page, puzzle, extend(puzzle, plan, self.extra))
        return True
