"""A shop whose truth is known: exact expectations of any page, and sampled feedback. Takes a spec and a seed.

Gives `World`: `expected` for the truth, `sample_feedback` for what a log or an experiment would see, `relevance` for single
items. A user is a number; any number from 0 on is a user. Knows no files and no learned model, and no learned model may
know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pagellm.errors import UsageError
from pagellm.simulation.batches import expect_pages, in_chunks, relevance_of_items, sample_pages
from pagellm.simulation.choosing import PolicyTable
from pagellm.simulation.feedback import CARTED, CLICKED, PURCHASED, VIEWED
from pagellm.simulation.logging_policies import POLICIES, LoggingPolicy, build_table
from pagellm.simulation.people import Clock, People, describe
from pagellm.simulation.shop import Shop, make_shop
from pagellm.simulation.spec import WorldSpec, profile
from pagellm.types import DAY, F32, F64, I32, I64, Bool

CHUNK = 16_384
"""Pages that one thread takes at a time."""

MEMORY = 16
"""Purchases that a user remembers."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Exact expectations of pages. Counts a page; money in the shop's currency."""

    view: F64  # [page, slot] chance that the slot is seen
    click: F64  # [page, slot]
    cart: F64  # [page, slot]
    buy: F64  # [page, slot]
    money: F64  # [page, slot]

    @property
    def clicks(self) -> F64:
        """[page] expected clicks."""
        return np.asarray(self.click.sum(axis=1))

    @property
    def carts(self) -> F64:
        """[page] expected items put into the cart."""
        return np.asarray(self.cart.sum(axis=1))

    @property
    def purchases(self) -> F64:
        """[page] expected purchases."""
        return np.asarray(self.buy.sum(axis=1))

    @property
    def gmv(self) -> F64:
        """[page] expected money of purchases."""
        return np.asarray(self.money.sum(axis=1))

    def total(self, metric: str) -> F64:
        """[page] `clicks`, `carts`, `purchases` or `gmv`."""
        return {"clicks": self.clicks, "carts": self.carts, "purchases": self.purchases, "gmv": self.gmv}[metric]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What users did with pages, once."""

    outcome: NDArray[np.uint8]  # [page, slot] bits VIEWED, CLICKED, CARTED, PURCHASED of the feedback module

    @property
    def viewed(self) -> Bool:
        """[page, slot]"""
        return np.asarray(self.outcome & VIEWED, bool)

    @property
    def clicked(self) -> Bool:
        """[page, slot]"""
        return np.asarray(self.outcome & CLICKED, bool)

    @property
    def carted(self) -> Bool:
        """[page, slot]"""
        return np.asarray(self.outcome & CARTED, bool)

    @property
    def purchased(self) -> Bool:
        """[page, slot]"""
        return np.asarray(self.outcome & PURCHASED, bool)


@dataclass(frozen=True)
class World:
    """A shop with known truth."""

    spec: WorldSpec
    seed: int
    shop: Shop

    @classmethod
    def make(cls, spec: WorldSpec | str, seed: int) -> World:
        """The world of a spec, or of a profile's name. Equal spec and seed give equal worlds."""
        if not 0 <= seed < 2**31:
            raise UsageError(f"A world's seed must be a whole number from 0 to {2**31 - 1}. Got {seed}.")
        exact = profile(spec) if isinstance(spec, str) else spec
        return cls(exact, seed, make_shop(exact, seed))

    @property
    def clock(self) -> Clock:
        """Start and seed, as kernels take them."""
        return Clock(self.seed, self.spec.start)

    @property
    def _shelf(self) -> tuple[NDArray[np.void], F32, F64]:
        return self.shop.traits, self.shop.appeal, self.shop.share

    @cached_property
    def row(self) -> I32:
        """[slot] row of each slot of the logged page, in reading order."""
        return np.repeat(np.arange(self.spec.rows, dtype=np.int32), self.spec.cols)

    @cached_property
    def gazes(self) -> F64:
        """[device, 3] chances to look on to the next row, to the second column, to later columns."""
        a = self.spec.attention
        return np.array([a.row, a.first_col, a.next_col], np.float64).T.copy()

    @cached_property
    def tables(self) -> tuple[PolicyTable, ...]:
        """The logging policies over this shop, in the order of `POLICIES`."""
        return tuple(self.table(policy, code) for code, policy in enumerate(POLICIES))

    def table(self, policy: LoggingPolicy, code: int) -> PolicyTable:
        """One logging policy over this shop; `code` numbers its noise."""
        return build_table(policy, self.shop, self.spec, self.seed, code)

    def users_at(self, user: I32, time: I64) -> People:
        """What users want at these moments; both are [context]."""
        self._check_contexts(user, time)
        return describe(self.clock, self.spec.behavior, self.shop.share, self.spec.attention.mobile_share, user, time)

    def candidates(self, time: int) -> I32:
        """[candidate] items that may be shown at this moment."""
        return np.flatnonzero(self.shop.eligible[(time - self.spec.start) // DAY]).astype(np.int32)

    def expected(
        self, pages: I32, user: I32, time: I64, *, row: I32 | None = None, owned: I32 | None = None, threads: int = 1
    ) -> Expected:
        """Exact expectations of pages [page, slot] shown to `user` [page] at `time` [page].

        `row` [slot] is the page's shape (the logged page by default); `owned` [page, memory] holds groups that the user
        bought lately, ended by -1 (nobody owns anything by default). Empty slots hold NO_ITEM.
        """
        row = self._checked_row(pages, user, time, row)
        kept = self._owned(owned, len(pages))
        view, click, cart, buy = (np.empty(pages.shape) for _ in range(4))

        def work(part: slice) -> None:
            expect_pages(
                self.clock, self.spec.behavior, self.gazes, self.spec.attention.mobile_share, *self._shelf, row,
                pages[part], user[part], time[part], kept[part], view[part], click[part], cart[part], buy[part],
            )  # fmt: skip

        in_chunks(len(pages), CHUNK, threads, work)
        return Expected(view, click, cart, buy, buy * np.where(pages < 0, 0.0, self.shop.price[pages]))

    def sample_feedback(
        self, pages: I32, user: I32, time: I64, visit: I64, *,
        row: I32 | None = None, owned: I32 | None = None, threads: int = 1, chunk: int = CHUNK,
    ) -> Feedback:  # fmt: skip
        """One outcome of pages [page, slot]; `visit` [page] numbers the visits, and with the user it decides every draw.

        The same visit of the same user draws the same numbers for any page: two policies can be compared on the same luck.
        """
        row = self._checked_row(pages, user, time, row)
        kept = self._owned(owned, len(pages))
        outcome = np.empty(pages.shape, np.uint8)

        def work(part: slice) -> None:
            sample_pages(
                self.clock, self.spec.behavior, self.gazes, self.spec.attention.mobile_share, *self._shelf, row,
                pages[part], user[part], time[part], visit[part], kept[part], outcome[part],
            )  # fmt: skip

        in_chunks(len(pages), chunk, threads, work)
        return Feedback(outcome)

    def relevance(self, user: I32, time: I64, items: I32, metric: str = "clicks", owned: I32 | None = None) -> F64:
        """[context, candidate] value of items [context, candidate] that are seen and stand alone, in units of the metric."""
        self._check_contexts(user, time)
        click, cart, buy = (np.empty(items.shape) for _ in range(3))
        relevance_of_items(
            self.clock, self.spec.behavior, *self._shelf, user, time, items, self._owned(owned, len(user)), click, cart, buy
        )
        money = buy * self.shop.price[items]
        return {"clicks": click, "carts": cart, "purchases": buy, "gmv": money}[metric]

    def attention(self, device: int, row: I32 | None = None) -> F64:
        """[slot] chance that a slot is seen on a page where nobody clicks: the position effect in its pure form."""
        shape = self.row if row is None else row
        place = np.arange(len(shape)) - np.searchsorted(shape, shape)
        down, first, on = self.gazes[device]
        return np.asarray(down**shape * np.where(place > 0, first * on ** np.maximum(place - 1, 0), 1.0), np.float64)

    def _checked_row(self, pages: I32, user: I32, time: I64, row: I32 | None) -> I32:
        shape = self.row if row is None else row
        self._check_contexts(user, time)
        if pages.ndim != 2 or pages.shape != (len(user), len(shape)):
            raise UsageError(
                f"Pages must be [page, slot] = ({len(user)}, {len(shape)}), one row a user. Got {pages.shape}. "
                "Pad short pages with NO_ITEM, or pass row= with the shape of the page."
            )
        if pages.size and (pages.max() >= self.spec.items or pages.min() < -1):
            raise UsageError(f"Pages hold item {pages.max()}. Items are 0 to {self.spec.items - 1}, or NO_ITEM.")
        return shape

    def _check_contexts(self, user: I32, time: I64) -> None:
        first, last = self.spec.start, self.spec.start + self.spec.horizon * DAY
        if len(user) != len(time):
            raise UsageError(f"Each context needs a user and a time. Got {len(user)} users and {len(time)} times.")
        if len(time) and (time.min() < first or time.max() >= last):
            raise UsageError(
                f"This world lives from {first} to {last} (unix seconds). Got times from {time.min()} to {time.max()}."
            )
        if len(user) and user.min() < 0:
            raise UsageError(f"Users are numbers from 0. Got {user.min()}.")

    def _owned(self, owned: I32 | None, count: int) -> I32:
        if owned is None:
            return np.full((count, 1), -1, np.int32)
        if len(owned) != count:
            raise UsageError(f"owned must hold one row a context ({count}). Got {len(owned)}.")
        return owned
