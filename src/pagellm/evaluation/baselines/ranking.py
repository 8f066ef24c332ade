"""From scores to rankings: candidates only, nothing that the user has taken already, ties by a fixed order. Knows no method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from pagellm.evaluation.top_k import rise, sink, top_row
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Contexts, Interactions

_BATCH = 512


def rank_by_scores(
    scores: Callable[[Contexts], F32], contexts: Contexts, order: I32, k: int, repeats: bool = False, batch: int = _BATCH
) -> I32:
    """The k best items by the scores that the callable gives a batch of contexts. Shape [context, k].

    `scores` returns [context, item]; `order` [candidate] lists the items that may be ranked, and among equal scores the earlier
    one wins. Unless `repeats`, what a context's user has taken is left out.
    """
    ranked = np.full((len(contexts), k), NO_ITEM, np.int32)
    log = contexts.log
    for first in range(0, len(contexts), batch):
        part = contexts.take(np.arange(first, min(first + batch, len(contexts))))
        history = part.start, (part.start if repeats else part.stop)
        _top_k(scores(part), order, log.item, log.taken, *history, ranked[first : first + batch])
    return ranked


def popular_first(log: Interactions, known: Bool, candidates: Bool) -> I32:
    """[candidate] the candidates by number of known events, most first, then by index: the order among equal scores."""
    counts = np.bincount(log.item[known], minlength=len(candidates))
    allowed = np.flatnonzero(candidates)
    return allowed[np.argsort(-counts[allowed], kind="stable")].astype(np.int32)


def recency_weights(contexts: Contexts, n_items: int, decay: float) -> sparse.csr_array:
    """Histories as sparse rows [context, item]: an item weighs decay^b, b baskets back from the newest; several times, the sum.

    Order inside a basket means nothing, so its items weigh the same. A decay of 1 forgets nothing.
    """
    lengths = contexts.stop - contexts.start
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    events = np.repeat(contexts.start - offsets[:-1], lengths) + np.arange(offsets[-1])
    newest = contexts.log.basket[np.maximum(contexts.stop - 1, 0)]
    back = np.repeat(newest, lengths) - contexts.log.basket[events]
    weights = np.float32(decay) ** back.astype(np.float32)
    rows = sparse.csr_array((weights, contexts.log.item[events], offsets), shape=(len(contexts), n_items))
    rows.sum_duplicates()
    return rows


def taken(log: Interactions, known: Bool, n_items: int) -> sparse.csr_array:
    """Which user took which item, as ones. Shape [user, item]."""
    ones = np.ones(int(known.sum()), np.float32)
    matrix = sparse.coo_array((ones, (log.user[known], log.item[known])), shape=(log.users, n_items)).tocsr()
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True)
class KnownUsers:
    """The users that a method with a vector for each user was fitted on. Contexts name theirs by id, for they may stand on another log."""

    ids: NDArray[np.str_]  # [known user] rising

    def rows(self, contexts: Contexts) -> I64:
        """The place in `ids` of each context's user, -1 for one that the fit never saw. Shape [context]."""
        asked = contexts.log.user_ids[contexts.user]
        at = np.searchsorted(self.ids, asked)
        found = self.ids[np.minimum(at, max(len(self.ids) - 1, 0))] == asked if len(self.ids) else np.zeros(len(asked), bool)
        return np.where(found, at, -1).astype(np.int64)


def known_users(log: Interactions, known: Bool) -> tuple[KnownUsers, I64]:
    """The users of the `known` [event] events, and their indexes in the log in the same order."""
    users = np.unique(log.user[known]).astype(np.int64)
    users = users[np.argsort(log.user_ids[users], kind="stable")]
    return KnownUsers(log.user_ids[users]), users


@njit(cache=True)
def _top_k(scores, order, item, taken, start, stop, out):  # type: ignore[no-untyped-def]
    banned = np.zeros(scores.shape[1], np.int32)
    row = np.empty(len(order), np.float32)  # scores in the order among equals, NaN for what is left out
    keys, places, found = np.empty(out.shape[1], np.float32), np.empty(out.shape[1], np.int64), np.empty(len(order), np.int32)
    for c in range(len(out)):
        for e in range(start[c], stop[c]):
            if taken[e]:
                banned[item[e]] = c + 1
        for place in range(len(order)):
            i = order[place]
            row[place] = np.nan if banned[i] == c + 1 else scores[c, i]
        top_row(row, out[c], keys, places, found)
        for r in range(out.shape[1]):
            if out[c, r] >= 0:
                out[c, r] = order[out[c, r]]


@njit(cache=True)
def select(keys: F32, order: I32, banned: I32, mark: int, heap_key: F32, heap_place: I64, out: I32) -> None:
    """Writes the best items into `out`: largest key first, then earliest in `order`; items with `banned[i] == mark` are left out.

    A bounded heap with the worst kept item on top. `order` is read from its start: a later item with an equal key displaces none.
    """
    size = 0
    for place in range(len(order)):
        i = order[place]
        if banned[i] == mark or (size == len(out) and keys[i] <= heap_key[0]):
            continue
        if size < len(out):
            rise(heap_key, heap_place, size, keys[i], place)
            size += 1
        else:
            sink(heap_key, heap_place, size, keys[i], place)
    while size:
        size -= 1
        out[size] = order[heap_place[0]]
        sink(heap_key, heap_place, size, heap_key[size], heap_place[size])
