"""What users really did next, as a reward of pages: nothing is learned in it, so it cannot be fooled, only be rare.

Takes pages for contexts with a next basket, gives numbers a slot. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.data.look import Look
from pagellm.types import F32, F64, NO_ITEM, Contexts, PageBatch


def look_ndcg(pages: PageBatch, look: Look) -> F64:
    """[page, slot] look of slots that hold an item of the next basket, over the largest sum that a page could have.

    Its sum with look = 1 / log2(place + 2) is NDCG over the page (Järvelin and Kekäläinen 2002); with a learned look it is row-aware.
    An item that stands twice hits once; a page without a next basket has zeros.
    """
    seen, best = (look.of(items, pages.row, pages.col).astype(np.float64) for items in (pages.items, np.zeros_like(pages.items)))
    ideal = np.sort(best, axis=1)[:, ::-1].cumsum(1)
    wanted = wanted_items(pages.contexts)[pages.place]
    most = ideal[np.arange(len(pages)), np.clip(wanted, 1, ideal.shape[1]) - 1]
    return np.asarray(seen * hits_on(pages) / most[:, None], np.float64)


def hits_on(pages: PageBatch) -> np.ndarray:
    """[page, slot] True at the first slot that holds an item of the context's next basket."""
    out = np.zeros(pages.items.shape, bool)
    for page, place in enumerate(pages.place):
        items = pages.items[page]
        first = np.zeros(len(items), bool)
        first[np.unique(items, return_index=True)[1]] = True
        out[page] = np.isin(items, pages.contexts.target(int(place))) & first & (items != NO_ITEM)
    return out


def wanted_items(contexts: Contexts) -> np.ndarray:
    """[context] different items of the next basket."""
    return np.array([len(np.unique(contexts.target(c))) for c in range(len(contexts))], np.int64)


@dataclass(frozen=True)
class LaterFeedback:
    """`look_ndcg` as a reward, at the slots of its hits."""

    look: Look

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page, slot]."""
        return look_ndcg(pages, self.look).astype(np.float32)
