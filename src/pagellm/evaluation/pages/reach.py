"""How far a set of pages reaches into the catalog: coverage, concentration, surprise. Takes item arrays; knows no targets.

Coverage and concentration belong to the set of pages, not to one of them. To let the same bootstrap over users give their intervals, they
are linearized: one value a page whose mean is the figure, and whose spread is what the figure varies by from user to user.
"""

from __future__ import annotations

import numpy as np

from pagellm.types import F64, I32, I64, NO_ITEM, Bool, Interactions

HEAD = 0.8
"""Share of the events that the most taken items hold between them; all other items are the long tail."""


def information(log: Interactions, known: Bool, n_items: int) -> F64:
    """[item] self-information -log2((n + 1) / (N + items)): n of N known events are on the item; + 1 keeps unseen items finite.

    Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems".
    """
    counts = np.bincount(log.item[known], minlength=n_items)
    values: F64 = -np.log2((counts + 1) / (counts.sum() + n_items))
    return values


def novelty(pages: I32, bits: F64) -> F64:
    """[page] mean self-information in bits of the items on the page, 0 for an empty page."""
    filled = pages != NO_ITEM
    values: F64 = np.where(filled, bits[pages], 0.0).sum(1) / np.maximum(filled.sum(1), 1)
    return values


def long_tail(counts: I64) -> Bool:
    """[item] whether it is outside the smallest set of items that holds 80 % of the events (`counts` [item], how many are on each)."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    tail = np.zeros(len(counts), bool)
    tail[order] = before >= HEAD * counts.sum()
    return tail


def share_of(pages: I32, kind: Bool) -> F64:
    """[page] share of the filled slots whose item is of a kind ([item], or [page, slot]), 0 for an empty page.

    Of the long tail it is Abdollahpouri et al. 2019, "Managing popularity bias in recommender systems with personalized re-ranking".
    """
    filled = pages != NO_ITEM
    mine = (kind[pages] if kind.ndim == 1 else kind) & filled
    return np.asarray(mine.sum(1) / np.maximum(filled.sum(1), 1), np.float64)


def catalog_coverage(pages: I32, n_candidates: int) -> F64:
    """Share of the candidates that stand on at least one page, as one value a page whose mean is that share.

    A page's value differs from the mean by what coverage would lose without it (the jackknife's influence value, Efron 1982). The
    interval errs to the wide side (Efron & Stein 1981).
    """
    page, place = np.nonzero(pages != NO_ITEM)
    shown = np.unique(np.stack([page, pages[page, place]]), axis=1)  # a page that repeats an item shows it once
    pages_of = np.bincount(shown[1], minlength=1)
    alone = np.bincount(shown[0][pages_of[shown[1]] == 1], minlength=len(pages))
    values: F64 = ((pages_of > 0).sum() + (len(pages) - 1) * (alone - alone.mean())) / max(n_candidates, 1)
    return values


def gini(pages: I32, weights: F64, candidates: Bool) -> F64:
    """Gini coefficient of the candidates' exposure, as one value a page whose mean is the coefficient: 0 equal, near 1 on few items.

    `weights` [page, slot] says how much each slot is looked at, `candidates` [item] which items might have been shown. With exposures
    x_1 <= ... <= x_n, G = sum_i (2 i - n - 1) x_i / (n sum x) (Gini 1912; Fleder & Hosanagar 2009 for recommenders). A page's value is
    G + pages * sum over its slots of weight * dG / dx, the infinitesimal jackknife's influence value (Efron 1982); equal exposures share
    their ranks. Fewer pages than items always leave some unseen, so compare sets of equally many pages.
    """
    page, slot = np.nonzero((pages != NO_ITEM) & candidates[np.maximum(pages, 0)])
    item, weight = pages[page, slot], weights[page, slot]
    exposure = np.bincount(item, weight, len(candidates))
    total, n = exposure.sum(), int(candidates.sum())
    if total <= 0:
        return np.zeros(len(pages))
    _, level, count = np.unique(np.round(exposure[candidates], 9), return_inverse=True, return_counts=True)
    rank = np.zeros(len(candidates))
    rank[candidates] = (np.cumsum(count) - (count - 1) / 2)[level]
    slope = (2 * rank - n - 1) / n
    value = float((slope * exposure).sum() / total)
    values: F64 = value + len(pages) * np.bincount(page, weight * (slope[item] - value), len(pages)) / total
    return values
