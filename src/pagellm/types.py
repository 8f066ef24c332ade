"""The records that stages hand to each other. Arrays and plain values only; a field is explained once, here.

Knows no files, no torch, no rules. Words for shapes: event, basket, page, slot, row, item, context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

NO_ITEM = -1
"""Stands in item arrays where a slot stays empty."""

DAY = 86_400
"""Seconds in a day."""


class Event(IntEnum):
    """Kinds of feedback, by rising commitment. `INTERACTION` is a review-type log that names no kind."""

    PAGE_VIEW = 0
    SLOT_VIEW = 1
    DISMISS = 2
    VIEW_ITEM = 3
    SELECT_ITEM = 4
    INTERACTION = 5
    RATE = 6
    ADD_TO_CART = 7
    PURCHASE = 8
    REFUND = 9


TAKING = (Event.INTERACTION, Event.RATE, Event.PURCHASE)
"""Kinds of events with which a user takes an item: unless a shop's users take things again, it needs not be shown to them any more. What
was only clicked on or put into a cart is still wanted, more than most."""


class Origin(IntEnum):
    """Why an item stands in its slot."""

    ORGANIC = 0
    PINNED = 1
    SPONSORED = 2
    BOOSTED = 3
    EXPLORE = 4
    FALLBACK = 5


@dataclass(frozen=True, slots=True)
class Interactions:
    """Feedback of users on items, one row an event, sorted by user, time, item.

    Order inside a basket means nothing: many logs have day resolution, and events of one day are an unordered set.
    """

    user: I32  # [event] index into `user_ids`
    item: I32  # [event] index into the catalog
    time: I64  # [event] unix seconds
    basket: I32  # [event] dense rank of the basket within its user, from 0, rising with time
    event: I8  # [event] code of `Event`
    rating: F32  # [event] NaN where the log has none
    value: F32  # [event] money of a purchase, NaN where the log has none
    user_ids: NDArray[np.str_]  # [user] as in the log, in order of first appearance after sorting by id

    def __len__(self) -> int:
        return len(self.item)

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def taken(self) -> Bool:
        """[event] whether the user took the item with it, see `TAKING`."""
        return np.isin(self.event, TAKING)

    def where(self, keep: Bool) -> Interactions:
        """The events at which `keep` [event] holds; user indexes stay as they are."""
        return Interactions(
            self.user[keep],
            self.item[keep],
            self.time[keep],
            self.basket[keep],
            self.event[keep],
            self.rating[keep],
            self.value[keep],
            self.user_ids,
        )


@dataclass(frozen=True, slots=True)
class Impressions:
    """Pages that were shown, with their slots and the feedback on them. Slots of page p: `offsets[p]:offsets[p+1]`."""

    page_ids: NDArray[np.str_]  # [page] as in the log
    user: I32  # [page] index into the `user_ids` of the log's interactions
    time: I64  # [page] unix seconds
    policy: NDArray[np.str_]  # [page] id of the logging policy
    offsets: I64  # [page + 1] into the slot arrays, in reading order within a page
    item: I32  # [slot] catalog index
    row: I16  # [slot] row on the page, from 0
    col: I16  # [slot] column in the row, from 0
    propensity: F32  # [slot] chance that the logging policy put this item here given the slots before, NaN if unknown
    viewed: I8  # [slot] 1 seen, 0 not seen, -1 unknown
    clicked: Bool  # [slot]
    carted: Bool  # [slot]
    purchased: Bool  # [slot]
    value: F32  # [slot] money of purchases made from this slot, 0 where none
    settled: I64  # [page] unix seconds of the last view or engagement that the log has of it; its own time where there is none

    def __len__(self) -> int:
        return len(self.page_ids)

    def where(self, keep: Bool) -> Impressions:
        """The pages at which `keep` [page] holds, with their slots."""
        sizes = np.diff(self.offsets)
        of_pages = {name: getattr(self, name)[keep] for name in ("page_ids", "user", "time", "policy", "settled")}
        others = [spec.name for spec in fields(self) if spec.name not in (*of_pages, "offsets")]
        slots = np.repeat(keep, sizes)
        of_slots = {name: getattr(self, name)[slots] for name in others}
        offsets = np.concatenate([[0], np.cumsum(sizes[keep])]).astype(np.int64)
        return Impressions(**of_pages, offsets=offsets, **of_slots)

    @property
    def engaged(self) -> Bool:
        """[slot] whether anything was done with it."""
        return self.clicked | self.carted | self.purchased

    def slots_of(self, pages: I64) -> tuple[I64, Bool]:
        """(slot, whether there is one), [page, place] each: the slots of these pages in reading order, 0 beyond a page's end."""
        sizes = np.diff(self.offsets)[pages]
        inside = np.arange(max(int(sizes.max(initial=1)), 1)) < sizes[:, None]
        return np.where(inside, self.offsets[pages][:, None] + np.arange(inside.shape[1]), 0), inside


