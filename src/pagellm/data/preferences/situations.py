"""What pairs are made from: contexts, each with a page, the feedback on it, and candidates that might have stood there.

Takes contexts of a log, or its logged pages; a caller with a policy brings its candidates and their logits. Knows no family of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numba import njit

from pagellm.data.contexts import contexts_at
from pagellm.data.counters import chance
from pagellm.data.evidence import NAMES, Evidence
from pagellm.data.examination import Examination
from pagellm.data.lots import draw_lots, id_keys
from pagellm.types import F32, I8, I16, I32, I64, NO_ITEM, U64, Bool, Contexts, Event, Impressions, Interactions

GAINS: Mapping[Event, float] = {
    Event.VIEW_ITEM: 0.5,
    Event.SELECT_ITEM: 1.0,
    Event.INTERACTION: 1.0,
    Event.RATE: 1.0,
    Event.ADD_TO_CART: 2.0,
    Event.PURCHASE: 4.0,
}
"""Engagement of one event of a kind; kinds that are missing have none. Of several events on one slot the strongest counts."""


MOST_ENGAGED = 1_000_000
"""Engagements that items of other users are drawn from; of more, so many are drawn."""

_PLACES = 1_000_000  # where the draws of places begin, beyond those of candidates


@dataclass(frozen=True)
class Situations:
    """Pages with feedback. Arrays over [context, slot] are padded with NO_ITEM (-1) and 0 to the widest page."""

    contexts: Contexts
    page: I64  # [context] index of the logged page, -1 where the page was put together here
    items: I32  # [context, slot]
    gain: F32  # [context, slot] engagement, 0 for none
    event: I8  # [context, slot] code of the strongest event, 0 for none
    seen: F32  # [context, slot] chance that the user saw the slot; 1 where known, 0 where known not to
    look: F32  # [context, slot] chance that a slot at this place is seen at all: what a place is worth
    row: I16  # [context, slot]
    col: I16  # [context, slot]
    pool: I32  # [context, candidate]
    logits: F32  # [context, candidate] what the policy thinks of each; equal where there is none
    drawn: F32  # [context, slot] log of the chance with which the item would be drawn onto a page put together here; 0 on logged pages

    def __len__(self) -> int:
        return len(self.page)

    def take(self, places: np.ndarray) -> Situations:
        """The situations at these places."""
        rest = (getattr(self, f.name)[places] for f in fields(self) if f.name != "contexts")
        return Situations(self.contexts.take(places), *rest)


@dataclass(frozen=True)
class Engaged:
    """Who engaged with what in all of the window that is mined: where items of other users are drawn from."""

    user: I32  # [engagement]
    item: I32  # [engagement]
    time: I64  # [engagement] unix seconds; a context draws from older ones

    def among(self, allowed: Bool) -> Engaged:
        """Engagements with these items [item] alone: what may not be put onto a page stands in for nothing."""
        kept = allowed[self.item]
        return Engaged(self.user[kept], self.item[kept], self.time[kept])

    def lots(self, who: U64) -> U64:
        """[engagement] numbers that put them into an order of chance; `who` [engagement] are the keys of their users' ids."""
        return draw_lots(np.stack((who, self.time.astype(np.uint64), self.item.astype(np.uint64)), 1))

    def drawn(self, user_ids: np.ndarray) -> Engaged:
        """In the order of their lots, `MOST_ENGAGED` at most: the same list wherever in the log they come from."""
        order = np.argsort(self.lots(id_keys(user_ids)[self.user]), kind="stable")[:MOST_ENGAGED]
        return Engaged(self.user[order], self.item[order], self.time[order])


