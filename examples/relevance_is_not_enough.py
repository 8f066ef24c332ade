"""A page of the most relevant items against a page where each item is chosen for what it adds, in a shop whose truth is known.

The simulated shop knows the exact expected clicks of any page. Items that are best alone resemble each other, so the second of two
look-alikes adds little, and a page ordered by relevance leaves clicks behind. Run: `python examples/relevance_is_not_enough.py`
"""

from __future__ import annotations

import numpy as np

from pagellm.simulation.world import World
from pagellm.types import NO_ITEM

POOL = 60  # the most relevant items, from which both pages are made


def grow(world: World, user: int, time: int, pool: np.ndarray, slots: int) -> np.ndarray:
    """A page [slot] that takes, slot by slot, the item of the pool with the highest expected clicks of the page so far."""
    page = np.full(slots, NO_ITEM, np.int32)
    for slot in range(slots):
        left = np.setdiff1d(pool, page)
        tries = np.repeat(page[None], len(left), axis=0)  # [try, slot]
        tries[:, slot] = left
        clicks = world.expected(tries, np.full(len(left), user, np.int32), np.full(len(left), time)).clicks
        page[slot] = left[clicks.argmax()]
    return page


def main(users: int = 10, seed: int = 7) -> tuple[float, float]:
    """Mean expected clicks of the two pages over users: ordered by relevance, grown one by one."""
    world = World.make("tiny", seed)
    time = world.spec.start + 30 * 86_400
    pool = world.candidates(time)
    totals = np.zeros((users, 2))
    for user in range(users):
        who, when = np.array([user], np.int32), np.array([time])
        relevance = world.relevance(who, when, pool[None])[0]
        best = pool[np.argsort(-relevance, kind="stable")[:POOL]]
        pages = np.stack([best[: len(world.row)], grow(world, user, time, best, len(world.row))])
        totals[user] = world.expected(pages, np.repeat(who, 2), np.repeat(when, 2)).clicks
    by_relevance, grown = totals.mean(axis=0)
    print(f"expected clicks a page, {users} users: by relevance {by_relevance:.3f}, chosen for what each item adds {grown:.3f}")
    print(f"the same items in reach, {grown / by_relevance - 1:+.1%} clicks")
    return float(by_relevance), float(grown)


if __name__ == "__main__":
    main()
