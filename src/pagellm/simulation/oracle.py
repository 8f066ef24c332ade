"""Pages by somebody who knows the truth: the best page, and what simpler rules reach with the same knowledge.

Takes a world, one context and candidates; gives pages [slot] of item indexes. For measuring regret; no policy may use it.
"""

from __future__ import annotations

from itertools import islice, permutations
from math import perm

import numpy as np

from pagellm.errors import UsageError
from pagellm.simulation.world import World
from pagellm.types import F64, I32

MOST_PAGES = 2_000_000
"""Pages that brute force tries; beyond it the answer would take minutes."""


def values(world: World, pages: I32, user: int, time: int, metric: str = "clicks", row: I32 | None = None) -> F64:
    """[page] exact value of pages [page, slot] for one context."""
    count = len(pages)
    return world.expected(pages, np.full(count, user, np.int32), np.full(count, time, np.int64), row=row).total(metric)


def best_page(
    world: World, user: int, time: int, candidates: I32, slots: int, metric: str = "clicks", row: I32 | None = None
) -> tuple[I32, float]:
    """The ordered page [slot] of highest expected value, by trying every one, with its value.

    `row` [slot] is the page's shape, one row by default. Raises UsageError beyond MOST_PAGES ordered pages.
    """
    count = perm(len(candidates), slots)
    if not 1 <= count <= MOST_PAGES:
        raise UsageError(
            f"{slots} slots of {len(candidates)} candidates make {count:,} ordered pages; brute force tries 1 to {MOST_PAGES:,}. "
            "Take fewer candidates or slots."
        )
    shape = np.zeros(slots, np.int32) if row is None else row
    every = permutations(candidates.tolist(), slots)
    best, highest = np.empty(0, np.int32), -np.inf
    while block := list(islice(every, 50_000)):
        pages = np.array(block, np.int32)
        value = values(world, pages, user, time, metric, shape)
        if value.max() > highest:
            best, highest = pages[value.argmax()], float(value.max())
    return best, highest


def relevance_page(world: World, user: int, time: int, candidates: I32, slots: int, metric: str = "clicks") -> I32:
    """The items of highest value alone, best first [slot]: perfect knowledge of relevance, none of the page."""
    return candidates[np.argsort(-_alone(world, user, time, candidates, metric), kind="stable")[:slots]]


def greedy_page(world: World, user: int, time: int, candidates: I32, slots: int, metric: str = "clicks") -> I32:
    """Slot by slot the item of highest value given the items before it [slot]: page-aware, but it never looks ahead."""
    b, traits = world.spec.behavior, world.shop.traits
    worth = _alone(world, user, time, candidates, metric)
    group, theme = traits["group"][candidates], traits["theme"][candidates]
    again = b.duplicate if metric in ("clicks", "carts") else b.duplicate * b.duplicate_buy
    chosen = np.empty(slots, np.intp)
    for s in range(slots):
        chosen[s] = worth.argmax()
        near = group == group[chosen[s]]
        worth = worth * np.where(near, again, np.where(theme == theme[chosen[s]], b.satiation, 1.0))
        worth[chosen[: s + 1]] = -1.0
    return candidates[chosen]


def mmr_page(world: World, user: int, time: int, candidates: I32, slots: int, weight: float, metric: str = "clicks") -> I32:
    """Maximal marginal relevance [slot]: weight x relevance - (1 - weight) x likeness to the most alike item before.

    Carbonell and Goldstein, SIGIR 1998. Relevance is the true one, scaled to at most 1; likeness is 1 for near-duplicates and
    .5 within a theme, so this rule knows the true structure too.
    """
    traits = world.shop.traits
    worth = _alone(world, user, time, candidates, metric)
    worth = worth / worth.max()
    group, theme = traits["group"][candidates], traits["theme"][candidates]
    likeness = np.zeros(len(candidates))
    chosen = np.empty(slots, np.intp)
    for s in range(slots):
        score = weight * worth - (1.0 - weight) * likeness
        score[chosen[:s]] = -np.inf
        chosen[s] = score.argmax()
        near = group == group[chosen[s]]
        likeness = np.maximum(likeness, np.where(near, 1.0, np.where(theme == theme[chosen[s]], 0.5, 0.0)))
    return candidates[chosen]


def _alone(world: World, user: int, time: int, candidates: I32, metric: str) -> F64:
    who, when = np.array([user], np.int32), np.array([time], np.int64)
    return np.asarray(world.relevance(who, when, candidates[None, :], metric)[0])
