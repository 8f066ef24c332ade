"""Can the outstanding needs still be met, and by which items best? A small exact problem: items into free slots, some left empty.

Takes one `Puzzle` (free slots by kind, useful items, limits, needs), returns a `Plan` that meets every need, or None if none exists.
First by a greedy attempt, which succeeds nearly always; then by integer programming, which is exact. Knows no pages, no rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from pagellm.types import F64, I32, I64, Bool

PAGE = -1
"""Stands for a window that is the page and no single row."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many items of one value in a window."""

    codes: I32  # [item] value, -1 where the limit does not count the item
    left: I64  # [item] items of its value that the window still takes
    row: int  # the window: a layout row, or PAGE


@dataclass(frozen=True, slots=True)
class Want:
    """At least so many of these items in a window. One on a row counts only where the row stands."""

    members: Bool  # [item]
    amount: int
    row: int  # the window: a layout row, or PAGE


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Free slots of one page in kinds (row, ad or not), items that could help, limits and wants."""

    item: I64  # [item] the caller's number of the item
    room: I64  # [kind] free slots
    row: I64  # [kind] layout row
    ad: Bool  # [kind] takes sponsored items only
    fits: Bool  # [item, kind]
    must: Bool  # [layout_row] stands on the page
    may: Bool  # [layout_row] may be chosen
    picks: int  # rows to choose among `may`
    limits: tuple[Limit, ...]
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Items that meet every want, and where they stand."""

    rows: Bool  # [layout_row] rows of the finished page that lie ahead or are current
    item: I64  # [use] place in the puzzle's items
    kind: I64  # [use] place in the puzzle's slot kinds


def solve(puzzle: Puzzle) -> Plan | None:
    """A plan, placed late; None if no plan exists."""
    rows = puzzle.must.copy()
    rows[np.flatnonzero(puzzle.may)[: puzzle.picks]] = True
    plan = _grow(puzzle, Plan(rows, np.empty(0, np.int64), np.empty(0, np.int64)), 0)
    return plan if _meets(puzzle, plan) else _exact(puzzle)


def extend(puzzle: Puzzle, plan: Plan, extra: int) -> Plan:
    """The plan with up to this many items more for each want, as far as slots and limits allow."""
    return _grow(puzzle, plan, extra)


def best(puzzle: Puzzle, worth: F64) -> Plan | None:
    """The plan of largest worth [item, kind] among those that meet every want, by integer programming; None if no plan exists."""
    return _exact(puzzle, worth)


def _meets(puzzle: Puzzle, plan: Plan) -> bool:
    rows = puzzle.row[plan.kind]
    got = [(want.members[plan.item] & ((want.row == PAGE) | (rows == want.row))).sum() for want in puzzle.wants]
    stands = [want.row == PAGE or plan.rows[want.row] for want in puzzle.wants]
    return all(n >= want.amount for n, want, there in zip(got, puzzle.wants, stands, strict=True) if there)


def _grow(puzzle: Puzzle, plan: Plan, extra: int) -> Plan:
    """Adds the item that serves the most wants, latest slots first, until every want has `extra` to spare or nothing fits."""
    uses = list(zip(plan.item.tolist(), plan.kind.tolist(), strict=True))
    wants = [want for want in puzzle.wants if want.row == PAGE or plan.rows[want.row]]
    helps = [want.members[:, None] & ((want.row == PAGE) | (puzzle.row == want.row)) for want in wants]  # [item, kind]
    short = np.array([want.amount + extra for want in wants], np.int64)
    room = np.where(plan.rows[puzzle.row], puzzle.room, 0)
    fits = puzzle.fits.copy()
    lefts = [limit.left.copy() for limit in puzzle.limits]
    windows = [(limit.row == PAGE) | (puzzle.row == limit.row) for limit in puzzle.limits]  # [kind]
    for limit, left, window in zip(puzzle.limits, lefts, windows, strict=True):
        fits &= ~(((left <= 0) & (limit.codes >= 0))[:, None] & window)

    def take(item: int, kind: int) -> None:
        nonlocal short
        fits[item] = False
        room[kind] -= 1
        short = short - np.array([help_[item, kind] for help_ in helps], np.int64)
        for limit, left, window in zip(puzzle.limits, lefts, windows, strict=True):
            if limit.codes[item] >= 0 and window[kind]:
                same = limit.codes == limit.codes[item]
                left[same] -= 1
                if left[item] <= 0:
                    fits[np.ix_(same, window)] = False

    for item, kind in uses:
        take(item, kind)
    while (short > 0).any():
        gain = np.zeros(fits.shape, np.int64)  # [item, kind]
        for help_, amount in zip(helps, short, strict=True):
            if amount > 0:
                gain += help_
        gain *= fits & (room > 0)
        if not gain.any():
            break
        kind = int(np.flatnonzero(gain.any(0))[-1])  # latest slots first: early ones stay free to choose
        item = int(np.argmax(gain[:, kind]))
        uses.append((item, kind))
        take(item, kind)
    pairs = np.array(uses, np.int64).reshape(-1, 2)
    return Plan(plan.rows, pairs[:, 0], pairs[:, 1])


