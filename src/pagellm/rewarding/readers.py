"""Readers of pages that stand between a reward and its own reader, to see what the reward makes of it.

Take a `PageReader`, are one. Know no reward and no law.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pagellm.models.page_inputs import PageReader
from pagellm.rewarding.trial import first_of_two
from pagellm.types import F32, I32, Contexts


@dataclass(frozen=True)
class SeesDouble(PageReader):
    """Evidence and content of an item are those of the first of its two twins; that they are two items it knows."""

    inner: PageReader

    @classmethod
    def of(cls, inner: PageReader) -> SeesDouble:
        """A reader that reads with this one."""
        same = first_of_two(np.arange(len(inner.allowed), dtype=np.int32))
        likeness = inner.likeness
        names = ("vectors", "titles", "groups", "themes", "brands")
        doubled = replace(likeness, **{name: getattr(likeness, name)[same] for name in names})
        return cls(inner.net, inner.evidence, doubled, inner.allowed, inner.max_history, inner)

    def features(self, contexts: Contexts, pool: I32) -> F32:
        """As `PageReader.features`."""
        return self.inner.features(contexts, first_of_two(pool))


@dataclass(frozen=True)
class Beside(PageReader):
    """Reads whatever it reads among other items, which come first, for every context in this order."""

    inner: PageReader
    others: I32  # [any]

    @classmethod
    def of(cls, inner: PageReader, others: I32) -> Beside:
        """A reader that reads with this one."""
        return cls(inner.net, inner.evidence, inner.likeness, inner.allowed, inner.max_history, inner, others)

    def features(self, contexts: Contexts, pool: I32) -> F32:
        """As `PageReader.features`."""
        others = np.broadcast_to(self.others, (len(contexts), len(self.others)))
        return self.inner.features(contexts, np.concatenate((others, pool), 1))[:, len(self.others) :]
