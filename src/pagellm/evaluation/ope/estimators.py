"""Off-policy estimators: one equation, one function, one paper. Arrays in, `Terms` out; knows no policy, no interval and no verdict.

R is the reward of a page, r_l of its slot l; a_l the item in it, a_<l the items before it, x the context; π the evaluation policy, π₀ the
logging policy; averages are over logged pages. Every equation holds where π₀ may show all that π shows and its propensities are right.
"""

from __future__ import annotations

import numpy as np

from pagellm.evaluation.ope.records import Terms
from pagellm.types import F64, Bool


def page_weights(given: F64, logging: F64) -> F64:
    """w = Π_l π(a_l | x, a_<l) / π₀(a_l | x, a_<l). Shape [page]."""
    return np.asarray(np.prod(given / logging, axis=1))


def prefix_weights(given: F64, logging: F64) -> F64:
    """w_l = Π_{k≤l} π(a_k | x, a_<k) / π₀(a_k | x, a_<k). Shape [page, slot]."""
    return np.asarray(np.cumprod(given / logging, axis=1))


def slot_weights(alone: F64, logging: F64) -> F64:
    """ρ_l = π(a_l in slot l | x) / π₀(a_l | x, a_<l). Shape [page, slot].

    Li et al. (2018) divide two marginal chances. Logs hold the logging policy's chance given the slots before. Dividing by that has the
    same mean, but for items that already stand on the logged page, which no slot after can show.
    """
    return alone / logging


def ips(rewards: F64, weights: F64) -> Terms:
    """Inverse propensity scoring: mean(w R) (Horvitz and Thompson 1952; of slates McInerney et al. 2020, equation 1).

    rewards, weights: [page]. Assumes nothing of how people read a page.
    """
    return _plain(weights * rewards)


def snips(rewards: F64, weights: F64) -> Terms:
    """Self-normalized inverse propensity scoring: Σ w R / Σ w (Swaminathan and Joachims 2015).

    rewards, weights: [page]. Assumes nothing of how people read a page; has a bias that vanishes with the number of pages.
    """
    return Terms((weights * rewards)[:, None], weights[:, None])


def iips(rewards: F64, weights: F64, real: Bool, whole: bool = True) -> Terms:
    """Slot-wise (independent) inverse propensity scoring: Σ_l mean(ρ_l r_l) (Li et al. 2018; McInerney et al. 2020, equation 2).

    rewards, weights, real: [page, slot]. Assumes that a slot's reward depends on its item and its place, not on the rest of the page. Where
    rows are single slots (`whole` False) each slot's mean is over the rows that have it.
    """
    return Terms(weights * rewards * real, np.ones(rewards.shape) if whole else real.astype(np.float64))


def sniips(rewards: F64, weights: F64, real: Bool, whole: bool = True) -> Terms:
    """Self-normalized slot-wise inverse propensity scoring: Σ_l share_l Σ ρ_l r_l / Σ ρ_l, share_l the share of pages with slot l.

    rewards, weights, real: [page, slot]. Assumes what `iips` does; where rows are single slots (`whole` False) share_l is 1.
    """
    share = np.maximum(real.mean(0), 1e-300) if whole else 1.0
    return Terms(weights * rewards * real, weights * real / share)


def pseudo_inverse(rewards: F64, weights: F64, real: Bool) -> Terms:
    """Pseudo-inverse: mean(R (1 + Σ_l (ρ_l - 1))) (Swaminathan et al. 2017).

    rewards: [page]; weights, real: [page, slot]. Assumes that a page's reward is a sum of what its slots' items bring, even where only the
    sum is seen. This is its closed form where π₀ chooses slots independently; repeats that it forbids are the one thing that differs.
    """
    return _plain(rewards * combined(weights, real))


def combined(weights: F64, real: Bool) -> F64:
    """The pseudo-inverse's weight of a page: 1 + Σ_l (ρ_l - 1). Shape [page]; may be negative."""
    return np.asarray(1 + np.where(real, weights - 1, 0.0).sum(1))


def rips(rewards: F64, weights: F64) -> Terms:
    """Reward-interaction inverse propensity scoring: Σ_l mean(w_l r_l) (McInerney et al. 2020, equations 3 and 4).

    rewards: [page, slot]; weights: [page, slot] of `prefix_weights`. Assumes that a slot's reward depends on what stands before it and on
    nothing after it.
    """
    return _plain((weights * rewards).sum(1))


def cascade_dr(rewards: F64, weights: F64, chosen: F64, expected: F64) -> Terms:
    """Cascade doubly robust: mean Σ_l (w_l (r_l - Q_l(a_l)) + w_{l-1} Σ_a π(a | x, a_<l) Q_l(a)) (Kiyohara et al. 2022, section 3.1).

    rewards, weights (of `prefix_weights`), chosen (Q_l of the logged item), expected (the sum over a): [page, slot]. Assumes what `rips`
    does; right whatever Q says, less spread the more it knows.
    """
    before = np.concatenate([np.ones((len(weights), 1)), weights[:, :-1]], axis=1)
    return _plain((weights * (rewards - chosen) + before * expected).sum(1))


def doubly_robust(rewards: F64, weights: F64, chosen: F64, expected: F64) -> Terms:
    """Doubly robust: mean(q(π) + w (R - q(a))) (Dudík et al. 2011).

    rewards, weights, chosen (the model's value of the logged page), expected (of the evaluation policy's pages): [page]. Assumes nothing of
    how people read a page; right whatever the model says, less spread the more it knows.
    """
    return _plain(expected + weights * (rewards - chosen))


def _plain(contributions: F64) -> Terms:
    return Terms(contributions[:, None], np.ones((len(contributions), 1)))
