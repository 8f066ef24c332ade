"""A simulated log: visits lived through by users under logging policies. Takes a world, gives arrays; knows no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagellm.simulation.batches import in_chunks, live
from pagellm.simulation.logging_policies import mixture
from pagellm.simulation.visits import Visits, make_visits
from pagellm.simulation.world import MEMORY, Feedback, World
from pagellm.types import F32, I8, I32


@dataclass(frozen=True, slots=True)
class ShopLog:
    """Pages in order of time, with what happened on them."""

    visits: Visits
    policy: I8  # [page] place in POLICIES
    items: I32  # [page, slot]
    propensity: F32  # [page, slot] given the slots before
    outcome: NDArray[np.uint8]  # [page, slot] feedback bits
    owned: I32  # [page, memory] groups that the user had bought lately, ended by -1

    @property
    def feedback(self) -> Feedback:
        """The outcome as named arrays."""
        return Feedback(self.outcome)


def simulate_log(world: World, policies: str = "mixed", *, chunk: int = 512, threads: int = 1) -> ShopLog:
    """Lives through all visits of the world. `chunk` is in users; neither it nor `threads` changes the result."""
    visits = make_visits(world.spec, world.seed)
    shares = mixture(policies)
    order = np.lexsort((np.arange(len(visits)), visits.user))  # by user, then by time
    user, time = visits.user[order], visits.time[order]
    people, first = np.unique(user, return_index=True)
    first = np.append(first, len(user)).astype(np.int64)
    shape = (len(user), world.spec.slots)
    items, propensity, outcome = np.empty(shape, np.int32), np.empty(shape, np.float32), np.empty(shape, np.uint8)
    owned, policy = np.empty((len(user), MEMORY), np.int32), np.empty(len(user), np.int8)

    def work(part: slice) -> None:
        live(
            world.clock, world.spec.behavior, world.gazes, world.spec.attention.mobile_share,
            world.shop.traits, world.shop.appeal, world.shop.share, world.row,
            world.tables, shares, user, time, order, first[part.start : part.stop + 1],
            owned, policy, items, propensity, outcome,
        )  # fmt: skip

    in_chunks(len(people), chunk, threads, work)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return ShopLog(visits, policy[back], items[back], propensity[back], outcome[back], owned[back])
