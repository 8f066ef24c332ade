"""How much of what is wanted a page can hold where people look: the best page that a layout allows for given items.

Compiled rules and the worth of each place in, the largest total worth of wanted items out. Rules that give way, frequency caps and what
is excluded for one user are no part of it, and the slots that wanted items leave are taken to be filled by items that no limit counts
against them: where either matters the figure is an upper bound, else it is exact. Knows no users and no scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, permutations

import numpy as np
from scipy.optimize import linear_sum_assignment

from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.feasible import hard_rules, pool_of_kinds
from pagellm.layout.puzzle import PAGE, Limit, Puzzle, Want, best, solve
from pagellm.types import F64, I32, I64, Bool

Worth = Callable[[I64, I64, I64], F64]
"""From rows on the page, columns and places in reading order, all from 0, to what an item there is worth, at least 0."""

MOST_ORDERS = 24
"""Orders of rows that are tried one by one. With more, each row stands as high as it can: an upper bound."""


@dataclass(frozen=True)
class _Board:
    """One order of rows: its slots that are not pinned."""

    row: I64  # [slot] layout row
    ad: Bool  # [slot] takes sponsored items only
    worth: F64  # [slot]
    pinned: dict[int, float]  # item -> worth of its slot
    stands: Bool  # [layout_row]


class BestPages:
    """The best pages of one layout, context after context; equal questions are answered from memory."""

    def __init__(self, rules: CompiledLayout, worth: Worth) -> None:
        hard = hard_rules(rules)
        orders = list(islice(_orders(hard), MOST_ORDERS + 1))
        self.exact = len(orders) <= MOST_ORDERS
        """Whether every order of rows was tried."""
        self.rules = hard if self.exact else replace(hard, needs=())
        boards = [_ordered(self.rules, order, worth) for order in orders] if self.exact else [_highest(self.rules, worth)]
        self._boards = boards
        self._strict = bool(self.rules.ad_slots.any())
        self._helpers = _helpers(self.rules)
        self._known: dict[tuple[object, ...], float] = {}

    def worth(self, wanted: I32) -> float:
        """The largest worth that these items [wanted] can have on one page; 0 where none may stand on it."""
        items = np.unique(wanted).astype(np.int64)
        items = items[self.rules.eligible[items]]
        return max(self._on(number, board, items) for number, board in enumerate(self._boards))

    def _on(self, number: int, board: _Board, items: I64) -> float:
        given = sum(board.pinned.get(int(item), 0.0) for item in items)
        items = items[[int(item) not in board.pinned for item in items]]
        fits = self._fits(board, items)
        items, fits = items[fits.any(1)], fits[fits.any(1)]
        if not len(items):
            return given
        limits = self._limits(board, items)
        at, slot = linear_sum_assignment(np.where(fits, board.worth, 0.0), maximize=True)
        real = fits[at, slot]
        at, slot = at[real], slot[real]
        if _within(limits, board, at, slot) and self._completes(board, items[at], slot):
            return given + float(board.worth[slot].sum())
        key = (number, fits.tobytes(), items.tobytes() if self.rules.needs else _pattern(limits))
        if key not in self._known:
            self._known[key] = self._solved(board, items)
        return given + self._known[key]

    def _fits(self, board: _Board, items: I64) -> Bool:
        """[item, slot] whether row and kind of slot take the item."""
        fits = self.rules.fill[board.row][:, items].T
        if self._strict:
            fits = fits & (self.rules.sponsored[items][:, None] == board.ad)
        return np.asarray(fits, np.bool_)

    def _limits(self, board: _Board, items: I64, placed: tuple[I64, I64] | None = None) -> tuple[Limit, ...]:
        """What caps leave these items, beside the pinned ones and, where given, beside (item, slot) that stand already."""
        found = []
        for cap in self.rules.caps:
            codes = cap.codes[items]
            if not (codes >= 0).any():
                continue
            for row in np.flatnonzero(cap.rows & board.stands).tolist() if cap.per_row else [PAGE]:
                there = [pin.item for pin in self.rules.pins if row in (PAGE, pin.row)]
                if placed is not None:
                    there += placed[0][(row == PAGE) | (board.row[placed[1]] == row)].tolist()
                taken = (cap.codes[np.array(there, np.int64)][:, None] == codes).sum(0)
                found.append(Limit(codes, np.maximum(cap.limit - taken, 0).astype(np.int64), row))
        return tuple(found)

    def _completes(self, board: _Board, items: I64, slot: I64) -> bool:
        """Whether minimum rules can be met in the slots that these items leave."""
        if not self.rules.needs:
            return True
        free = np.ones(len(board.row), np.bool_)
        free[slot] = False
        helpers = np.setdiff1d(self._helpers, items)
        limits = self._limits(board, helpers, (items, slot))
        return solve(self._puzzle(board, helpers, free, limits, self._wants(board, helpers, (items, slot)))) is not None

    def _wants(self, board: _Board, items: I64, placed: tuple[I64, I64] | None = None) -> tuple[Want, ...]:
        found = []
        for need in self.rules.needs:
            for row in np.flatnonzero(need.rows & board.stands).tolist() if need.per_row else [PAGE]:
                have = sum(bool(need.members[pin.item]) for pin in self.rules.pins if row in (PAGE, pin.row))
                if placed is not None:
                    have += int((need.members[placed[0]] & ((row == PAGE) | (board.row[placed[1]] == row))).sum())
                if have < need.limit:
                    found.append(Want(need.members[items], need.limit - have, row))
        return tuple(found)

    def _solved(self, board: _Board, items: I64) -> float:
        """By integer programming, the helpers of minimum rules among the items; 0 where no page keeps the rules."""
        every = np.concatenate((items, np.setdiff1d(self._helpers, items)))
        free = np.ones(len(board.row), np.bool_)
        puzzle = self._puzzle(board, every, free, self._limits(board, every), self._wants(board, every))
        worth = np.zeros(puzzle.fits.shape)
        worth[: len(items)] = board.worth
        plan = best(puzzle, worth)
        return 0.0 if plan is None else float(worth[plan.item, plan.kind].sum())

    def _puzzle(self, board: _Board, items: I64, free: Bool, limits: tuple[Limit, ...], wants: tuple[Want, ...]) -> Puzzle:
        """Each slot is a kind of its own."""
        fits = self._fits(board, items) & free
        none = np.zeros(len(board.stands), np.bool_)
        return Puzzle(items, free.astype(np.int64), board.row, board.ad, fits, board.stands, none, 0, limits, wants)


def _orders(rules: CompiledLayout) -> Iterator[tuple[int, ...]]:
    """Layout rows in the orders in which they may stand."""
    every = range(len(rules.capacity))
    if rules.layout.order == "fixed":
        yield tuple(every)
        return
    required = set(np.flatnonzero(~rules.optional).tolist())
    for order in permutations(every, rules.layout.shown):
        if required <= set(order):
            yield order


def _ordered(rules: CompiledLayout, order: tuple[int, ...], worth: Worth) -> _Board:
    row = np.repeat(np.array(order, np.int64), rules.capacity[list(order)])
    number = np.repeat(np.arange(len(order)), rules.capacity[list(order)])
    col = np.concatenate([np.arange(rules.capacity[r]) for r in order])
    return _board(rules, row, col, worth(number, col, np.arange(len(row))))


def _highest(rules: CompiledLayout, worth: Worth) -> _Board:
    """Every row at the best place that it could have, as if rows did not stand in each other's way."""
    row = np.repeat(np.arange(len(rules.capacity)), rules.capacity)
    col = np.concatenate([np.arange(size) for size in rules.capacity])
    values = np.zeros(len(row))
    for r, size in enumerate(rules.capacity):
        before = np.concatenate(([0], np.cumsum(np.sort(np.delete(rules.capacity, r)))))
        mine = row == r
        for number in range(rules.layout.shown):
            cols = np.arange(size)
            values[mine] = np.maximum(values[mine], worth(np.full(size, number), cols, before[number] + cols))
    return _board(rules, row, col, values)


