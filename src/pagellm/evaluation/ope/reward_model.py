"""A small reward model for doubly robust estimates: what a slot earns is its place's rate times its item's factor.

Takes logged slots, gives rates and factors by fold of users, so that no page is predicted from feedback of its own user. It knows nothing
of who asks: an estimate that leans on it needs its propensities to be right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.types import F64, I32, I64, Bool

FOLDS = 5

PRIOR = 5.0
"""Rewards of an average item that each item is given beside its own: the Gamma prior of a Poisson rate."""


@dataclass(frozen=True)
class RewardModel:
    """Rates and factors, each fitted on the other folds' users."""

    fold: I64  # [page] the fold of the page's user
    rate: F64  # [fold, slot] mean reward of a slot
    factor: F64  # [fold, item] reward of the item over that of an average item in the same places


def fit_reward_model(rewards: F64, items: I32, real: Bool, unit: I64, catalog: int) -> RewardModel:
    """The model of logged slots. rewards, items, real: [page, slot]; unit: [page] users; `catalog` is the number of items.

    factor[i] = (PRIOR + Σ r over the slots with i) / (PRIOR + Σ rate of these slots), the posterior mean of a Gamma-Poisson model.
    """
    fold = np.random.default_rng(0).permutation(int(unit.max(initial=0)) + 1)[unit] % FOLDS
    rate, factor = np.empty((FOLDS, rewards.shape[1])), np.empty((FOLDS, catalog))
    for f in range(FOLDS):
        others = fold != f
        seen = real[others]
        rate[f] = np.where(seen, rewards[others], 0.0).sum(0) / np.maximum(seen.sum(0), 1)
        item, at = items[others][seen], np.nonzero(seen)[1]
        earned = np.bincount(item, np.maximum(rewards[others][seen], 0.0), minlength=catalog)
        factor[f] = (PRIOR + earned) / (PRIOR + np.bincount(item, rate[f][at].clip(0), minlength=catalog))
    return RewardModel(fold, rate, factor)
