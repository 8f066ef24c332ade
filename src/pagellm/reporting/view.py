"""A page as people see it: words, prices, badges and reasons. Takes a `Page` with its catalog and context, returns a `PageView`.

All text that comes out is cleaned and safe to measure and print; markup is the business of whoever renders it.
Knows no HTML, no terminal, no layout file: row titles and kinds come as plain mappings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pagellm.catalog import Catalog
from pagellm.reporting.receipt import ReceiptView
from pagellm.reporting.words import age_text, plain, price_text
from pagellm.types import NO_ITEM, Context, Event, Origin, Page, Slot

BADGES = {
    Origin.ORGANIC: "",
    Origin.PINNED: "Pinned",
    Origin.SPONSORED: "Sponsored",
    Origin.BOOSTED: "Boosted",
    Origin.EXPLORE: "Explore",
    Origin.FALLBACK: "Fallback",
}
"""What a card says about why its item stands there. Organic items, the usual case, say nothing."""

_VERBS = {
    Event.PAGE_VIEW: "saw",
    Event.SLOT_VIEW: "saw",
    Event.DISMISS: "dismissed",
    Event.VIEW_ITEM: "viewed",
    Event.SELECT_ITEM: "opened",
    Event.INTERACTION: "picked",
    Event.RATE: "rated",
    Event.ADD_TO_CART: "put in cart",
    Event.PURCHASE: "bought",
    Event.REFUND: "sent back",
}

_CATEGORY_COLUMNS = ("main_category", "category", "categories")
_NOTE = re.compile(r"^\s*r(\d{1,4})(?:c(\d{1,4}))?\s*:\s*(.+)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Card:
    """One slot, filled or empty."""

    slot_id: str  # "r0c3", 0-based
    item_id: str  # "" where the slot is empty
    title: str
    brand: str
    category: str
    price: str  # with its currency, "" if the catalog has none
    badge: str  # one of BADGES
    reason: str  # one sentence: why this item, or why no item
    score: float | None  # the policy's logit before masking
    propensity: float | None  # chance of this choice given the slots before
    parts: tuple[tuple[str, float], ...]  # evidence by name, largest effect first

    @property
    def empty(self) -> bool:
        """Whether no item stands here."""
        return not self.item_id


@dataclass(frozen=True, slots=True)
class RowView:
    """One row of a page with its cards in reading order."""

    row_id: str
    title: str
    kind: str  # "carousel", "grid" or "hero"
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """One event of the history that the page was made from."""

    card: Card
    verb: str  # "bought", "viewed", ...
    age: str  # "3 days ago", counted back from the moment of the page


@dataclass(frozen=True, slots=True)
class PageView:
    """A page ready to be shown to people."""

    shop: str
    query: str  # "" where the page answers no search
    history: tuple[Past, ...]  # newest first
    rows: tuple[RowView, ...]
    notes: tuple[str, ...]  # what the composer has to say about the page as a whole
    facts: tuple[tuple[str, str], ...]  # name and value: policy, run, seed, ...
    explained: bool  # whether cards carry their score, propensity and evidence
    receipt: ReceiptView | None = None  # where the page's reward comes from, if it was asked for


def page_view(
    page: Page,
    catalog: Catalog,
    context: Context | None = None,
    *,
    row_titles: Mapping[str, str] | None = None,
    row_kinds: Mapping[str, str] | None = None,
    explain: Mapping[str, Mapping[str, float]] | None = None,
    reasons: Mapping[str, str] | None = None,
    facts: Mapping[str, object] | None = None,
    receipt: ReceiptView | None = None,
    shop: str = "Your shop",
    history: int = 6,
) -> PageView:
    """Builds the view of one page.

    `row_titles` and `row_kinds` are keyed by row id; `explain` (evidence by name) and `reasons` (one sentence) by slot id
    such as "r0c3". With `explain=None` scores and propensities stay out of the view. `history` is the number of past
    events to show.
    """
    because = _slot_notes(page.notes) | {k: plain(v) for k, v in (reasons or {}).items()}
    cards: dict[int, list[Card]] = {row: [] for row in range(len(page.rows))}
    for slot in page.slots:
        cards.setdefault(slot.row, []).append(_card(slot, catalog, because, explain))
    names = dict(enumerate(page.rows))
    titles, kinds = row_titles or {}, row_kinds or {}
    rows = tuple(
        RowView(
            plain(names.get(row, "")),
            plain(titles.get(names.get(row, ""), "")) or _words(names.get(row, "")),
            _kind(kinds.get(names.get(row, ""), "")),
            tuple(cards[row]),
        )
        for row in sorted(cards)
    )
    return PageView(
        shop=plain(shop, 60),
        query=plain(context.query or "", 80) if context else "",
        history=_history(catalog, context, history) if context else (),
        rows=rows,
        notes=tuple(_spoken(note) for note in page.notes),
        facts=_facts(page, context, facts or {}),
        explained=explain is not None,
        receipt=receipt,
    )


def _card(slot: Slot, catalog: Catalog, because: Mapping[str, str], explain: Mapping[str, Mapping[str, float]] | None) -> Card:
    slot_id = f"r{slot.row}c{slot.col}"
    reason = because.get(slot_id, "")
    if slot.item == NO_ITEM:
        return _empty(slot_id, reason or because.get(f"r{slot.row}", "") or "No item left that may stand here")
    score: float | None = None
    chance: float | None = None
    parts: tuple[tuple[str, float], ...] = ()
    if explain is not None:
        score = slot.score if math.isfinite(slot.score) else None
        chance = math.exp(slot.logprob) if math.isfinite(slot.logprob) else None
        found = {plain(name, 60): float(value) for name, value in explain.get(slot_id, {}).items()}
        parts = tuple(sorted(found.items(), key=lambda part: -abs(part[1])))
    return item_card(catalog, slot.item, slot_id, BADGES[Origin(slot.origin)], reason, score, chance, parts)


def item_card(
    catalog: Catalog,
    item: int,
    slot_id: str = "",
    badge: str = "",
    reason: str = "",
    score: float | None = None,
    propensity: float | None = None,
    parts: tuple[tuple[str, float], ...] = (),
) -> Card:
    """The card of one catalog item."""
    row = catalog.frame.row(item, named=True)
    currency = plain(row.get("currency") or "", 8)
    item_id = plain(row["item_id"], 128) or "?"
    return Card(
        slot_id=slot_id,
        item_id=item_id,
        title=plain(row.get("title") or "") or f"Item {item_id}",
        brand=plain(row.get("brand") or "", 60),
        category=_category(row),
        price=price_text(row.get("price"), currency),
        badge=badge,
        reason=reason,
        score=score,
        propensity=propensity,
        parts=parts,
    )


def _empty(slot_id: str, reason: str) -> Card:
    return Card(slot_id, "", "", "", "", "", "", reason, None, None, ())


def _category(row: Mapping[str, Any]) -> str:
    for name in _CATEGORY_COLUMNS:
        value = row.get(name)
        if isinstance(value, list):
            value = " › ".join(str(part) for part in value[:3] if part)
        if value:
            return plain(value, 60)
    return ""


def _history(catalog: Catalog, context: Context, most: int) -> tuple[Past, ...]:
    recent = range(len(context.items) - 1, max(-1, len(context.items) - 1 - most), -1)
    return tuple(
        Past(
            item_card(catalog, int(context.items[i])),
            _VERBS[Event(int(context.events[i]))],
            age_text(context.time - int(context.times[i])),
        )
        for i in recent
    )


def _slot_notes(notes: tuple[str, ...]) -> dict[str, str]:
    """Notes of the form "r0c3: why" or "r0: why", by slot or row id."""
    found: dict[str, str] = {}
    for match in filter(None, map(_NOTE.match, notes)):
        row, col, why = match.groups()
        found.setdefault(f"r{int(row)}" + (f"c{int(col)}" if col else ""), plain(why))
    return found


def _spoken(note: str) -> str:
    match = _NOTE.match(note)
    if not match:
        return plain(note)
    row, col, why = match.groups()
    place = f"Row {int(row) + 1}" + (f", slot {int(col) + 1}" if col else "")
    return f"{place}: {plain(why)}"


def _words(row_id: str) -> str:
    return plain(row_id).replace("_", " ").replace("-", " ").strip().capitalize() or "Row"


def _kind(kind: str) -> str:
    return kind if kind in ("grid", "hero") else "carousel"


def _facts(page: Page, context: Context | None, given: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    facts: dict[str, object] = {**given, "layout": page.layout, "items": len(page.items)}
    if context:
        facts["as of"] = datetime.fromtimestamp(context.time, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if context.device:
            facts["device"] = context.device
    return tuple((plain(name, 60), plain(value)) for name, value in facts.items())
