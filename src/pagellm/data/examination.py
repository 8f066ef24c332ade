"""Which places of a page are looked at: a position-based model of logged pages, by row and column.

Takes impressions, gives the chance that a slot at a place is seen. A click needs both, P(click) = P(seen | place) · P(wanted | item,
user) (Richardson et al. 2007), so feedback from places that are rarely seen stands for more than itself. Knows no pairs and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.errors import DataError
from pagellm.types import F64, I64, Bool, Impressions

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


def estimate_examination(shown: Impressions) -> Examination:
    """The strongest evidence that the log allows: known views, else randomization by known propensities, else clicks alone.

    Clicks alone assume that an item is wanted as much wherever it stands. A policy that puts what a user wants into the best places breaks
    this, and the best places then look better than they are.

    Raises DataError for a log without slots, or without a click where views are unknown.
    """
    if not len(shown.item):
        raise DataError("The pages of this log have no slots, so nothing says where people look. Log the slots of every page.")
    place, shape = _places(shown)
    known = shown.viewed >= 0
    if known.mean() >= LEAST_VIEWED and (shown.viewed == 0).any():  # a log of positive views alone does not say what was not seen
        seen, ess = _rates(place[known], (shown.viewed[known] == 1).astype(np.float64), np.ones(int(known.sum())), shape)
        return Examination(
            seen, "viewed", _count(place[known], shape), ess, f"{known.mean():.0%} of the slots say if they were seen"
        )
    if not shown.clicked.any():
        raise DataError(
            f"None of {len(shown.item):,} slots was clicked and `viewed` is unknown, so nothing says where people look. Add "
            "select_item events, or the column viewed."
        )
    random = (shown.propensity > 0) & (shown.propensity < 1)
    if shown.clicked[random].any():
        found = _by_propensity(shown, place, shape, random)
        if found is not None:
            return found
    return _by_clicks(shown, place, shape)


def _by_propensity(shown: Impressions, place: I64, shape: tuple[int, int], random: Bool) -> Examination | None:
    """Click rates as if items had been drawn uniformly, place by place; None where a place has too few slots that count.

    A slot's weight undoes the choice of its own item, not those before it: exact where a page holds a small part of what is wanted.
    """
    weight = 1.0 / shown.propensity[random].astype(np.float64)
    where = place[random]
    mean = np.bincount(where, weight, minlength=shape[0] * shape[1]) / np.maximum(_count(where, shape).ravel(), 1)
    weight = np.minimum(weight, _LARGEST_WEIGHT * mean[where])
    rate, ess = _rates(where, shown.clicked[random].astype(np.float64), weight, shape)
    slots = _count(where, shape)
    if ess[slots >= LEAST_ESS].min(initial=np.inf) < LEAST_ESS or not (slots >= LEAST_ESS).any():
        return None
    why = f"click rates of {int(random.sum()):,} slots with propensities below 1, as if items had been drawn uniformly"
    return Examination(_relative(rate), "propensity", slots, ess, why)


def _by_clicks(shown: Impressions, place: I64, shape: tuple[int, int]) -> Examination:
    """Expectation-maximization of the position-based model with one chance an item (Chuklin et al. 2015, section 4.3)."""
    items = int(shown.item.max()) + 1
    real = shown.item >= 0
    cell, slots = np.unique(place[real] * items + shown.item[real], return_counts=True)
    clicks = np.bincount(np.searchsorted(cell, place[real] * items + shown.item[real]), shown.clicked[real])
    at, item = cell // items, cell % items
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
    counted = _count(place[real], shape)
    why = "clicks alone, as if an item were wanted as much wherever it stands"
    return Examination(_relative(grid), "clicks", counted, counted.astype(np.float64), why)


def _places(shown: Impressions) -> tuple[I64, tuple[int, int]]:
    """[slot] row-major place, and the grid's shape."""
    shape = int(shown.row.max()) + 1, int(shown.col.max()) + 1
    return shown.row.astype(np.int64) * shape[1] + shown.col, shape


def _count(place: I64, shape: tuple[int, int]) -> I64:
    return np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)


def _rates(place: I64, outcome: F64, weight: F64, shape: tuple[int, int]) -> tuple[F64, F64]:
    """Weighted mean outcome and effective sample size a place; a place with few slots leans on its row's and column's mean."""
    size = shape[0] * shape[1]
    total, squares, hits = (np.bincount(place, x, minlength=size) for x in (weight, weight**2, weight * outcome))
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
