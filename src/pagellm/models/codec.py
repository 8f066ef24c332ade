"""From a context to the tokens of its prompt. Takes contexts, gives integer arrays; knows no vectors, no torch.

A prompt reads `ASK(gap) item item ASK(gap) item … ASK(gap)`. ASK opens a basket: it carries the time since the basket before, and the
hidden vector that stands there is what the next basket is predicted from. The last ASK is the present, so a prompt without history is
one token long, and a history is read once for all of its baskets while training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pagellm.types import DAY, I32, I64, Bool, Contexts, Interactions

ASK = -1
"""Stands for the ASK token in `Prompts.items`."""

GAPS = 16
"""Buckets of the time since the basket before: 0 unknown, 1 under a day, then one a doubling of days."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Token arrays of many contexts, padded on the right with ASK tokens that nothing reads."""

    items: I64  # [context, token] catalog index, ASK elsewhere
    codes: I64  # [context, token] event code of an item token, gap bucket of an ASK token
    lengths: I64  # [context]
    places: I64  # [ask] row-major place of every ASK token that opens a basket of the log
    begin: I64  # [ask] first event of that basket
    end: I64  # [ask] one past its last event


def gap_bucket(seconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of a time since the basket before."""
    days = np.maximum(seconds, 0) / DAY
    return np.where(days < 1, 1, 2 + np.minimum(np.floor(np.log2(np.maximum(days, 1))), GAPS - 3)).astype(np.int64)


def encode(contexts: Contexts, max_history: int, item: I32 | None = None, event: NDArray[np.int8] | None = None) -> Prompts:
    """The prompts of these contexts, from the newest `max_history` events of each. A pass over each event, no copy of the log.

    `item` and `event` [event] replace the log's own, for training on baskets in another order. The last ASK opens the target basket.
    """
    log = contexts.log
    item = log.item if item is None else item
    event = log.event if event is None else event
    first = np.maximum(contexts.start, contexts.stop - max_history)
    baskets = _count_baskets(log.basket, first, contexts.stop)
    lengths = contexts.stop - first + baskets + 1
    width = int(lengths.max(initial=1))
    items = np.full((len(contexts), width), ASK, np.int64)
    codes = np.zeros((len(contexts), width), np.int64)
    asks = int((baskets + 1).sum())
    places, begin, end = (np.empty(asks, np.int64) for _ in range(3))
    _fill(item, event, log.basket, log.user, log.time, contexts.user, contexts.time, first, contexts.stop, contexts.target_stop,
          items, codes, places, begin, end)  # fmt: skip
    return Prompts(items, np.where(items == ASK, _bucket(codes, items), codes), lengths, places, begin, end)


def reading_spans(log: Interactions, known: Bool, max_history: int) -> Contexts:
    """Histories to train on: every known event in one span of at most `max_history` events, whole baskets together where they fit.

    Each span is a context whose target is its own last basket; with the ASK tokens before it, every basket of the span is a target once.
    """
    events = log.where(known)
    start, last, stop = _spans(events.user, events.basket, max_history)
    user = events.user[start] if len(start) else np.empty(0, np.int32)
    return Contexts(events, start, last, stop, user, events.time[last] if len(last) else np.empty(0, np.int64))


def shuffled_baskets(log: Interactions, rng: np.random.Generator) -> I64:
    """A permutation of the events that mixes each basket and nothing else: order inside a basket means nothing."""
    return np.lexsort((rng.random(len(log)), log.basket, log.user))


def _bucket(seconds: I64, items: I64) -> I64:
    asked = items == ASK
    return np.where(asked & (seconds < 0), 0, gap_bucket(seconds))


@njit(cache=True)
def _count_baskets(basket: I32, first: I64, stop: I64) -> I64:
    out = np.zeros(len(first), np.int64)
    for c in range(len(first)):
        for e in range(first[c], stop[c]):
            if e == first[c] or basket[e] != basket[e - 1]:
                out[c] += 1
    return out


@njit(cache=True)
def _fill(item, event, basket, user, time, who, moment, first, stop, target_stop, items, codes, places, begin, end):  # type: ignore[no-untyped-def]
    ask, width = 0, items.shape[1]
    for c in range(len(first)):
        t, e = 0, first[c]
        while e <= stop[c]:
            upto = e
            while upto < stop[c] and basket[upto] == basket[e]:
                upto += 1
            now = e == stop[c]
            at = moment[c] if now else time[e]
            known = e > 0 and e - 1 < len(user) and user[e - 1] == who[c]
            codes[c, t] = max(at - time[e - 1], 0) if known else -1
            places[ask], begin[ask] = c * width + t, e
            end[ask] = target_stop[c] if now else upto
            ask, t = ask + 1, t + 1
            if now:
                break
            for k in range(e, upto):
                items[c, t], codes[c, t] = item[k], event[k]
                t += 1
            e = upto


@njit(cache=True)
def _spans(user: I32, basket: I32, longest: int) -> tuple[I64, I64, I64]:
    start, last, stop = np.empty(len(user), np.int64), np.empty(len(user), np.int64), np.empty(len(user), np.int64)
    n, begin = 0, 0
    while begin < len(user):
        e, opened = begin, begin
        while e < len(user) and user[e] == user[begin]:
            upto = e
            while upto < len(user) and user[upto] == user[e] and basket[upto] == basket[e]:
                upto += 1
            if upto - begin > longest and e > begin:
                break
            opened, e = e, upto
        start[n], last[n], stop[n] = begin, opened, e
        n += 1
        begin = e
    return start[:n], last[:n], stop[:n]