def _exact(puzzle: Puzzle, worth: F64 | None = None) -> Plan | None:
    """Variables: one a fitting (item, kind) and one a row, all 0 or 1; of the plans that meet the wants the one of fewest items, or of
    largest worth."""
    item, kind = np.nonzero(puzzle.fits & (puzzle.room > 0))
    first_row = len(item)
    size = first_row + len(puzzle.must)
    use, row_of = np.arange(first_row), puzzle.row[kind]
    table = _Table(size)
    table.add(use, np.unique(item, return_inverse=True)[1].reshape(-1), upper=1)
    for place, room in enumerate(puzzle.room):
        table.one(np.flatnonzero(kind == place), upper=0, row=first_row + int(puzzle.row[place]), factor=-int(room))
    for limit in puzzle.limits:
        code = limit.codes[item]
        hit = np.flatnonzero(((limit.row == PAGE) | (row_of == limit.row)) & (code >= 0))
        _, first, group = np.unique(code[hit], return_index=True, return_inverse=True)
        table.add(hit, group.reshape(-1), upper=np.maximum(limit.left[item[hit[first]]], 0))
    for want in puzzle.wants:
        hits = np.flatnonzero(want.members[item] & ((want.row == PAGE) | (row_of == want.row)))
        if want.row == PAGE:
            table.one(hits, lower=want.amount)
        else:
            table.one(hits, lower=0, row=first_row + want.row, factor=-want.amount)
    table.one(first_row + np.flatnonzero(puzzle.may), lower=puzzle.picks, upper=puzzle.picks)
    lower, upper = np.zeros(size), np.ones(size)
    lower[first_row:] = puzzle.must
    upper[first_row:] = puzzle.must | puzzle.may
    price = np.ones(first_row) if worth is None else -worth[item, kind]
    found = milp(
        np.r_[price, np.zeros(len(puzzle.must))],
        constraints=table.constraint(),
        bounds=Bounds(lower, upper),
        integrality=np.ones(size),
    )
    if found.status == 2:  # proven infeasible
        return None
    if found.x is None:
        raise RuntimeError(f"The puzzle of a page's rules did not finish: {found.message}")
    taken = np.flatnonzero(found.x[:first_row] > 0.5)
    return Plan(found.x[first_row:] > 0.5, item[taken], kind[taken])


class _Table:
    """Rows of a sparse constraint matrix with their bounds."""

    def __init__(self, size: int) -> None:
        self.size, self.height = size, 0
        self.parts: list[tuple[I64, I64, I64]] = []  # value, row, column
        self.lower: list[F64] = []
        self.upper: list[F64] = []

    def add(self, cols: I64, group: I64, upper: int | I64) -> None:
        """One constraint a group: at most `upper` of these variables."""
        count = int(group.max()) + 1 if len(group) else 0
        self.parts.append((np.ones(len(cols), np.int64), self.height + group, cols))
        self.lower.append(np.full(count, -np.inf))
        self.upper.append(np.broadcast_to(np.asarray(upper, np.float64), (count,)))
        self.height += count

    def one(self, cols: I64, lower: float = -np.inf, upper: float = np.inf, row: int | None = None, factor: int = 0) -> None:
        """The sum of these variables, plus factor · the row's variable, lies between the bounds."""
        every = cols if row is None else np.r_[cols, row]
        values = np.ones(len(every), np.int64)
        if row is not None:
            values[-1] = factor
        self.parts.append((values, np.full(len(every), self.height), every))
        self.lower.append(np.array([lower]))
        self.upper.append(np.array([upper]))
        self.height += 1

    def constraint(self) -> LinearConstraint:
        """All rows."""
        value, row, col = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        matrix = coo_array((value, (row, col)), (self.height, self.size)).tocsr()
        return LinearConstraint(matrix, np.concatenate(self.lower), np.concatenate(self.upper))