@dataclass(frozen=True, slots=True)
class Context:
    """What a page is made for: who asks, when, and what they did before. Catalog indexes throughout."""

    time: int  # unix seconds; nothing at or after this moment is known
    items: I32  # [event] history, oldest first
    events: I8  # [event] code of `Event`
    times: I64  # [event] unix seconds
    user: str | None = None  # id as in the log; data, never markup
    query: str | None = None  # free text of a search
    device: str | None = None
    baskets: I32 | None = None  # [event] basket of each event, rising; None takes the events of a UTC day as one
    exclude: I32 = field(default_factory=lambda: np.empty(0, np.int32))  # items that this page may not hold
    shown: I32 = field(default_factory=lambda: np.empty(0, np.int32))  # recent impressions, once per showing (frequency cap)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Many contexts over one log, without a copy of it: context c knows the events `start[c]:stop[c]` of its user.

    Its target, where one is asked for, is the basket that follows: the events `stop[c]:target_stop[c]`.
    """

    log: Interactions
    start: I64  # [context] first event of the user's history
    stop: I64  # [context] one past the last event before the context's time
    target_stop: I64  # [context] one past the target basket; equal to `stop` where there is no target
    user: I32  # [context] index into `log.user_ids`
    time: I64  # [context] unix seconds; everything that the context may know is strictly older

    def __len__(self) -> int:
        return len(self.time)

    @property
    def warm(self) -> Bool:
        """[context] whether the user has any history."""
        return self.stop > self.start

    def take(self, places: NDArray[np.intp] | Bool) -> Contexts:
        """The contexts at these places, in this order."""
        return Contexts(
            self.log,
            self.start[places],
            self.stop[places],
            self.target_stop[places],
            self.user[places],
            self.time[places],
        )

    def history(self, place: int) -> I32:
        """[event] items of one context's history, oldest first."""
        return self.log.item[self.start[place] : self.stop[place]]

    def target(self, place: int) -> I32:
        """[event] items of one context's target basket."""
        return self.log.item[self.stop[place] : self.target_stop[place]]


@dataclass(frozen=True, slots=True)
class Slot:
    """One place on a page."""

    row: int  # 0-based row on the page
    col: int  # 0-based column in the row
    item: int  # catalog index, NO_ITEM if empty
    origin: Origin = Origin.ORGANIC
    logprob: float = float("nan")  # log of the chance of this choice given the slots before, under the sampling mask
    score: float = float("nan")  # the policy's logit for the item before masking


@dataclass(frozen=True, slots=True)
class Page:
    """Items in slots for one context, in reading order. What logs contain, policies write and metrics measure."""

    layout: str  # id of the layout
    rows: tuple[str, ...]  # [row] id of the layout row that stands there
    slots: tuple[Slot, ...]  # in reading order
    notes: tuple[str, ...] = ()  # why a slot stayed empty, which soft rule was dropped

    @property
    def items(self) -> I32:
        """Catalog indexes in reading order, empty slots left out. Shape [filled slot]."""
        return np.array([s.item for s in self.slots if s.item != NO_ITEM], np.int32)


@dataclass(frozen=True, slots=True)
class PageBatch:
    """Pages that are scored together: page p was made for context `place[p]`. Slots in reading order, padded with NO_ITEM."""

    contexts: Contexts
    place: I64  # [page] index into `contexts`
    items: I32  # [page, slot] catalog indexes
    row: I16  # [page, slot] row on the page, from 0
    col: I16  # [page, slot] column in the row, from 0

    def __len__(self) -> int:
        return len(self.place)

    def take(self, places: NDArray[np.intp] | Bool) -> PageBatch:
        """The pages at these places, in this order."""
        return PageBatch(self.contexts, self.place[places], self.items[places], self.row[places], self.col[places])

    @property
    def last(self) -> I64:
        """[page] the last filled slot, the first of an empty page: where what is said of a whole page stands."""
        real = self.items != NO_ITEM
        return np.where(real.any(1), real.shape[1] - 1 - real[:, ::-1].argmax(1), 0)

    @classmethod
    def of(cls, pages: Sequence[Page], contexts: Contexts, place: I64) -> PageBatch:
        """Pages as arrays; page p was made for context `place[p]`."""
        width = max((len(page.slots) for page in pages), default=0)
        items, row, col = np.full((len(pages), width), NO_ITEM, np.int32), *np.zeros((2, len(pages), width), np.int16)
        for p, page in enumerate(pages):
            for s, slot in enumerate(page.slots):
                items[p, s], row[p, s], col[p, s] = slot.item, slot.row, slot.col
        return cls(contexts, place, items, row, col)

    def with_items(self, items: I32) -> PageBatch:
        """Other items [page, slot] at the same places."""
        return PageBatch(self.contexts, self.place, items, self.row, self.col)


class PageReward(Protocol):
    """Anything that scores pages: one number a page, or one a slot."""

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page] or [page, slot]; 0 for empty slots."""
        ...


class PagePolicy(Protocol):
    """A distribution over pages. Baselines, logging policies and the language model satisfy it."""

    def compose(self, context: Context, rng: np.random.Generator) -> Page:
        """Draws one page for the context."""
        ...

    def log_prob(self, context: Context, page: Page) -> F64:
        """Log-probability of each slot given the slots before it, under the same mask as `compose`. Shape [slot]."""
        ...
