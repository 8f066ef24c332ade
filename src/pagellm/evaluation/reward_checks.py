"""How good a reward is: accuracy on pairs of users it has not met, margins, laws that it must obey. With intervals over users.

Takes what rewards found of pages, gives figures. Knows no network and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagellm.evaluation.significance import RESAMPLES, interval, resampled_means
from pagellm.types import F64, I32

MARGIN_EDGES = tuple(k / 2 for k in range(-8, 9))
"""Between these a histogram of margins counts, in log-odds; what lies beyond them is counted in open groups at both ends."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval over users, and what it was counted over."""

    value: float
    low: float
    high: float
    count: int  # pairs or pages
    users: int

    def as_json(self) -> dict[str, Any]:
        """rate, ci95, n, users; None for a rate of nothing."""
        return {
            "rate": finite(self.value),
            "ci95": [finite(self.low), finite(self.high)],
            "n": self.count,
            "users": self.users,
        }


def finite(value: float) -> float | None:
    """The value in four decimals, None where it is no number."""
    return round(value, 4) if np.isfinite(value) else None


def rate(held: F64, user: I32, seed: int = 0) -> Rate:
    """Mean of values in [0, 1] over pairs, resampled by user: a user with many pairs is drawn with all of them. NaN without any.

    Raises ValueError where the two arrays differ in length.
    """
    if len(held) != len(user):
        raise ValueError(f"Each value needs its user. Got {len(held)} values and {len(user)} users.")
    if not len(held):
        return Rate(np.nan, np.nan, np.nan, 0, 0)
    who, inverse = np.unique(user, return_inverse=True)
    sums = np.stack([np.bincount(inverse, held), np.bincount(inverse).astype(np.float64)], 1)
    draws = resampled_means(sums, RESAMPLES, seed)
    low, high = interval((draws[:, 0] / draws[:, 1])[:, None])[:, 0]
    return Rate(float(held.mean()), float(low), float(high), len(held), len(who))


def told_apart(better: F64, worse: F64, within: float = 1e-7) -> F64:
    """[pair] 1 where the better page scores higher, .5 for a tie, 0 where it scores lower."""
    gap = better - worse
    return np.where(np.abs(gap) <= within, 0.5, (gap > 0).astype(np.float64))


@dataclass(frozen=True)
class PairAccuracy:
    """How well one kind of pair is told apart, by the reward and by the reference policy's log-probability alone."""

    kind: str  # name of the operator
    family: str
    reward: Rate  # by the family's own score
    whole: Rate  # by the whole page reward, of swaps by the item reward
    probe: Rate
    lead: Rate  # reward minus probe, paired

    def as_json(self) -> dict[str, object]:
        """All rates by name."""
        return {name: getattr(self, name).as_json() for name in ("reward", "whole", "probe", "lead")} | {"family": self.family}


@dataclass(frozen=True)
class Cases:
    """Pairs of one kind, scored. Scores are [pair, 2]: the better and the worse page."""

    kind: str
    family: str
    user: I32  # [pair]
    own: F64  # by the family's own score, of swaps by the item reward
    whole: F64  # by the whole page reward, of swaps by the item reward
    probe: F64  # log-probability under the reference policy

    @property
    def caught(self) -> F64:
        """[pair] 1 where the whole reward finds the better page, .5 for a tie."""
        return told_apart(self.whole[:, 0], self.whole[:, 1])


def pool_cases(parts: Sequence[Cases]) -> Cases:
    """The same kind from several seeds: a user keeps their pairs of all of them."""
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("user", "own", "whole", "probe"))
    return Cases(parts[0].kind, parts[0].family, *columns)


def pair_accuracy(cases: Cases, seed: int = 0) -> PairAccuracy:
    """Accuracy on one kind of pair."""
    own, whole, probe = (told_apart(scores[:, 0], scores[:, 1]) for scores in (cases.own, cases.whole, cases.probe))
    rates = (rate(held, cases.user, seed) for held in (own, whole, probe, own - probe))
    return PairAccuracy(cases.kind, cases.family, *rates)


def margins(cases: Sequence[Cases]) -> list[int]:
    """How many pairs are told apart by how much: score of the better page minus that of the worse, by the family's own score.

    One count between each two of MARGIN_EDGES and one beyond either end; a margin on an edge counts above it. Below 0 are the errors.
    """
    gaps = np.concatenate([c.own[:, 0] - c.own[:, 1] for c in cases])
    return [int(n) for n in np.bincount(np.searchsorted(MARGIN_EDGES, gaps, side="right"), minlength=len(MARGIN_EDGES) + 1)]


@dataclass(frozen=True)
class Law:
    """Something that a reward must obey, how often it does, and how often it must."""

    name: str
    says: str
    rate: Rate
    tolerance: float  # least rate with which the law holds

    @property
    def holds(self) -> bool:
        """Whether it does. It is broken when the whole interval lies below the tolerance, so that a few unlucky cases break nothing; a law
        without exceptions (tolerance 1) is broken by one. One that nothing could be counted for holds."""
        if self.rate.count == 0:
            return True
        return self.rate.value >= self.tolerance or (self.tolerance < 1 and self.rate.high >= self.tolerance)

    def as_json(self) -> dict[str, object]:
        """rate, ci95, n, users, tolerance, holds."""
        return self.rate.as_json() | {"tolerance": self.tolerance, "holds": self.holds, "says": self.says}
