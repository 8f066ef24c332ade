"""A ranker as a `PagePolicy`: its order for one context, slot by slot, in one row. Takes any ranker; knows no layout with rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.data.contexts import contexts_of
from pagellm.evaluation.protocol import Ranker
from pagellm.layout.spec import Layout
from pagellm.types import F64, I32, NO_ITEM, Context, Page, Slot


@dataclass(frozen=True)
class RankedPages:
    """The page of a ranker's best items: a distribution that has all its weight on one page."""

    ranker: Ranker
    slots: int = 10

    def compose(self, context: Context, rng: np.random.Generator) -> Page:
        """The one page; nothing is drawn. A slot is empty where the ranking ends."""
        items = self._order(context)[: self.slots]
        layout = Layout.single_row(self.slots)
        filled = np.concatenate([items, np.full(self.slots - len(items), NO_ITEM, np.int32)])
        slots = tuple(Slot(0, col, int(item), logprob=0.0) for col, item in enumerate(filled))
        return Page(layout.id, (layout.rows[0].id,), slots)

    def log_prob(self, context: Context, page: Page) -> F64:
        """0 for a slot that holds the best item which does not stand before it, -inf for any other. Shape [slot]."""
        left = self._order(context).tolist()
        out = np.full(len(page.slots), -np.inf)
        for place, slot in enumerate(page.slots):
            if slot.item == (left[0] if left else NO_ITEM):
                out[place] = 0.0
            if slot.item in left:
                left.remove(slot.item)
        return out

    def _order(self, context: Context) -> I32:
        """Twice as many items as slots: a page that differs in every slot leaves enough."""
        ranked: I32 = self.ranker.rank(contexts_of([context]), 2 * self.slots)[0]
        filled: I32 = ranked[ranked != NO_ITEM]
        return filled
