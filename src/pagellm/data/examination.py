"""Which places of a page are looked at: a position-based model of logged pages, by row and column.

Takes impressions, gives the chance that a slot at a place is seen. A click needs both, P(click) = P(seen | place) · P(wanted | item,
user) (Richardson et al. 2007), so feedback from places that are rarely seen stands for more than itself. Knows no pairs and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from pagellm.errors import DataError
from pagellm.types import F32, F64, I64, Bool, Impressions

LEAST_VIEWED = 0.5
"""Share of slots whose `viewed` must be known for view rates to be counted instead of estimated."""

LEAST_ESS = 200.0
"""Effective sample size that every place with enough slots must reach for propensities to be used."""

_LARGEST_WEIGHT = 50.0  # times the mean weight of the place; larger ones are clipped
_FEW = 50  # slots at a place below which its rate is drawn to the grid's row and column
_STEPS = 200  # of expectation-maximization
_SMALLEST = 1e-3  # chance of being seen that no place falls below


@dataclass(frozen=True)
class Examination:
    """Chances that places are seen, and how they were found."""

    seen: F64  # [row, col] relative to the best place unless `source` is "viewed"; NaN where the log has no slot
    source: str  # "viewed": counted; "propensity": click rates of randomized pages; "clicks": expectation-maximization over items
    slots: I64  # [row, col] slots that the figure rests on
    ess: F64  # [row, col] effective sample size: (sum of weights)^2 / sum of squares
    why: str  # in words, for reports

    def of(self, row: np.ndarray, col: np.ndarray) -> F64:
        """The chance at these places; a place that the log lacks has that of the last place it has in the row, or of the last row."""
        filled = fill_gaps(self.seen)
        r, c = np.minimum(row, filled.shape[0] - 1), np.minimum(col, filled.shape[1] - 1)
        return np.asarray(filled[r, c])


@dataclass(frozen=True)
class PlaceCounts:
    """How often each item stood at each place, and what became of it. Its size follows places and items, not the log."""

    row: I64  # [cell] a cell is an item at a place
    col: I64  # [cell]
    item: I64  # [cell]
    slots: I64  # [cell]
    clicks: I64  # [cell]
    known: I64  # [cell] slots that say whether they were seen
    viewed: I64  # [cell] slots that were seen, as far as they say

    def plus(self, other: PlaceCounts) -> PlaceCounts:
        """The counts of both logs together."""
        joined = (np.concatenate((getattr(self, f.name), getattr(other, f.name))) for f in fields(self))
        return _gathered(*joined)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid that holds all places."""
        return int(self.row.max()) + 1, int(self.col.max()) + 1

    @property
    def place(self) -> I64:
        """[cell] row-major place on the grid."""
        return self.row * self.shape[1] + self.col


Parts = Callable[[], Iterator[Impressions]]
"""Gives the pages of a log, part by part; may be asked more than once."""


def count_places(shown: Impressions) -> PlaceCounts:
    """The counts of these pages."""
    known, one = shown.viewed >= 0, np.ones(len(shown.item), np.int64)
    cells = (shown.row.astype(np.int64), shown.col.astype(np.int64), shown.item.astype(np.int64))
    return _gathered(*cells, one, *(x.astype(np.int64) for x in (shown.clicked, known, shown.viewed == 1)))


def _gathered(row: I64, col: I64, item: I64, *counts: I64) -> PlaceCounts:
    """One cell for equal ones, in order of row, column and item."""
    key = row << 48 | col << 32 | item
    order = np.argsort(key, kind="stable")
    ranked = key[order]
    first = np.flatnonzero(np.concatenate((np.ones(min(1, len(key)), bool), ranked[1:] != ranked[:-1])))
    sums = (np.add.reduceat(count[order], first) if len(first) else count for count in counts)
    return PlaceCounts(*(column[order][first] for column in (row, col, item)), *sums)


def estimate_examination(shown: Impressions) -> Examination:
    """As `examination_of`, from pages that are all at hand."""
    return examination_of(count_places(shown), lambda: iter((shown,)))


def examination_of(counts: PlaceCounts, parts: Parts) -> Examination:
    """The strongest evidence that the log allows: known views, else randomization by known propensities, else clicks alone.

    Clicks alone assume that an item is wanted as much wherever it stands. A policy that puts what a user wants into the best places breaks
    this, and the best places then look better than they are. `counts` are those of the parts, which are read only for propensities.

    Raises DataError for a log without slots, or without a click where views are unknown.
    """
    total, known = int(counts.slots.sum()), int(counts.known.sum())
    if not total:
        raise DataError(
            "The pages of this log have no slots before the window ends (0 rows; columns slots and timestamp of the impressions file), so "
            "nothing says where people look. Log the slots of every page, or let the window end later."
        )
    if known >= LEAST_VIEWED * total and counts.viewed.sum() < known:  # positive views alone do not say what was not seen
        slots, views = _sums(counts, counts.known), _sums(counts, counts.viewed).astype(np.float64)
        seen, ess = _rates(slots.astype(np.float64), slots.astype(np.float64), views, counts.shape)
        why = f"{known / total:.0%} of the slots say if they were seen"
        return Examination(seen, "viewed", slots.reshape(counts.shape), ess, why)
    if not counts.clicks.any():
        raise DataError(
            f"None of {total:,} slots was clicked and `viewed` is unknown, so nothing says where people look. Write "
            "select_item in the column event of the events file, or fill the column viewed of the impressions file."
        )
    return _by_propensity(parts, counts.shape) or _by_clicks(counts)


