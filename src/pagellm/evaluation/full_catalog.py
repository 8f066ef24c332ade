"""Ranking a whole catalog for many users and judging it in one pass: score, mask what was seen, top k, metrics, a batch at a time.

Takes a function that writes scores, what each user has seen, and targets; yields rankings and metrics of one batch after the other. One
matrix [batch, item] is held and used again, so memory follows the batch and never the number of users. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from pagellm.evaluation.metrics import CUTS, accuracy_of
from pagellm.evaluation.top_k import top_row
from pagellm.types import F32, F64, I32, I64

Score = Callable[[int, int, F32], None]
"""Writes the scores of users first..last into the array [user, item]. It may not keep the array."""

BATCH = 512


@dataclass(frozen=True)
class ItemLists:
    """A list of items for each user: those of user u are `items[offsets[u]:offsets[u + 1]]`."""

    offsets: I64  # [user + 1]
    items: I32

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Judged:
    """One batch of users."""

    first: int  # index of its first user
    ranked: I32  # [user, k] items best first, of equal scores the lower index; NO_ITEM once all unseen items stand
    values: F64  # [user, cut, measure] of `metrics.MEASURES`


def judge_full_catalog(
    score: Score, n_items: int, seen: ItemLists, targets: ItemLists, cuts: tuple[int, ...] = CUTS, batch: int = BATCH
) -> Iterator[Judged]:
    """Ranks all items for every user but those the user has seen, and judges the first `cuts[-1]` by the targets.

    Beyond what it yields it holds batch · n_items · 4 bytes. Raises ValueError where the lists are not of the same users or name items
    that there are not.
    """
    _check(seen, targets, n_items)
    room = np.empty((min(batch, len(seen)), n_items), np.float32)
    for first in range(0, len(seen), batch):
        last = min(first + batch, len(seen))
        scores = room[: last - first]
        score(first, last, scores)
        ranked = np.empty((last - first, cuts[-1]), np.int32)
        _mask_and_rank(scores, seen.items, seen.offsets[first : last + 1], ranked)
        at = targets.offsets[first : last + 1]
        mine = targets.items[at[0] : at[-1]]
        yield Judged(first, ranked, accuracy_of(ranked, mine, at[:-1] - at[0], at[1:] - at[0], cuts))


def factor_scores(users: F32, items: F32) -> Score:
    """Scores of a factor model, the inner products of `users` [user, dim] and `items` [item, dim]."""

    def score(first: int, last: int, out: F32) -> None:
        np.matmul(users[first:last], items.T, out=out)

    return score


def _check(seen: ItemLists, targets: ItemLists, n_items: int) -> None:
    if len(seen) != len(targets):
        raise ValueError(f"Seen items and targets must be of the same users. Got {len(seen):,} and {len(targets):,}.")
    for name, lists in (("Seen items", seen), ("Targets", targets)):
        if len(lists.items) and not 0 <= int(lists.items.min()) <= int(lists.items.max()) < n_items:
            raise ValueError(
                f"{name} must lie in the catalog of {n_items:,} items. Got {lists.items.min()} to {lists.items.max()}."
            )


@njit(cache=True)
def _mask_and_rank(scores, items, offsets, out):  # type: ignore[no-untyped-def]
    keys, places = np.empty(out.shape[1], np.float32), np.empty(out.shape[1], np.int64)
    found = np.empty(scores.shape[1], np.int32)
    for u in range(len(out)):
        for e in range(offsets[u], offsets[u + 1]):
            scores[u, items[e]] = np.nan
        top_row(scores[u], out[u], keys, places, found)
