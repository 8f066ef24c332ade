"""A logging policy as a `PagePolicy`: pages in, pages out. Takes a world and a policy's name; knows no feedback."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.errors import UsageError
from pagellm.simulation.batches import compose_pages, score_pages
from pagellm.simulation.choosing import PolicyTable
from pagellm.simulation.demo_layout import row_ids
from pagellm.simulation.logging_policies import POLICIES
from pagellm.simulation.world import World
from pagellm.types import F64, I32, I64, NO_ITEM, Context, Page, Slot


@dataclass(frozen=True)
class LoggedBy:
    """One logging policy of a world. A context's user is an id of the log, such as u000042."""

    world: World
    table: PolicyTable

    @classmethod
    def named(cls, world: World, name: str) -> LoggedBy:
        """The policy of this name. Raises UsageError if the world has none."""
        names = [p.name for p in POLICIES]
        if name not in names:
            raise UsageError(f"Logging policy {name!r} is not known. Use one of: {', '.join(names)}.")
        return cls(world, world.tables[names.index(name)])

    def compose(self, context: Context, rng: np.random.Generator) -> Page:
        """Draws one page for the context."""
        items = self.draw(*self._who(context), np.array([rng.integers(2**62)]))
        chances = self.propensities(items, *self._who(context))[0]
        row, col = np.divmod(np.arange(items.shape[1]), self.world.spec.cols)
        with np.errstate(divide="ignore"):
            slots = [
                Slot(int(r), int(c), int(item), logprob=float(np.log(chance)))
                for r, c, item, chance in zip(row, col, items[0], chances, strict=True)
            ]
        notes = ("fewer items may be shown than the page has slots",) if NO_ITEM in items else ()
        return Page("home", tuple(row_ids(self.world.spec)), tuple(slots), notes)

    def log_prob(self, context: Context, page: Page) -> F64:
        """Log-probability of each slot given the slots before it; -inf for what the policy never does. Shape [slot]."""
        items = np.array([[s.item for s in page.slots]], np.int32)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.propensities(items, *self._who(context))[0]), np.float64)

    def draw(self, user: I32, time: I64, visit: I64) -> I32:
        """Pages [page, slot] for these visits; equal visits give equal pages."""
        items = np.empty((len(user), self.world.spec.slots), np.int32)
        world = self.world
        compose_pages(world.clock, world.spec.behavior, world.shop.share, self.table, user, time, visit, items)
        return items

    def propensities(self, items: I32, user: I32, time: I64) -> F64:
        """Chance of each slot's item given the slots before it, for pages [page, slot]."""
        out = np.empty(items.shape)
        world = self.world
        score_pages(world.clock, world.spec.behavior, world.shop.share, self.table, user, time, items, out)
        return out

    def _who(self, context: Context) -> tuple[I32, I64]:
        if context.user is None or not context.user[1:].isdecimal():
            raise UsageError(f"A logging policy needs a user of its world, such as u000042. Got {context.user!r}.")
        return np.array([int(context.user[1:])], np.int32), np.array([context.time], np.int64)
