"""What every estimator reads: rewards of logged slots, and the chances with which both policies fill them. Knows no policy and no file.

A slot that a page does not have holds reward 0, chances 1 and predictions 0, so it changes no product and no sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pagellm.types import F64, I32, I64, Bool

ARRAYS = ("rewards", "logging", "given", "alone", "logging_alone", "due", "real")
"""Fields of `Logged` that are [page, slot]."""


@dataclass(frozen=True)
class Predicted:
    """What a reward model expects of slots. It may be wrong: estimators that use it stay right while the propensities are."""

    chosen: F64  # [page, slot] of the logged item
    given: F64  # [page, slot] on average over the evaluation policy's choice here, the logged slots before it standing
    alone: F64  # [page, slot] on average over the evaluation policy's own pages

    @property
    def to_go(self) -> tuple[F64, F64]:
        """(of the logged item and all that follows, of the evaluation policy's choice and all that follows), [page, slot] each.

        What follows are the evaluation policy's own pages: what the logged items before would change of it is left to the weights.
        """
        after = np.cumsum(self.alone[:, ::-1], 1)[:, ::-1] - self.alone
        return self.chosen + after, self.given + after


@dataclass(frozen=True)
class Logged:
    """Logged slots with the chances of both policies."""

    rewards: F64  # [page, slot]
    logging: (
        F64  # [page, slot] propensity: chance that the logging policy put the item here given the slots before, NaN if unknown
    )
    given: F64  # [page, slot] chance that the evaluation policy puts it here given the same slots before
    alone: F64  # [page, slot] chance that the item stands here on a page of the evaluation policy, whatever stands before
    logging_alone: F64  # [page, slot] the same of the logging policy, see `logging_alone`
    due: F64  # [page, slot] mean of alone / logging_alone over the logging policy's choices here, the logged slots before it standing
    real: Bool  # [page, slot] whether the page has the slot
    unit: I64  # [page] the user, from 0: whose pages are drawn together
    whole: bool = True  # False: single slots of pages that cannot be put together, one real slot a row
    predicted: Predicted | None = None
    estimated: bool = False  # whether the propensities were estimated from the log itself

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def units(self) -> int:
        """Users."""
        return len(np.unique(self.unit))

    def first(self, slots: int) -> Logged:
        """The first so many slots of each page: what they earn does not depend on later slots as long as people read downwards."""
        some = {name: getattr(self, name)[:, :slots] for name in ARRAYS}
        p = self.predicted
        cut = None if p is None else Predicted(p.chosen[:, :slots], p.given[:, :slots], p.alone[:, :slots])
        return replace(self, **some, predicted=cut)


def free_shares(items: I32, real: Bool, catalog: int) -> F64:
    """[slot, item] share of the logged pages, items [page, slot], on which each item does not stand before the slot."""
    placed = np.zeros((items.shape[1], catalog))
    for slot in range(1, items.shape[1]):
        there = real[:, slot - 1] & (items[:, slot - 1] >= 0)
        placed[slot] = placed[slot - 1] + np.bincount(items[there, slot - 1], minlength=catalog)
    return 1 - placed / max(len(items), 1)


@dataclass(frozen=True)
class Terms:
    """An estimate as a sum of ratios of means over pages, the form that all estimators here have."""

    numerator: F64  # [page, term]
    denominator: F64  # [page, term] ones where an estimator does not normalize itself

    @property
    def value(self) -> float:
        """The estimate; NaN where a denominator is 0."""
        over, under = self.numerator.sum(0), self.denominator.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return float((over / under).sum())

    @property
    def contributions(self) -> F64:
        """[page] what each page adds: their mean is the estimate, their spread its uncertainty (delta method)."""
        under = self.denominator.mean(0)
        ratio = self.numerator.mean(0) / under
        return np.asarray((self.numerator - ratio * self.denominator) @ (1 / under) + ratio.sum())