def from_baskets(contexts: Contexts, pool: I32, logits: F32, slots: int, seed: int, flat: bool = False) -> Situations:
    """Pages for contexts with a target, as a review-type log has them: nobody knows what was shown.

    A page of `slots` in one row holds up to half its slots of target items that are among the candidates, at drawn places, between items
    that the policy itself would draw there (Gumbel top-k, Kool et al. 2019). Engaged and other items come from one pool, or the pair would
    only tell what a pool is like; `drawn` says how likely the draw takes each of them, so that a fit can tell what is wanted from how pages
    were put together. `flat` draws evenly from the pool instead. A context without a target in its pool has no engaged slot.
    """
    log = contexts.log
    items = np.full((len(contexts), slots), NO_ITEM, np.int32)
    source = np.full((len(contexts), slots), -1, np.int64)
    key = _keys(contexts, np.full(len(contexts), -2, np.int64), seed)  # other draws than those of the families
    value, drawn = event_gain(log), np.zeros(items.shape, np.float32)
    worth = np.where(pool == NO_ITEM, -np.inf, 0).astype(np.float32) if flat else logits
    _fill_pages(log.item, value, contexts.stop, contexts.target_stop, pool, worth, key, items, source, drawn)
    engaged = source >= 0
    at = np.maximum(source, 0)
    real = items != NO_ITEM
    look = np.broadcast_to((1 / np.log2(np.arange(slots) + 2)).astype(np.float32), items.shape)
    return Situations(
        contexts,
        np.full(len(contexts), -1, np.int64),
        items,
        np.where(engaged, value[at], 0).astype(np.float32),
        np.where(engaged, log.event[at], 0).astype(np.int8),
        real.astype(np.float32),
        np.where(real, look, 0).astype(np.float32),
        np.zeros(items.shape, np.int16),
        np.broadcast_to(np.arange(slots, dtype=np.int16), items.shape).copy(),
        pool,
        logits,
        drawn,
    )


def event_gain(log: Interactions) -> F32:
    """[event] engagement: that of its kind, times the rating over 5 where there is one."""
    table = np.array([GAINS.get(kind, 0.0) for kind in Event], np.float32)
    rated = np.where(np.isnan(log.rating), 1.0, np.clip(log.rating / 5, 0, 1))
    return np.asarray(table[log.event] * rated, np.float32)


def logged_contexts(shown: Impressions, log: Interactions, pages: I64) -> Contexts:
    """The contexts in which these logged pages were shown."""
    return contexts_at(log, shown.user[pages], shown.time[pages])


def from_pages(
    shown: Impressions, contexts: Contexts, pages: I64, pool: I32, logits: F32, examination: Examination
) -> Situations:
    """Logged pages with the feedback on them. A clicked slot was seen; others as far as `viewed` tells, else by their place."""
    slot, inside = shown.slots_of(pages)
    event = np.zeros(slot.shape, np.int8)
    marks = ((shown.clicked, Event.SELECT_ITEM), (shown.carted, Event.ADD_TO_CART), (shown.purchased, Event.PURCHASE))
    for marked, kind in marks:  # the strongest comes last
        event[marked[slot] & inside] = kind
    gain = np.array([GAINS.get(kind, 0.0) if kind else 0.0 for kind in Event], np.float32)[event]
    row, col, viewed = (np.where(inside, column[slot], 0) for column in (shown.row, shown.col, shown.viewed))
    look = np.where(inside, examination.of(row, col), 0)
    seen = np.where((event > 0) | (viewed == 1), 1.0, np.where(viewed == 0, 0.0, look))
    items = np.where(inside, shown.item[slot], NO_ITEM).astype(np.int32)
    return Situations(
        contexts,
        pages,
        items,
        gain,
        event,
        seen.astype(np.float32),
        look.astype(np.float32),
        row.astype(np.int16),
        col.astype(np.int16),
        pool,
        logits,
        np.zeros(items.shape, np.float32),
    )


def channel_logits(evidence: Evidence, contexts: Contexts, pool: I32) -> F32:
    """What to think of candidates where there is no policy: log(1 + 1000 · co-occurrence) + log(1 + taken in 30 days); -inf for padding."""
    features = evidence.features(contexts, pool)
    logits = features[:, :, NAMES.index("pairs_cosine")] + features[:, :, NAMES.index("taken_30d")]
    return np.where(pool == NO_ITEM, -np.inf, logits).astype(np.float32)


