"""What a log holds, in figures for people: counts, dates, concentration, repetition, and click rates of page logs.

Comes in: a checked `Log`. Goes out: a JSON-able dict. Knows no file and judges nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from pagellm.data.contexts import basket_starts
from pagellm.data.log import Log
from pagellm.data.splits import temporal_split
from pagellm.types import Event, Impressions, Interactions


def describe(log: Log) -> dict[str, object]:
    """All figures of the log; shares lie in [0, 1], times are UTC."""
    figures: dict[str, object] = {
        "data": log.name,
        "release": log.release,
        "fingerprint": log.fingerprint,
        "items": len(log.catalog),
        "item_columns": [c for c in log.catalog.frame.columns if c != "item_id"],
    }
    figures |= _interactions(log.interactions, len(log.catalog))
    if log.impressions is not None:
        figures["pages"] = _pages(log.impressions)
    return figures


def _interactions(log: Interactions, n_items: int) -> dict[str, object]:
    if len(log) == 0:
        return {"events": 0, "users": log.users}
    starts = basket_starts(log)
    sizes = np.diff(np.append(starts, len(log)))
    per_user = np.bincount(log.user, minlength=log.users)
    count = np.sort(np.bincount(log.item, minlength=n_items))
    follows = np.diff(log.user) == 0
    card = temporal_split(log, n_items).card
    return {
        "events": len(log),
        "users": log.users,
        "baskets": len(starts),
        "events_per_user": _spread(per_user),
        "events_per_basket": _spread(sizes),
        "baskets_of_two_or_more": _share(sizes > 1),
        "events_by_kind": {e.name.lower(): int((log.event == e).sum()) for e in Event if (log.event == e).any()},
        "rating_coverage": _share(~np.isnan(log.rating)),
        "value_sum": round(float(np.nansum(log.value)), 2),
        "first": _date(int(log.time.min())),
        "last": _date(int(log.time.max())),
        "items_taken": int((count > 0).sum()),
        "share_of_events_on_top_1_percent_of_items": round(float(count[-max(1, n_items // 100) :].sum() / len(log)), 4),
        "gini_of_items": round(_gini(count), 4),
        "repeat_share": round(1 - _pairs(log) / len(log), 4),
        "tied_with_event_before": round(float((np.diff(log.time) == 0)[follows].mean()), 4) if follows.any() else 0.0,
        "temporal_split": {k: card[k] for k in ("train", "valid", "test", "candidates_valid", "candidates_test")}
        | {k: _date(int(str(card[k]))) for k in ("valid_cut", "test_cut")},
    }


def _pages(pages: Impressions) -> dict[str, object]:
    known = ~np.isnan(pages.propensity)
    names, count = np.unique(pages.policy, return_counts=True)
    return {
        "count": len(pages),
        "slots": len(pages.item),
        "slots_per_page": _spread(np.diff(pages.offsets)),
        "policies": {str(name): int(n) for name, n in zip(names[:20], count[:20], strict=True)},
        "propensity_coverage": _share(known),
        "smallest_propensity": float(pages.propensity[known].min()) if known.any() else None,
        "viewed_coverage": _share(pages.viewed >= 0),
        "ctr": _share(pages.clicked),
        "ctr_by_row": _rates(pages.row, pages.clicked),
        "ctr_by_column": _rates(pages.col, pages.clicked),
        "carted_slots": int(pages.carted.sum()),
        "purchased_slots": int(pages.purchased.sum()),
        "value_sum": round(float(pages.value.sum(dtype=np.float64)), 2),
    }


def _rates(place: NDArray[np.int16], clicked: NDArray[np.bool_], most: int = 40) -> dict[str, dict[str, float]]:
    """Per row or column: slots shown and their click rate."""
    shown = np.bincount(place, minlength=1)
    clicks = np.bincount(place, clicked, minlength=1)
    places = np.flatnonzero(shown)[:most]
    return {str(p): {"slots": int(shown[p]), "ctr": round(float(clicks[p] / shown[p]), 5)} for p in places}


def _spread(count: NDArray[np.int64]) -> dict[str, float]:
    if len(count) == 0:
        return {}
    return {"mean": round(float(count.mean()), 2), "median": float(np.median(count)), "max": int(count.max())}


def _share(where: NDArray[np.bool_]) -> float:
    return round(float(where.mean()), 5) if len(where) else 0.0


def _pairs(log: Interactions) -> int:
    """Number of different (user, item) pairs."""
    return len(np.unique((log.user.astype(np.int64) << 32) | log.item))


def _gini(ascending: NDArray[np.int64]) -> float:
    """Gini index of counts in rising order: 0 all equal, 1 all on one."""
    n, total = len(ascending), float(ascending.sum())
    rank = np.arange(1, n + 1)
    return float((2 * (rank * ascending).sum() / (n * total)) - (n + 1) / n)


def _date(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if abs(time) < 1e11 else "never"
