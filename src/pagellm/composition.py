"""Composing pages from a finished run: who asks, under which layout, how to choose, and how the result is shown.

Takes what a person or a service asks for, gives pages with views and JSON. Knows no command line and no HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pagellm.data.contexts import contexts_of
from pagellm.data.search import TextIndex
from pagellm.data.shown import recently_shown
from pagellm.errors import UsageError
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Validator
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.multi_grained import Keeps, Receipt
from pagellm.models.reward_files import load_rewards
from pagellm.models.run import REWARD, Run, run_layout
from pagellm.reporting.receipt import ReceiptView, receipt_view
from pagellm.reporting.view import PageView, page_view
from pagellm.types import DAY, I32, NO_ITEM, Context, Event, Page, PageBatch, Slot


@dataclass(frozen=True)
class Composed:
    """Pages for one context, with what is needed to show them."""

    run: Run
    layout: Layout
    context: Context
    pages: tuple[Page, ...]
    explained: tuple[dict[str, dict[str, float]], ...]  # a page: slot id -> part of the score -> size; empty where not asked for
    receipts: tuple[
        Receipt | None, ...
    ]  # a page: where its reward comes from; None where not asked for or the run has no rewards
    facts: dict[str, object]
    notes: tuple[str, ...]  # about the context: an unknown user, a query without a match

    @property
    def views(self) -> list[PageView]:
        """The pages as people see them."""
        titles, kinds = (
            {row.id: value for row, value in zip(self.layout.rows, column, strict=True)} for column in self._row_columns
        )
        return [
            page_view(
                _with_notes(page, self.notes),
                self.run.catalog,
                self.context,
                row_titles=titles,
                row_kinds=kinds,
                explain=parts or None,
                facts=self.facts,
                receipt=self._receipt_view(page, receipt),
            )
            for page, parts, receipt in zip(self.pages, self.explained, self.receipts, strict=True)
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """The pages as plain values, in the form of the page API."""
        every = zip(self.pages, self.explained, self.receipts, strict=True)
        return [self._page_json(page, parts) | _receipt_json(page, receipt) for page, parts, receipt in every]

    def _receipt_view(self, page: Page, receipt: Receipt | None) -> ReceiptView | None:
        if receipt is None:
            return None
        titles = ["" if slot.item == NO_ITEM else self.run.catalog.titles[slot.item] for slot in page.slots]
        parts = {name: values.tolist() for name, values in receipt.parts.items()}
        figures = (receipt.constant, receipt.total, receipt.alone, receipt.swap, receipt.disagreement)
        return receipt_view([(slot.row, slot.col) for slot in page.slots], titles, parts, *figures, ruled=True)

    @property
    def _row_columns(self) -> tuple[list[str], list[str]]:
        return [row.titles[0] if row.titles else row.id for row in self.layout.rows], [row.kind for row in self.layout.rows]

    def _page_json(self, page: Page, parts: dict[str, dict[str, float]]) -> dict[str, Any]:
        titles, kinds = self._row_columns
        names = [row.id for row in self.layout.rows]
        rows = []
        for number, name in enumerate(page.rows):
            place = names.index(name)
            slots = [self._slot_json(slot, parts) for slot in page.slots if slot.row == number and slot.item != NO_ITEM]
            rows.append({"row": number, "id": name, "kind": kinds[place], "title": titles[place], "items": slots})
        return {
            "template": {"id": page.layout},
            "policy": {"id": "pagellm", "version": self.run.facts["fingerprint"][:12], "fallback": None},
            "rows": rows,
            "warnings": [*self.notes, *page.notes],
            "facts": self.facts,
        }

    def _slot_json(self, slot: Any, parts: dict[str, dict[str, float]]) -> dict[str, Any]:
        name = _slot_id(slot)
        out = {
            "slot_id": name,
            "col": slot.col,
            "item_id": str(self.run.catalog.item_ids[slot.item]),
            "title": self.run.catalog.titles[slot.item],
            "origin": slot.origin.name.lower(),
            "score": _finite(slot.score),
            "logprob": _finite(slot.logprob),
            "propensity": _finite(math.exp(slot.logprob)),
        }
        return out | ({"explain": parts[name]} if name in parts else {})


def compose_for(
    run: Run,
    *,
    user: str | None = None,
    history: Sequence[str] = (),
    layout: Layout | None = None,
    slots: int = 10,
    query: str | None = None,
    writing: Writing | None = None,
    group: int = 1,
    seed: int = 0,
    at: int | None = None,
    explain: bool = False,
    stage: str | None = None,
) -> Composed:
    """`group` pages for a user of the log, or for a history of item ids. `at` in unix seconds; None is the end of the log.

    `stage` is that of the policy that writes them, sft or ppo; None is the run's last.
    """
    now = int(run.split.log.time.max(initial=0)) + 1 if at is None else at
    layout = layout or run_layout(run, slots)
    stage = stage or run.stage
    policy = LanguagePolicy(run, layout, writing, now, run.named(stage))
    cap = layout.rules.frequency_cap
    context, notes = make_context(run, user, history, query, now, cap.days if cap else 0)
    if cap and user is not None and run.impressions is None:
        notes = (*notes, f"{cap.name} holds nothing back: the log has no pages, so nobody knows what was shown")
    only = None
    if query is not None:
        only = TextIndex(run.catalog).matches(query, 4 * policy.rules.places + 100, policy.rules.eligible)
        if len(only) == 1 and only[0] == NO_ITEM:
            notes = (*notes, "no item's text matches the query")
    drawn = policy.draw([context], only)
    pages = policy.write(drawn, [context], np.random.default_rng(seed), group)[0]
    parts = tuple(policy.parts(drawn, page) if explain else {} for page in pages)
    receipts = (
        receipts_of(run, context, pages, _keeper(run, layout, now, context, pages, drawn.pool[0]))
        if explain
        else (None,) * len(pages)
    )
    facts: dict[str, object] = {
        "policy": f"pagellm, {stage}",
        "run": run.folder.name,
        "data": str(run.facts["name"]),
        "seed": seed,
    }
    return Composed(run, layout, context, tuple(pages), parts, receipts, facts, notes)


def _keeper(run: Run, layout: Layout, now: int, context: Context, pages: Sequence[Page], pool: I32) -> Keeps:
    """Whether a page would keep the layout with other items in its slots, as the independent validator finds."""
    validator, candidates = Validator(layout, run.catalog, now), pool.tolist()

    def keeps(p: int, items: I32) -> bool:
        page = pages[p]
        slots = tuple(replace(slot, item=int(item)) for slot, item in zip(page.slots, items[: len(page.slots)], strict=True))
        return not validator.check(replace(page, slots=slots), context, candidates)

    return keeps


def receipts_of(run: Run, context: Context, pages: Sequence[Page], keeps: Keeps | None = None) -> tuple[Receipt | None, ...]:
    """Where the reward of each page comes from; None for each where the run has learned no rewards.

    With `keeps` only exchanges are offered after which a page keeps its rules.
    """
    if not (run.folder / REWARD).exists():
        return (None,) * len(pages)
    reward, _ = load_rewards(run)
    return tuple(reward.explain(PageBatch.of(pages, contexts_of([context]), np.zeros(len(pages), np.int64)), keeps))


def _receipt_json(page: Page, receipt: Receipt | None) -> dict[str, Any]:
    """The receipt under its key; nothing without one."""
    if receipt is None:
        return {}
    names = [_slot_id(slot) for slot in page.slots]
    swap = receipt.swap
    return {
        "receipt": {
            "total": receipt.total,
            "constant": receipt.constant,
            "parts": {part: {names[s]: float(values[s]) for s in receipt.alone} for part, values in receipt.parts.items()},
            "without": {names[s]: change for s, change in receipt.alone.items()},
            "best_swap": None if swap is None else {"slots": [names[swap[0]], names[swap[1]]], "gain": swap[2]},
            "disagreement": receipt.disagreement,
        }
    }


def _slot_id(slot: Slot) -> str:
    return f"r{slot.row}c{slot.col}"


def make_context(
    run: Run, user: str | None, history: Sequence[str], query: str | None, now: int, shown_days: int = 0
) -> tuple[Context, tuple[str, ...]]:
    """The context of a user of the log or of a history, as of `now`, and what people should know about it.

    `shown_days` are those of the layout's frequency cap: what the log says was shown to the user in these days comes along.
    """
    log = run.split.log
    if user is not None:
        place = np.flatnonzero(log.user_ids == user)
        if len(place):
            mine = (log.user == place[0]) & (log.time < now)
            shown = recently_shown(run.impressions, int(place[0]), now, shown_days)
            known = (log.item[mine], log.event[mine], log.time[mine])
            return Context(now, *known, user, query, baskets=log.basket[mine], shown=shown), ()
        return _empty(now, user, query), (f"the log has no user {user[:40]!r}: the page is that of a new user",)
    if history:
        items = run.catalog.indexes(history)
        times = now - DAY * np.arange(len(items), 0, -1)
        return Context(now, items, np.full(len(items), Event.INTERACTION, np.int8), times, None, query), ()
    return _empty(now, None, query), ()


def parse_time(text: str) -> int:
    """Unix seconds of an RFC 3339 time; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as problem:
        raise UsageError(f"The time {text!r} is not RFC 3339 ({problem}). Example: 2026-11-23T10:00:00Z") from problem
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _empty(now: int, user: str | None, query: str | None) -> Context:
    return Context(now, np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64), user, query)


def _with_notes(page: Page, notes: tuple[str, ...]) -> Page:
    return Page(page.layout, page.rows, page.slots, (*notes, *page.notes))


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