def keys_of(situations: Situations, seed: int) -> np.ndarray:
    """[context] numbers that all draws of a context follow from: the user's id, the time and what stands on a logged page, so that they are
    the same whatever else the log holds and however it is cut."""
    shown = draw_lots(situations.items.astype(np.uint64), ends=np.uint64(2**64 - 1))  # NO_ITEM as an unsigned number
    return _keys(situations.contexts, np.where(situations.page >= 0, shown.view(np.int64), -1), seed)


def _keys(contexts: Contexts, page: I64, seed: int) -> np.ndarray:
    who = id_keys(contexts.log.user_ids[contexts.user])
    return draw_lots(
        np.stack((contexts.time.astype(np.uint64), who, page.astype(np.uint64), np.full(len(page), seed, np.uint64)), 1)
    )


@njit(cache=True)
def _bar(worth, wanted, order, free):  # type: ignore[no-untyped-def]
    """The draw of the first item that is not among the `free` best of those without engagement; -inf where all of them are drawn."""
    passed = 0
    for a in order:
        if worth[a] == -np.inf:
            break
        if wanted[a] < 0:
            if passed == free:
                return worth[a]
            passed += 1
    return -np.inf


@njit(cache=True)
def _log_chance(logit, bar):  # type: ignore[no-untyped-def]
    """Log of the chance that logit + Gumbel noise passes the bar, 1 - exp(-exp(logit - bar)) (Kool et al. 2019, eq. 8)."""
    return np.log(-np.expm1(-np.exp(min(logit - bar, 30.0)))) if bar > -np.inf else 0.0


@njit(cache=True)
def _fill_pages(item, value, stop, target_stop, pool, logits, key, items, source, drawn):  # type: ignore[no-untyped-def]
    slots = items.shape[1]
    for c in range(len(stop)):
        width = pool.shape[1]
        worth = np.full(width, -np.inf)
        wanted = np.full(width, -1, np.int64)  # [candidate] the event of the target basket that holds it
        n_wanted, room = 0, 0
        for a in range(width):
            if pool[c, a] < 0:
                continue
            room += 1
            for e in range(stop[c], target_stop[c]):
                if item[e] == pool[c, a] and value[e] > 0 and (wanted[a] < 0 or value[e] > value[wanted[a]]):
                    wanted[a] = e
            n_wanted += wanted[a] >= 0
            worth[a] = logits[c, a] - np.log(-np.log(chance(key[c], a)))
        size = min(slots, room)
        engaged = min(n_wanted, max(size // 2, 1))
        order = np.argsort(-worth)
        place = np.argsort(np.array([chance(key[c], _PLACES + s) for s in range(size)]))  # [slot] drawn order of the places
        bar = _bar(worth, wanted, order, size - engaged)
        taken, filled = 0, engaged
        for a in order:
            if worth[a] == -np.inf:
                break
            if wanted[a] >= 0 and taken < engaged:
                items[c, place[taken]], source[c, place[taken]] = pool[c, a], wanted[a]
                drawn[c, place[taken]] = _log_chance(logits[c, a], bar)
                taken += 1
            elif wanted[a] < 0 and filled < size:
                items[c, place[filled]] = pool[c, a]
                drawn[c, place[filled]] = _log_chance(logits[c, a], bar)
                filled += 1
        if filled < size:  # nothing but targets is left: the page ends early, without gaps
            n = 0
            for s in range(slots):
                if items[c, s] >= 0:
                    items[c, n], source[c, n], drawn[c, n] = items[c, s], source[c, s], drawn[c, s]
                    n += 1
            for s in range(n, slots):
                items[c, s], source[c, s], drawn[c, s] = -1, -1, 0.0
