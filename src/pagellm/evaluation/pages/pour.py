"""A ranking poured into a layout: the page that a method without pages would serve. Takes rankings and compiled rules, gives pages.

Slots are filled in reading order, each with the best item of the ranking that may stand there; where the layout lets rows be chosen they
stand in the order of the file. Boosts are additions to scores, and a ranking has none, so they count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.masks import PageMasks
from pagellm.types import I32, I64, NO_ITEM, Bool, Context, Contexts, Page

_BATCH = 256  # pages that are poured at once


class Ranks(Protocol):
    """What orders items for contexts; see `protocol.Ranker`."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    def rank(self, contexts: Contexts, k: int) -> I32:
        """[context, k] catalog indexes, best first."""
        ...


@dataclass(frozen=True)
class Poured:
    """A ranker as a method whose pages are judged."""

    ranker: Ranks
    rules: CompiledLayout

    @property
    def name(self) -> str:
        """That of the ranker."""
        return self.ranker.name

    def pages(self, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        """(a page a context, [context, candidate] the ranking that it was poured from, pinned items at its end)."""
        return self._poured(self.rules, contexts, asked)

    def unruled(self, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        """The head of the ranking in reading order, whatever the rules say."""
        return self._poured(self.rules.without_rules(), contexts, asked)

    def _poured(self, rules: CompiledLayout, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        ranked = self.ranker.rank(contexts, depth(rules))
        missing = [np.where((ranked == item).any(1), NO_ITEM, item).astype(np.int32) for item in rules.required_items]
        pool = np.concatenate([ranked, *(column[:, None] for column in missing)], axis=1)
        return pour(rules, pool, asked), pool


def depth(rules: CompiledLayout) -> int:
    """How many ranked items a page is poured from."""
    return 4 * rules.places + 100


def pour(rules: CompiledLayout, pool: I32, asked: Sequence[Context]) -> list[Page]:
    """One page for each row of `pool` [page, candidate], best first, NO_ITEM pads; `asked` [page] says what its user was shown."""
    pages: list[Page] = []
    for begin in range(0, len(pool), _BATCH):
        part, who = pool[begin : begin + _BATCH], asked[begin : begin + _BATCH]
        masks = PageMasks(rules, part, None, _shown(rules, part, who))
        while not masks.done.all():
            if masks.between.any():
                masks.place_row(_first(masks.rows_allowed()))
            masks.place(_first(masks.allowed()))
        pages += masks.pages()
    return pages


def _shown(rules: CompiledLayout, pool: I32, asked: Sequence[Context]) -> I32 | None:
    """[page, candidate] how often the page's user was shown the item lately; None where no rule asks."""
    if rules.frequency is None:
        return None
    return np.stack([(row[:, None] == page.shown).sum(1) for row, page in zip(pool, asked, strict=True)]).astype(np.int32)


def _first(allowed: Bool) -> I64:
    """[page] the first that is allowed, -1 without any."""
    return np.where(allowed.any(1), allowed.argmax(1), -1).astype(np.int64)