def exposure_of(counts: PlaceCounts, examination: Examination, n_items: int) -> F32:
    """[item] how often each was seen: views where they are known, else chances of its places."""
    seen = counts.viewed + (counts.slots - counts.known) * examination.of(counts.row, counts.col)
    return np.bincount(counts.item, seen, n_items).astype(np.float32)


def _sums(counts: PlaceCounts, of: I64) -> I64:
    """[place] a count summed over items."""
    return np.bincount(counts.place, of, minlength=counts.shape[0] * counts.shape[1]).astype(np.int64)


def _by_propensity(parts: Parts, shape: tuple[int, int]) -> Examination | None:
    """Click rates as if items had been drawn uniformly, place by place; None without a randomized click, or where a place has too few
    slots that count.

    A slot's weight undoes the choice of its own item, not those before it: exact where a page holds a small part of what is wanted.
    """
    size, clicked = shape[0] * shape[1], False
    slots, weights = np.zeros(size, np.int64), np.zeros(size)
    for shown in parts():
        where, weight, click = _randomized(shown, shape)
        slots += np.bincount(where, minlength=size)
        weights += np.bincount(where, weight, minlength=size)
        clicked |= bool(click.any())
    if not clicked:
        return None
    most = _LARGEST_WEIGHT * weights / np.maximum(slots, 1)
    total, squares, hits = np.zeros((3, size))
    for shown in parts():
        where, weight, click = _randomized(shown, shape)
        weight = np.minimum(weight, most[where])
        for into, what in ((total, weight), (squares, weight**2), (hits, weight * click)):
            into += np.bincount(where, what, minlength=size)
    rate, ess = _rates(total, squares, hits, shape)
    slots = slots.reshape(shape)
    if ess[slots >= LEAST_ESS].min(initial=np.inf) < LEAST_ESS or not (slots >= LEAST_ESS).any():
        return None
    why = f"click rates of {int(slots.sum()):,} slots with propensities below 1, as if items had been drawn uniformly"
    return Examination(_relative(rate), "propensity", slots, ess, why)


def _randomized(shown: Impressions, shape: tuple[int, int]) -> tuple[I64, F64, Bool]:
    """(place, inverse propensity, whether clicked) of the slots whose item was drawn. Shape [slot] each."""
    random = (shown.propensity > 0) & (shown.propensity < 1)
    place = shown.row.astype(np.int64) * shape[1] + shown.col
    return place[random], 1.0 / shown.propensity[random].astype(np.float64), shown.clicked[random]


def _by_clicks(counts: PlaceCounts) -> Examination:
    """Expectation-maximization of the position-based model with one chance an item (Chuklin et al. 2015, section 4.3)."""
    at, item, slots, clicks = counts.place, counts.item, counts.slots, counts.clicks
    items, shape = int(item.max()) + 1, counts.shape
    unclicked = slots - clicks
    n_places, per_item = shape[0] * shape[1], np.bincount(item, slots, minlength=items)
    per_place = np.bincount(at, slots, minlength=n_places)
    seen, wanted = np.full(n_places, 0.5), np.full(items, max(0.01, float(clicks.sum() / slots.sum()) * 2))
    for _ in range(_STEPS):
        miss = np.maximum(1 - seen[at] * wanted[item], 1e-12)
        looked = clicks + unclicked * seen[at] * (1 - wanted[item]) / miss
        liked = clicks + unclicked * wanted[item] * (1 - seen[at]) / miss
        seen = np.bincount(at, looked, minlength=n_places) / np.maximum(per_place, 1)
        wanted = np.bincount(item, liked, minlength=items) / np.maximum(per_item, 1)
    grid = np.where(per_place > 0, seen, np.nan).reshape(shape)
    counted = per_place.astype(np.int64).reshape(shape)
    why = "clicks alone, as if an item were wanted as much wherever it stands"
    return Examination(_relative(grid), "clicks", counted, counted.astype(np.float64), why)


def _rates(total: F64, squares: F64, hits: F64, shape: tuple[int, int]) -> tuple[F64, F64]:
    """Weighted mean outcome and effective sample size a place, from sums of weights, of their squares and of weight · outcome [place]; a
    place with few slots leans on its row's and column's mean."""
    ess = total**2 / np.where(squares > 0, squares, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = (hits / total).reshape(shape)
        row, col = (hits.reshape(shape).sum(a) / total.reshape(shape).sum(a) for a in (1, 0))
        expected = row[:, None] * col[None, :] / (hits.sum() / total.sum())
    share = np.minimum(ess / _FEW, 1.0).reshape(shape)
    mixed = np.where(np.isfinite(expected), share * np.nan_to_num(rate) + (1 - share) * np.nan_to_num(expected), rate)
    return np.where(total.reshape(shape) > 0, np.clip(mixed, _SMALLEST, 1.0), np.nan), ess.reshape(shape)


def _relative(rate: F64) -> F64:
    return np.clip(rate / np.nanmax(rate), _SMALLEST, 1.0)


def fill_gaps(seen: F64) -> F64:
    """The grid without gaps: each takes what stands to its left, then above."""
    out = seen.copy()
    for axis in (1, 0):
        for at in range(1, out.shape[axis]):
            now, before = np.take(out, at, axis), np.take(out, at - 1, axis)
            gap = np.where(np.isnan(now), before, now)
            if axis:
                out[:, at] = gap
            else:
                out[at] = gap
    return np.nan_to_num(out, nan=1.0)
