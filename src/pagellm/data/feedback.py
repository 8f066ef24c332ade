"""From the events file of a page log to feedback: one sound array a field, joined to pages and slots. Writes no record.

An event names its page and slot if it happened on one. Copies of an event_id or of a line of an order go: the first wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.data.cells import bad_ids, missing, texts
from pagellm.data.columns import EVENT_LOG
from pagellm.data.files import batches
from pagellm.data.ids import Ids
from pagellm.data.impressions import Pages, take_back, user_texts
from pagellm.data.interactions import ENGAGEMENTS, Money, check_currency, check_time, event_codes, float_column
from pagellm.data.quarantine import Quarantine, Rules
from pagellm.data.rows import Batch
from pagellm.data.slots import slot_places
from pagellm.types import F32, I8, I32, I64, Bool, Event

NEEDS_ITEM = (*ENGAGEMENTS, Event.SLOT_VIEW, Event.DISMISS)
_U64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Feedback:
    """Accepted events of a page log, in file order."""

    user: I32  # [event] code of `Ids`
    item: I32  # [event] catalog index, -1 where the event names none (a page view)
    time: I64  # [event]
    event: I8  # [event]
    page: I32  # [event] place in `Pages`, -1 where it names no page or an unknown one
    slot: I64  # [event] place among the slots of `Pages`, -1 where none holds the item
    unknown_page: Bool  # [event] names a page that was not accepted
    rating: F32  # [event]
    value: F32  # [event]
    number: I64  # [event] row in the file


@dataclass(frozen=True)
class RawEvents:
    """Sound rows of the events file, before they find their slots."""

    user: I32  # [event] code of `Ids`, -1 where neither the row nor its page names one
    item: I32
    time: I64
    event: I8
    page: I32  # [event] place in `Pages`, -1 where it names no page or an unknown one
    row: I64
    col: I64
    unknown_page: Bool
    rating: F32
    value: F32
    event_id: _U64  # [event] hash, 0 where missing
    order_line: _U64  # [event] hash of order and item, 0 where it is no purchase with an order
    content: _U64  # [event] hash of all that it says
    number: I64  # [event] row in the file


def read_feedback(
    path: Path, items: Ids, users: Ids, page_ids: Ids, pages: Pages, quarantine: Quarantine, base: int
) -> tuple[Feedback, Money]:
    """All accepted events, joined to the pages. `users` grows by what the file holds."""
    money = Money()
    frames = (read_event_rows(batch, path.name, items, quarantine, base, money) for batch in batches(path, EVENT_LOG))
    raw = join_events([coded_events(frame, users, page_ids, pages) for frame in frames])
    feedback, late = settle_feedback(raw, pages)
    for batch in batches(path, EVENT_LOG) if late else ():
        take_back(path, batch, late, quarantine)
    return feedback, money


def settle_feedback(raw: RawEvents, pages: Pages) -> tuple[Feedback, dict[int, str]]:
    """(events on their slots, rows that only pages or other rows show to be at fault: {number: reason})."""
    slot = _slot_of(raw, pages)
    item = np.where((raw.item < 0) & (slot >= 0), pages.item[slot] if len(pages.item) else -1, raw.item).astype(np.int32)
    reasons = _late_reasons(raw, pages, item)
    keep = np.ones(len(raw.time), bool)
    keep[list(reasons)] = False
    kept = Feedback(
        raw.user[keep],
        item[keep],
        raw.time[keep],
        raw.event[keep],
        raw.page[keep],
        slot[keep],
        raw.unknown_page[keep],
        raw.rating[keep],
        raw.value[keep],
        raw.number[keep],
    )
    return kept, {int(raw.number[p]): reason for p, reason in reasons.items()}


def read_event_rows(batch: Batch, file: str, items: Ids, quarantine: Quarantine, base: int, money: Money) -> pl.DataFrame:
    """[event] the sound rows of a batch: user and page as text, the rest as in `RawEvents`.

    What only pages or other rows can show to be at fault is left to `settle_feedback`.
    """
    rules = Rules(len(batch))
    event = event_codes(batch, rules)
    rules.fail(event == -1, "missing_event")
    time = check_time(batch, rules)
    user, item, page_id = user_texts(batch), texts(batch.column("item_id")), texts(batch.column("page_id"))
    row, col = slot_places(texts(batch.column("slot_id")), base)
    item_code = items.find(item)
    for name, text in (("user_id", user), ("item_id", item), ("page_id", page_id)):
        rules.fail(bad_ids(text), f"bad_{name}")
    rules.fail(missing(user) & missing(page_id), "missing_user_id")
    rules.fail(~missing(item) & (item_code < 0), "unknown_item")
    on_slot = ~missing(page_id) & (col >= 0)
    rules.fail(np.isin(event, NEEDS_ITEM) & missing(item) & ~on_slot, "missing_item_id")
    rating, value = float_column(batch, "rating", rules), float_column(batch, "value", rules)
    check_currency(batch, rules)
    good = quarantine.take(file, batch, rules)
    money.add(batch, good & ~np.isnan(value))
    chosen = pl.Series(good)
    order = texts(batch.column("order_id")).filter(chosen)
    order = order.set(pl.Series(event[good] != Event.PURCHASE), None)
    plain = [texts(batch.frame[name]).filter(chosen).rename(name) for name in batch.frame.columns if name != "event_id"]
    numbers: dict[str, np.ndarray] = {"item": item_code, "time": time, "event": event, "row": row, "col": col}
    numbers |= {"rating": rating, "value": value}
    return pl.DataFrame(
        {
            "user": user.filter(chosen),
            "page": page_id.filter(chosen),
            **{name: column[good] for name, column in numbers.items()},
            "event_id": _hash(texts(batch.column("event_id")).filter(chosen)),
            "order_line": _hash(order + "\x1f" + item.filter(chosen)),
            "content": pl.DataFrame(plain).hash_rows() if plain else np.empty(0, np.uint64),
            "number": batch.rows[good],
        }
    )


def coded_events(rows: pl.DataFrame, users: Ids, page_ids: Ids, pages: Pages) -> RawEvents:
    """The rows with ids as codes; who acts on a known page is that page's user. `users` grows by what the rows hold."""
    page = _place(page_ids.find(rows["page"]), pages.place)
    user = np.where(page >= 0, pages.user[page] if len(pages.user) else -1, users.add(rows["user"])).astype(np.int32)
    unknown = rows["page"].is_not_null().to_numpy() & (page < 0)
    rest = {name: rows[name].to_numpy() for name in RawEvents.__dataclass_fields__ if name in rows.columns}
    return RawEvents(**rest | {"user": user, "page": page, "unknown_page": unknown})


