"""The data contract: tables, their columns, and what other systems call them. Knows names only, no rows and no files.

Names are compared in lower case without anything but letters and digits, so `ItemId`, `item-id` and `item_id` are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pagellm.catalog import clean_text
from pagellm.errors import DataError
from pagellm.types import Event

ALIASES = {
    "item_id": ("sku", "object_id", "product_id", "item"),
    "title": ("item_name", "product_name", "name"),
    "categories": ("category", "item_category", "page_categories"),
    "brand": ("item_brand",),
    "seller_id": ("seller", "vendor"),
    "hidden": ("is_hidden",),
    "user_id": ("visitor_id", "user_pseudo_id", "client_id", "anonymous_id", "user"),
    "session_id": ("ga_session_id", "session"),
    "timestamp": ("ts", "event_timestamp", "event_time", "time"),
    "event": ("event_name", "event_type", "action_name", "feedback_type", "type"),
    "event_id": ("insert_id", "message_id", "id"),
    "page_id": ("ranking", "query_id", "recommendation_id", "recomm_id", "attribution_token", "request_id"),
    "slots": ("items",),
    "row": ("row_index",),
    "col": ("column", "index", "position"),
    "position": ("slot", "rank"),
    "click": ("clicked", "reward"),
    "propensity": ("pscore", "propensity_score"),
    "viewed": ("seen", "is_viewed"),
    "policy_id": ("policy",),
    "rating": ("overall", "stars"),
    "value": ("revenue", "sales_value"),
    "quantity": ("qty",),
    "order_id": ("transaction_id",),
}
"""Names of GA4, Segment, Snowplow, UBI, Google Retail, Personalize, Recombee, metarank and gorse, best first."""

EVENTS = {
    Event.PAGE_VIEW: ("page_view", "view_item_list", "product_list_viewed", "track_product_list_view", "home_page_view"),
    Event.SLOT_VIEW: ("slot_view", "impression", "read", "view_promotion"),
    Event.DISMISS: ("dismiss", "dislike", "negative"),
    Event.VIEW_ITEM: ("view_item", "product_viewed", "track_product_view", "detail_page_view", "view"),
    Event.SELECT_ITEM: (
        "select_item",
        "product_clicked",
        "track_product_select",
        "click",
        "select_promotion",
        "promotion_clicked",
    ),
    Event.INTERACTION: ("interaction",),
    Event.RATE: ("rate", "review", "like", "play_progress", "star"),
    Event.ADD_TO_CART: ("add_to_cart", "product_added", "track_add_to_cart", "cart", "addtocart"),
    Event.PURCHASE: ("purchase", "order_completed", "track_transaction", "purchase_complete", "buy", "transaction"),
    Event.REFUND: ("refund", "order_refunded", "track_refund"),
}


@dataclass(frozen=True)
class Table:
    """One table of the contract. `required` holds groups of which one column must be there."""

    name: str
    required: tuple[tuple[str, ...], ...]
    known: tuple[str, ...]
    open: bool = False  # whether columns beyond `known` are kept


ITEMS = Table(
    "items",
    (("item_id",), ("title",)),
    (
        *("item_id", "title", "categories", "brand", "seller_id", "price", "currency", "availability", "hidden"),
        *("created_at", "updated_at", "sponsored", "campaign_id", "margin", "image_url", "url", "group_id", "description"),
    ),
    open=True,
)
USERS = Table("users", (("user_id",),), ("user_id",), open=True)
INTERACTIONS = Table(
    "interactions",
    (("user_id",), ("item_id",), ("timestamp",)),
    ("user_id", "item_id", "timestamp", "rating", "basket_index", "event", "value", "currency"),
)
IMPRESSIONS = Table(
    "impressions",
    (("page_id",), ("timestamp",), ("user_id", "session_id"), ("slots", "item_id")),
    (
        *("page_id", "timestamp", "user_id", "session_id", "policy_id", "slots"),
        *("slot_id", "row", "col", "item_id", "propensity", "viewed"),
    ),
)
SLOTS = Table("slots", (("item_id",), ("row", "col", "slot_id")), ("slot_id", "row", "col", "item_id", "propensity", "viewed"))
SLOT_LOG = Table(
    "slot log",
    (("item_id",), ("position",), ("click",), ("propensity",)),
    ("item_id", "position", "click", "propensity", "user_id", "policy_id"),
    open=True,
)
EVENT_LOG = Table(
    "events",
    (("event",), ("timestamp",), ("user_id", "session_id", "page_id")),
    (
        *("event_id", "event", "timestamp", "user_id", "session_id", "page_id", "slot_id", "item_id"),
        *("value", "currency", "order_id", "rating"),
    ),
)


def plain(name: str) -> str:
    """A name as it is compared: lower case, letters and digits alone."""
    return re.sub("[^a-z0-9]", "", name.lower())


EVENT_CODES = {plain(name): int(code) for code, names in EVENTS.items() for name in names}
"""Compared event name → code of `Event`."""


def resolve(columns: Iterable[str], table: Table) -> dict[str, str]:
    """Which source column holds which column of the contract: {contract: source}. Our own name wins, then alias order.

    An open table keeps its other columns under their own names.
    """
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(plain(column), column)
    found = {}
    for name in table.known:
        source = next((by_name[plain(n)] for n in (name, *ALIASES.get(name, ())) if plain(n) in by_name), None)
        if source is not None:
            found[name] = source
    if table.open:
        taken = set(found.values())
        found |= {c: c for c in columns if c not in taken and c not in found and c}
    return found


def missing(columns: Iterable[str], table: Table) -> list[str]:
    """The required columns that are not there, as words."""
    found = resolve(columns, table)
    return [" or ".join(group) for group in table.required if not any(name in found for name in group)]


def require(file: str, columns: list[str], table: Table) -> None:
    """Raises DataError that names what the file lacks, which columns came, and what each may also be called."""
    lacking = missing(columns, table)
    if not lacking:
        return
    first = lacking[0].split(" or ")[0]
    also = ", ".join(ALIASES.get(first, ())) or "no other name"
    order = " An order within a user (seq_index) is no time: a cut in time needs a clock." if "timestamp" in lacking else ""
    raise DataError(
        f"{file} has no column {', '.join(lacking)}. The table {table.name!r} requires "
        f"{', '.join(' or '.join(g) for g in table.required)}. "
        f"Its columns are: {', '.join(clean_text(c, 60) for c in columns[:40]) or 'none'}.{order} "
        f"Rename or add the column ({first!r} may also be called: {also})."
    )
