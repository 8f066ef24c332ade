"""What all pages of a comparison are judged by: one set of rules, facts on items, and a look. Takes a log's pages; knows no method."""

from __future__ import annotations

from dataclasses import dataclass

from pagellm.catalog import Catalog
from pagellm.data.examination import estimate_examination
from pagellm.data.look import Look
from pagellm.errors import DataError
from pagellm.evaluation.page_metrics import ItemFacts
from pagellm.evaluation.pages.accuracy import wanted_rates
from pagellm.layout.compiled import CompiledLayout
from pagellm.types import F64, Bool, Impressions

READING_ORDER = "reading order, 1 / log2(place + 1): no log of pages says where people look"


@dataclass(frozen=True)
class PageStand:
    """What all pages are judged by."""

    rules: CompiledLayout  # of the layout alone
    candidates: Bool  # [item] what methods may choose from
    catalog: Catalog
    facts: ItemFacts
    look: Look
    looked: str  # where the look comes from, in words
    wanted: F64 | None = None  # [item] click rates once seen, where the log has pages
    impressions: Impressions | None = None  # what users were shown, for frequency caps


def page_stand(
    rules: CompiledLayout,
    candidates: Bool,
    catalog: Catalog,
    facts: ItemFacts,
    shown: Impressions | None = None,
    before: int | None = None,
) -> PageStand:
    """The stand whose look, and whose click rates, were learned from the pages that were settled `before` a time (unix seconds).

    Without such pages, or where nothing on them says what was looked at, the look is that of reading order and there are no click rates.
    """
    if shown is None or before is None:
        return PageStand(rules, candidates, catalog, facts, Look(), READING_ORDER, impressions=shown)
    past = shown.where(shown.settled < before)
    try:
        examination = estimate_examination(past)
    except DataError as nothing:
        return PageStand(rules, candidates, catalog, facts, Look(), f"reading order: {nothing}", impressions=shown)
    words = f"fitted by row and column on {len(past):,} pages before the test part: {examination.why}"
    wanted = wanted_rates(past, examination, len(catalog))
    return PageStand(rules, candidates, catalog, facts, Look.learned(examination), words, wanted, shown)
