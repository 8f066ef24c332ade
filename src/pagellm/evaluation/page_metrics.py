"""What the first ten places of a ranking are like whoever reads them, and the facts on items that such measures need.

Takes item arrays; knows no targets and no users' tastes. The formulas stand in `pages.variety` and `pages.reach`; empty places count for
nothing. Composed pages with rows and rules are judged in `pages.judge`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.data.likeness import themes
from pagellm.evaluation.pages.reach import catalog_coverage, information, long_tail, novelty
from pagellm.evaluation.pages.variety import category_coverage, intra_list_distance, near_duplicates
from pagellm.types import F32, F64, I32, I64, Bool, Interactions

PLACES = 10
PAGE_MEASURES = ("ild@10", "near_duplicates@10", "category_coverage@10", "catalog_coverage@10", "novelty@10")

_BATCH = 4096


@dataclass(frozen=True)
class ItemFacts:
    """What the page measures must know of each item, fixed before anything is judged."""

    content: F32  # [item, dim] vectors of unit length from all text of an item, zero where it has none
    titles: F32  # [item, dim] vectors of unit length from the title alone
    theme: I32  # [item] code of the theme, -1 where unknown
    information: F64  # [item] -log2 of the item's share of the events that may be fitted on
    groups: I32 | None = None  # [item] code of the group of variants, -1 for none; None where the catalog has no groups
    price: F64 | None = None  # [item] NaN where unknown; None where the catalog has none, or several currencies
    brands: I32 | None = None  # [item] code of the brand, -1 where unknown; None where the catalog has none
    tail: Bool | None = None  # [item] whether it is of the long tail
    since: I64 | None = None  # [item] unix seconds of its first event, far in the future without any


def item_facts(catalog: Catalog, content: F32, titles: F32, log: Interactions, known: Bool) -> ItemFacts:
    """Facts on every item of the catalog; popularity counts the `known` [event] events alone."""
    groups, brands = (catalog.codes(name)[0] if catalog.has(name) else None for name in ("group_id", "brand"))
    tail = long_tail(np.bincount(log.item[known], minlength=len(catalog)))
    since = np.full(len(catalog), np.iinfo(np.int64).max)
    np.minimum.at(since, log.item, log.time)
    theme, bits = themes(catalog, content), information(log, known, len(catalog))
    return ItemFacts(content, titles, theme, bits, groups, prices(catalog), brands, tail, since)


def prices(catalog: Catalog) -> F64 | None:
    """[item] prices above 0, NaN elsewhere; None without any, or where the catalog names more than one currency."""
    if not catalog.has("price") or (catalog.has("currency") and catalog.frame["currency"].drop_nulls().n_unique() > 1):
        return None
    price = catalog.frame["price"].cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    return np.where(price > 0, price, np.nan)


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


def _spread_and_doubles(pages: I32, facts: ItemFacts) -> tuple[F64, F64]:
    return intra_list_distance(pages, facts.content), near_duplicates(pages, facts.titles)
