"""Whether a log can say anything about a policy: effective sample size, support, and the reasons to refuse. Knows no estimator.

All figures are of importance weights, which average 1 where the log may show all that the evaluation policy shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pagellm.evaluation.ope.records import Logged
from pagellm.types import F64, Bool

LEAST_ESS = 100.0
"""Effective sample size below which nothing is said: the relative error of a mean weight is then above a tenth."""

LEAST_SUPPORT = 0.8
"""Mean weight below which nothing is said: a fifth of what the evaluation policy shows would be left to guessing."""

CERTAIN = 1 - 1e-6
"""A propensity from which on a choice counts as no choice; float32 logs round."""


@dataclass(frozen=True)
class Refusal:
    """Why a log says nothing."""

    code: str  # deterministic, propensities_missing, no_support, ess, wrong_propensities, single_slots, no_reward_model
    words: str

    @property
    def verdict(self) -> str:
        """The whole sentence."""
        return f"cannot be judged from this log: {self.words}"


@dataclass(frozen=True)
class Overlap:
    """How well the log covers the evaluation policy, by weights [page, column]; the columns are slots, or one for whole pages."""

    ess: float  # of the column that has least
    ess_by_column: F64  # [column]
    max_weight: float
    support: float  # mean weight of the column that has least
    support_by_column: F64  # [column]
    weighted: float  # share of the logged slots (or pages) that the evaluation policy might have written itself

    def as_json(self) -> dict[str, Any]:
        """ess, max_weight, support, weighted."""
        return {"ess": self.ess, "max_weight": self.max_weight, "support": self.support, "weighted": self.weighted}


def effective_sample_size(weights: F64) -> float:
    """(Σ w)² / Σ w² (Kish 1965): so many pages of the evaluation policy itself would say as much. 0 without weight."""
    square = float((weights**2).sum())
    return float(weights.sum()) ** 2 / square if square > 0 else 0.0


def overlap(weights: F64, real: Bool) -> Overlap:
    """Of weights [page, column] where `real`; columns without a real entry are left out."""
    kept = [weights[there, column] for column, there in enumerate(real.T) if there.any()]
    if not kept:
        return Overlap(0.0, np.zeros(0), 0.0, 0.0, np.zeros(0), 0.0)
    ess = np.array([effective_sample_size(w) for w in kept])
    mean = np.array([w.mean() for w in kept])
    every = np.concatenate(kept)
    return Overlap(float(ess.min()), ess, float(every.max()), float(mean.min()), mean, float((every > 0).mean()))


def log_refusal(logged: Logged) -> Refusal | None:
    """What forbids every estimate from this log, whatever the evaluation policy; None where nothing does."""
    logging = logged.logging[logged.real]
    if not len(logging):
        return Refusal("no_support", "it holds no slot to be judged")
    unknown = int(np.isnan(logging).sum())
    if unknown:
        return Refusal(
            "propensities_missing",
            f"{unknown:,} of {len(logging):,} slots have no propensity. Log them, or have them estimated (--estimate-propensities)",
        )
    if (logging >= CERTAIN).all():
        return Refusal(
            "deterministic",
            "the logging policy is deterministic (every propensity is 1), so it never shows what another policy would. "
            "Let a share of the pages explore",
        )
    return None


def weight_refusal(found: Overlap, pages: int) -> Refusal | None:
    """What forbids an estimate with these weights; None where nothing does."""
    if found.max_weight <= 0:
        return Refusal(
            "no_support", f"of {pages:,} logged pages the evaluation policy would have written none: no common support"
        )
    if found.ess < LEAST_ESS:
        return Refusal(
            "ess",
            f"the effective sample size is {found.ess:,.1f} of {pages:,}, below {LEAST_ESS:g}: a few pages with weights up to "
            f"{found.max_weight:,.3g} would decide",
        )
    if found.support < LEAST_SUPPORT:
        return Refusal(
            "no_support",
            f"only {found.support:.0%} of what the evaluation policy shows could be in this log (mean weight, 100 % is due): "
            "no common support",
        )
    high = found.support_by_column.max()
    if high > 2 - LEAST_SUPPORT + 2 / np.sqrt(found.ess):
        return Refusal(
            "wrong_propensities",
            f"weights average {high:.2f} where 1 is due: pages were not drawn with the propensities that the log gives",
        )
    return None
