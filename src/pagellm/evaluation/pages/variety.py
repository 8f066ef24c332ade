"""How varied a page is and what it repeats, whoever reads it. Takes item arrays [page, slot] and facts on items; knows no targets.

Empty slots, NO_ITEM, count for nothing, and an item that the fact is not known of counts in no group.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from pagellm.types import F32, F64, I32, NO_ITEM, Bool

SAME_TITLE = 0.6
"""Two titles with a cosine above this are near-duplicates."""


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


def repeats(pages: I32) -> F64:
    """[page] number of slots whose item stands in an earlier slot already: exact redundancy. A page of ours has none."""
    return np.asarray(_not_first(pages).sum(1), np.float64)


def group_repeats(pages: I32, groups: I32) -> F64:
    """[page] number of slots whose item has a variant of its group (`groups` [item], -1 for none) in an earlier slot."""
    return np.asarray(_not_first(_codes(pages, groups)).sum(1), np.float64)


def category_coverage(pages: I32, theme: I32) -> F64:
    """[page] distinct themes on the page over min(places, themes of the catalog): 1 is as many as there can be."""
    found = np.sort(np.where(pages == NO_ITEM, -1, theme[pages]), axis=1)
    distinct = (found[:, :1] >= 0).sum(1) + ((np.diff(found, axis=1) != 0) & (found[:, 1:] >= 0)).sum(1)
    possible = min(pages.shape[1], len(np.unique(theme[theme >= 0])))
    values: F64 = distinct / max(possible, 1)
    return values


def category_entropy(pages: I32, theme: I32) -> F64:
    """[page] Shannon entropy in bits of the themes on the page: 0 for one theme, log2(n) for n equally frequent ones.

    H = - sum over themes of p log2 p, p the theme's share of the page's items whose theme is known (Shannon 1948).
    """
    codes = _codes(pages, theme)
    known = codes >= 0
    same = ((codes[:, :, None] == codes[:, None, :]) & known[:, None, :]).sum(2)  # [page, slot] items of the slot's theme
    total = np.maximum(known.sum(1, keepdims=True), 1)
    bits = np.where(known, -np.log2(np.maximum(same, 1) / total), 0.0)  # one term an item, so a theme's p comes by counting
    values: F64 = bits.sum(1) / total[:, 0] + 0.0
    return values


def row_overlap(pages: I32, row: np.ndarray, theme: I32) -> F64:
    """[page] mean over pairs of its rows of the Jaccard index of their themes: 0 where rows share none, 1 where all have the same.

    J = |A ∩ B| / |A ∪ B| (Jaccard 1912). `row` [page, slot] is the row of each slot. Rows without a known theme count for nothing; 0 with
    fewer than two that have one.
    """
    codes, values = _codes(pages, theme), np.zeros(len(pages))
    for p in range(len(pages)):
        sets = [set(mine[mine >= 0].tolist()) for mine in (codes[p][row[p] == r] for r in np.unique(row[p]))]
        pairs = list(combinations([s for s in sets if s], 2))
        values[p] = sum(len(a & b) / len(a | b) for a, b in pairs) / max(len(pairs), 1)
    return values


def price_level(pages: I32, price: F64) -> F64:
    """[page] geometric mean of the known prices on the page, in their currency; that of all known prices for a page without any.

    Geometric, because one dear item among ten would carry an arithmetic one.
    """
    logs = np.log(np.where(price > 0, price, np.nan))
    usual = float(np.nanmean(logs)) if (~np.isnan(logs)).any() else 0.0
    on_page = np.where(pages != NO_ITEM, logs[pages], np.nan)
    known = ~np.isnan(on_page)
    sums, count = np.where(known, on_page, 0.0).sum(1), known.sum(1)
    return np.asarray(np.exp(np.where(count > 0, sums / np.maximum(count, 1), usual)), np.float64)


def price_spread(pages: I32, price: F64) -> F64:
    """[page] standard deviation of the natural log of price over the page's items: .7 is a factor of two between usual prices.

    `price` [item] is in one currency, NaN where unknown or not above 0; 0 with fewer than two known prices. In logs, because a page of
    1 and 2 is as wide as one of 100 and 200.
    """
    logs = np.where(pages != NO_ITEM, np.log(np.where(price > 0, price, np.nan))[pages], np.nan)
    known = ~np.isnan(logs)
    count = np.maximum(known.sum(1), 1)
    mean = np.where(known, logs, 0.0).sum(1) / count
    squares = np.where(known, logs - mean[:, None], 0.0) ** 2
    values: F64 = np.sqrt(squares.sum(1) / count)
    return values


def _codes(pages: I32, codes: I32) -> I32:
    """[page, slot] the code of each item, -1 where a slot is empty or the code unknown."""
    return np.where(pages == NO_ITEM, -1, codes[pages]).astype(np.int32)


def _not_first(codes: I32) -> Bool:
    """[page, slot] whether an earlier slot has the same code; never for -1."""
    order = np.argsort(codes, axis=1, kind="stable")
    ranked = np.take_along_axis(codes, order, 1)
    later = np.zeros(codes.shape, bool)
    np.put_along_axis(later, order[:, 1:], (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0), 1)
    return later


def _cosines(pages: I32, vectors: F32) -> F32:
    """[page, place, place] cosines of unit vectors; 0 on the diagonal and where a place is empty."""
    on_page = np.where((pages != NO_ITEM)[:, :, None], vectors[pages], np.float32(0))
    cosines: F32 = on_page @ on_page.transpose(0, 2, 1)
    cosines[:, np.arange(pages.shape[1]), np.arange(pages.shape[1])] = 0
    return cosines