def _board(rules: CompiledLayout, row: I64, col: I64, worth: F64) -> _Board:
    pins = {(pin.row, pin.col): pin.item for pin in rules.pins}
    places = list(zip(row.tolist(), col.tolist(), strict=True))
    free = np.array([place not in pins for place in places], np.bool_)
    pinned = {pins[place]: float(w) for place, w in zip(places, worth, strict=True) if place in pins}
    stands = np.zeros(len(rules.capacity), np.bool_)
    stands[row] = True
    return _Board(row[free], rules.ad_slots[row[free], col[free]], worth[free], pinned, stands)


def _helpers(rules: CompiledLayout) -> I64:
    """Items that minimum rules may ask for, interchangeable ones no oftener than a page has slots."""
    if not rules.needs:
        return np.empty(0, np.int64)
    items = np.setdiff1d(pool_of_kinds(rules), rules.required_items.astype(np.int64))
    return items[np.logical_or.reduce([need.members[items] for need in rules.needs])]


def _within(limits: tuple[Limit, ...], board: _Board, at: I64, slot: I64) -> bool:
    """Whether (item, slot) keep every limit."""
    for limit in limits:
        here = at[(limit.codes[at] >= 0) & ((limit.row == PAGE) | (board.row[slot] == limit.row))]
        same = (limit.codes[here][:, None] == limit.codes[here]).sum(1)
        if (same > limit.left[here]).any():
            return False
    return True


def _pattern(limits: tuple[Limit, ...]) -> tuple[object, ...]:
    """What limits ask of the items, whatever their values are called."""
    named = [np.unique(limit.codes, return_inverse=True)[1] + (limit.codes.min() >= 0) for limit in limits]
    return tuple((limit.row, names.tobytes(), limit.left.tobytes()) for limit, names in zip(limits, named, strict=True))
