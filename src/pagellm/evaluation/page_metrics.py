"""What a page is like whoever reads it: variety, repetition, themes, reach, surprise. Takes item arrays and facts on items.

Knows no targets and no users' tastes. Every measure looks at the first ten places of a ranking; empty places count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.catalog import Catalog
from pagellm.data.likeness import themes
from pagellm.types import F32, F64, I32, NO_ITEM, Bool, Interactions

PLACES = 10
SAME_TITLE = 0.6
"""Two titles with a cosine above this are near-duplicates."""

PAGE_MEASURES = ("ild@10", "near_duplicates@10", "category_coverage@10", "catalog_coverage@10", "novelty@10")

_BATCH = 4096


@dataclass(frozen=True)
class ItemFacts:
    """What the page measures must know of each item, fixed before anything is judged."""

    content: F32  # [item, dim] vectors of unit length from all text of an item, zero where it has none
    titles: F32  # [item, dim] vectors of unit length from the title alone
    theme: I32  # [item] code of the theme, -1 where unknown
    information: F64  # [item] -log2 of the item's share of the events that may be fitted on


def item_facts(catalog: Catalog, content: F32, titles: F32, log: Interactions, known: Bool) -> ItemFacts:
    """Facts on every item of the catalog; popularity counts the `known` [event] events alone."""
    return ItemFacts(content, titles, themes(catalog, content), information(log, known, len(catalog)))


def information(log: Interactions, known: Bool, n_items: int) -> F64:
    """[item] self-information -log2((n + 1) / (N + items)): n of N known events are on the item; + 1 keeps unseen items finite.

    Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems".
    """
    counts = np.bincount(log.item[known], minlength=n_items)
    values: F64 = -np.log2((counts + 1) / (counts.sum() + n_items))
    return values


def page_measures(ranked: I32, facts: ItemFacts, candidates: Bool) -> dict[str, F64]:
    """Every page measure: one array [context] each. `ranked` is [context, rank], one context a user."""
    pages = np.ascontiguousarray(ranked[:, :PLACES])
    starts = range(0, max(len(pages), 1), _BATCH)
    spread, doubles = zip(*(_spread_and_doubles(pages[s : s + _BATCH], facts) for s in starts), strict=True)
    columns = (
        np.concatenate(spread),
        np.concatenate(doubles),
        category_coverage(pages, facts.theme),
        catalog_coverage(pages, int(candidates.sum())),
        novelty(pages, facts.information),
    )
    return dict(zip(PAGE_MEASURES, columns, strict=True))


def intra_list_distance(pages: I32, vectors: F32) -> F64:
    """[page] mean of 1 - cosine over all pairs of items on the page, 0 with fewer than two (Ziegler et al. 2005)."""
    filled = pages != NO_ITEM
    count = filled.sum(1)
    cosines = _cosines(pages, vectors)
    pairs = count * (count - 1)
    return np.where(pairs > 0, 1 - cosines.sum((1, 2), dtype=np.float64) / np.maximum(pairs, 1), 0.0)


def near_duplicates(pages: I32, vectors: F32, above: float = SAME_TITLE) -> F64:
    """[page] number of items that have another item on the page with a title cosine above the bound."""
    values: F64 = (_cosines(pages, vectors) > above).any(2).sum(1).astype(np.float64)
    return values


def category_coverage(pages: I32, theme: I32) -> F64:
    """[page] distinct themes on the page over min(places, themes of the catalog): 1 is as many as there can be."""
    found = np.sort(np.where(pages == NO_ITEM, -1, theme[pages]), axis=1)
    distinct = (found[:, :1] >= 0).sum(1) + ((np.diff(found, axis=1) != 0) & (found[:, 1:] >= 0)).sum(1)
    possible = min(pages.shape[1], len(np.unique(theme[theme >= 0])))
    values: F64 = distinct / max(possible, 1)
    return values


def novelty(pages: I32, bits: F64) -> F64:
    """[page] mean self-information in bits of the items on the page, 0 for an empty page."""
    filled = pages != NO_ITEM
    values: F64 = np.where(filled, bits[pages], 0.0).sum(1) / np.maximum(filled.sum(1), 1)
    return values


def catalog_coverage(pages: I32, n_candidates: int) -> F64:
    """Share of the candidates that stand on at least one page, as one value a page whose mean is that share.

    Coverage belongs to the set of pages, not to one of them. To let the same bootstrap give its interval, it is linearized: a
    page's value differs from the mean by what coverage would lose without it (the jackknife's influence value, Efron 1982).
    The interval errs to the wide side (Efron & Stein 1981).
    """
    page, place = np.nonzero(pages != NO_ITEM)
    shown = np.unique(np.stack([page, pages[page, place]]), axis=1)  # a page that repeats an item shows it once
    pages_of = np.bincount(shown[1], minlength=1)
    alone = np.bincount(shown[0][pages_of[shown[1]] == 1], minlength=len(pages))
    values: F64 = ((pages_of > 0).sum() + (len(pages) - 1) * (alone - alone.mean())) / max(n_candidates, 1)
    return values


def _spread_and_doubles(pages: I32, facts: ItemFacts) -> tuple[F64, F64]:
    return intra_list_distance(pages, facts.content), near_duplicates(pages, facts.titles)


def _cosines(pages: I32, vectors: F32) -> F32:
    """[page, place, place] cosines of unit vectors; 0 on the diagonal and where a place is empty."""
    on_page = np.where((pages != NO_ITEM)[:, :, None], vectors[pages], np.float32(0))
    cosines: F32 = on_page @ on_page.transpose(0, 2, 1)
    cosines[:, np.arange(pages.shape[1]), np.arange(pages.shape[1])] = 0
    return cosines
