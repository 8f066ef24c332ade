"""A reward of pages as a reward of texts, in the signature that TRL's trainers call their `reward_funcs` with.

Takes completions that list titles, one a line, as `pagellm pairs export` writes pages; gives one number a completion. Knows no trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pagellm.catalog import Catalog
from pagellm.errors import DataError
from pagellm.types import NO_ITEM, Contexts, PageBatch, PageReward

_BULLET = "- "


class TextReward:
    """Scores generated page texts: `reward_funcs=[TextReward(reward, catalog, contexts)]`.

    The data set needs a column `context`: the index of each prompt's context in `contexts`. A completion whose lines are not all titles of
    items that may be shown is no page and gets None, which TRL takes as "does not apply". Items that share a title count as the first.
    """

    def __init__(
        self, reward: PageReward, catalog: Catalog, contexts: Contexts, columns: int | None = None, name: str = "pagellm_reward"
    ) -> None:
        """`columns` of the page's rows; None reads a completion as one row."""
        self.__name__ = name  # trainers log under it
        self._reward, self._contexts = reward, contexts
        self._places: dict[str, int] = {}
        self._columns, shown = columns, catalog.shown
        for place, title in enumerate(catalog.titles):
            if shown[place]:
                self._places.setdefault(title.strip(), place)  # a title that was cut may end in a space

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], context: Sequence[int], **columns: Any
    ) -> list[float | None]:
        """One number a completion: the page reward, or the sum over slots of a reward that is given by slot."""
        pages = [self._page(text) for text in completions]
        real = [p for p, page in enumerate(pages) if page]
        out: list[float | None] = [None] * len(pages)
        if not real:
            return out
        items = np.full((len(real), max(len(pages[p]) for p in real)), NO_ITEM, np.int32)
        for at, p in enumerate(real):
            items[at, : len(pages[p])] = pages[p]
        order = np.tile(np.arange(items.shape[1], dtype=np.int16), (len(real), 1))
        row, col = np.divmod(order, self._columns or items.shape[1])
        place = np.array([self._place(context[p]) for p in real], np.int64)
        scores = self._reward(PageBatch(self._contexts, place, items, row, col))
        for p, score in zip(real, scores if scores.ndim == 1 else scores.sum(1), strict=True):
            out[p] = float(score)
        return out

    def _page(self, completion: Any) -> list[int]:
        """Items of a completion, plain or in chat form; empty where it is no page of this catalog."""
        text = completion if isinstance(completion, str) else "".join(str(message["content"]) for message in completion)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        titles = ["" if line == _BULLET.strip() else line.removeprefix(_BULLET).strip() for line in lines]
        items = [self._places.get(title, NO_ITEM) for title in titles]
        return [] if NO_ITEM in items else items

    def _place(self, context: int) -> int:
        """The context's place. Raises DataError for one that is not there: a negative one would be another's."""
        if not 0 <= int(context) < len(self._contexts):
            raise DataError(
                f"The column context must hold places in the {len(self._contexts):,} contexts, from 0. Got {int(context)}."
            )
        return int(context)