def _place(code: I32, place: I32) -> I32:
    """[event] place of the page with this code, -1 where there is none."""
    if len(place) == 0:
        return np.full(len(code), -1, np.int32)
    return np.where(code >= 0, place[code], -1).astype(np.int32)


def _hash(text: pl.Series) -> _U64:
    """[row] 64-bit hash, 0 where missing. Two of ten million ids meet by chance once in 370,000 logs."""
    return text.hash().set(text.is_null(), 0).to_numpy().astype(np.uint64)


def join_events(parts: list[RawEvents]) -> RawEvents:
    """The parts as one."""
    if not parts:
        i32, i64, none = np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint64)
        f32, i8, flag = np.empty(0, np.float32), np.empty(0, np.int8), np.empty(0, bool)
        return RawEvents(i32, i32, i64, i8, i32, i64, i64, flag, f32, f32, none, none, none, i64)
    names = list(RawEvents.__dataclass_fields__)
    return RawEvents(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _slot_of(raw: RawEvents, pages: Pages) -> I64:
    """[event] the slot of its page that it is on: the one it names if that holds its item, else the first with its item."""
    owner = pages.owner
    here = raw.page.astype(np.int64)
    named = _find((owner << 32) | (pages.row.astype(np.int64) << 16) | pages.col, (here << 32) | (raw.row << 16) | raw.col)
    usable = (here >= 0) & (raw.row >= 0) & (raw.col >= 0)
    named = np.where(usable, named, -1)
    if len(pages.item):
        named = np.where((named >= 0) & (raw.item >= 0) & (pages.item[named] != raw.item), -1, named)
    by_item = _find((owner << 32) | pages.item, (here << 32) | np.maximum(raw.item, 0))
    by_item = np.where((here >= 0) & (raw.item >= 0), by_item, -1)
    return np.where(named >= 0, named, by_item)


def _find(keys: I64, wanted: I64) -> I64:
    """[wanted] first place of each wanted key among the keys, -1 where it is not there."""
    if len(keys) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    place = order[at]
    return np.where(keys[place] == wanted, place, -1)


def _late_reasons(raw: RawEvents, pages: Pages, item: I32) -> dict[int, str]:
    """Events that other rows show to be at fault: {place: reason}."""
    known = raw.page >= 0
    early = known & (raw.time < (pages.time[raw.page] if len(pages.time) else 0))
    reasons = dict.fromkeys(np.flatnonzero(early).tolist(), "event_before_page")
    empty = np.isin(raw.event, NEEDS_ITEM) & (item < 0)
    reasons |= dict.fromkeys(np.flatnonzero(empty & known).tolist(), "unknown_slot")
    reasons |= dict.fromkeys(np.flatnonzero(empty & ~known).tolist(), "missing_item_id")
    reasons |= dict.fromkeys(np.flatnonzero(raw.user < 0).tolist(), "missing_user_id")
    reasons |= copies(raw.order_line, None, "repeated_order_line", "repeated_order_line")
    return reasons | copies(raw.event_id, raw.content, "repeated_event", "duplicate_event")


def copies(ids: _U64, content: _U64 | None, same: str, other: str) -> dict[int, str]:
    """All but the first event of each id, by whether the content is that of the first."""
    _, first, back = np.unique(ids, return_index=True, return_inverse=True)
    origin = first[back]
    places = np.flatnonzero((origin != np.arange(len(ids))) & (ids != 0))
    if content is None:
        return dict.fromkeys(places.tolist(), same)
    return {int(p): same if content[p] == content[origin[p]] else other for p in places}
