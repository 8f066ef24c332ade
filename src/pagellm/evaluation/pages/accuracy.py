"""How much of what a user took next stands on a page where people look. Takes pages [page, slot] with rows and columns, and a look.

The look says how much each place is worth: the chance that it is examined, by row and column as fitted on logged pages, or by reading
order. It is the discount of every measure here. Knows no method and no rule but those that bound the ideal page.
"""

from __future__ import annotations

import numpy as np

from pagellm.data.click_rates import ITEM_PRIOR
from pagellm.data.examination import Examination, count_places, exposure_of
from pagellm.data.look import Look
from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.ideal import BestPages
from pagellm.types import F64, NO_ITEM, Contexts, Impressions, PageBatch


def relevance(pages: PageBatch) -> F64:
    """[page, slot] 1 where the item is in the target of the page's context, 0 elsewhere and where it stood on the page before."""
    first = np.arange(pages.items.shape[1])
    hits = np.zeros(pages.items.shape)
    for p, c in enumerate(pages.place.tolist()):
        items = pages.items[p]
        slots = np.sort(np.unique(items, return_index=True)[1])
        hits[p] = np.isin(first, slots) & np.isin(items, pages.contexts.target(c)) & (items != NO_ITEM)
    return hits


def worth(pages: PageBatch, look: Look) -> F64:
    """[page, slot] how much the look gives each filled slot; 0 for empty ones."""
    at = look.at(pages.row.astype(np.int64), pages.col.astype(np.int64), np.arange(pages.items.shape[1]))
    return np.where(pages.items != NO_ITEM, at, 0.0)


def dcg(relevant: F64, worths: F64) -> F64:
    """[page] row-aware discounted cumulative gain: the sum over slots of worth(row, column) · relevance. Both are [page, slot].

    With worth 1 / log2(rank + 1) on one row it is the DCG of Järvelin & Kekäläinen (2002); worth by row and column is the discount of
    carousel pages (Ferrari Dacrema et al. 2022, "Offline evaluation of recommender systems in a user interface with multiple
    carousels"). With worth the chance of examination and relevance the chance of a click once examined it is the expected number of clicks.
    """
    return np.asarray((relevant * worths).sum(1), np.float64)


def ideal_dcg(contexts: Contexts, rules: CompiledLayout, look: Look) -> tuple[F64, bool]:
    """([context] the largest DCG of any page that the layout allows, whether that is exact). See `layout.ideal` for what it leaves out.

    A target that may stand on no page of the layout is no part of it; one that no method could rank is, so it counts as a miss.
    """
    pages = BestPages(rules, look.at)
    ideal = np.array([pages.worth(contexts.target(c)) for c in range(len(contexts))], np.float64)
    return ideal, pages.exact


def ndcg(gained: F64, ideal: F64) -> F64:
    """[page] DCG over the ideal page's; 0 where no target may stand on any page.

    Read it beside DCG: dividing by each user's own ideal weighs users differently, and may turn the order of two methods around (Jeunen
    et al. 2024, "On (normalised) discounted cumulative gain as an off-policy evaluation metric").
    """
    return np.where(ideal > 0, gained / np.where(ideal > 0, ideal, 1.0), 0.0)


def expected_clicks(pages: PageBatch, look: Look, wanted: F64) -> F64:
    """[page] clicks by the position-based model P(click) = P(seen | row, column) · P(wanted | item) (Richardson et al. 2007).

    `wanted` [item] is of `wanted_rates`, fitted with the same look. It knows no user, so it rewards what everybody clicks: a figure for
    how much a page is seen to offer, beside DCG, which says what its user took.
    """
    return dcg(np.where(pages.items != NO_ITEM, wanted[pages.items], 0.0), worth(pages, look))


def wanted_rates(shown: Impressions, examination: Examination, n_items: int) -> F64:
    """[item] chance of a click once seen, on logged pages: (clicks + k · mean) / (views + k) with k = 20, so few views say little.

    Views that a log does not name are the chances of their places. An item that never stood on a page has the mean.
    """
    counts = count_places(shown)
    views = exposure_of(counts, examination, n_items).astype(np.float64)
    clicks = np.bincount(counts.item, counts.clicks, n_items)
    mean = clicks.sum() / max(views.sum(), 1e-9)
    return np.asarray((clicks + ITEM_PRIOR * mean) / (views + ITEM_PRIOR), np.float64)
