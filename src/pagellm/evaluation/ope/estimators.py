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
    out = given / logging
    for slot in range(1, out.shape[1]):  # three times faster than numpy's running product along so short an axis
        out[:, slot] *= out[:, slot - 1]
    return np.asarray(out)


def slot_weights(alone: F64, logging_alone: F64) -> F64:
    """ρ_l = π(a_l in slot l | x) / π₀(a_l in slot l | x), whatever stands before. Shape [page, slot]."""
    return np.asarray(alone / logging_alone)


def logging_alone(logging: F64, free: F64) -> F64:
    """π₀(a_l in slot l | x) = π₀(a_l | x, a_<l) · P(a_l does not stand before slot l), [page, slot]; logs hold the first factor alone.

    Exact where the first factor is the same on all pages that leave the item free, as in a uniform draw; else one page's word for the mean
    over pages. `free` is of `free_shares`: counted over everybody who asks.
    """
    return logging * free


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

    rewards (0 where a page has no slot), weights, real: [page, slot]. Assumes that a slot's reward depends on its item and its place alone,
    not on the rest of the page. Where rows are single slots (`whole` False) each slot's mean is over the rows that have it.
    """
    if whole:
        return _plain(_page_sums(weights, rewards))
    return Terms(weights * rewards * real, real.astype(np.float64))


def sniips(rewards: F64, weights: F64, real: Bool, whole: bool = True) -> Terms:
    """Self-normalized slot-wise inverse propensity scoring: Σ_l share_l Σ ρ_l r_l / Σ ρ_l, share_l the share of pages with slot l.

    rewards, weights, real: [page, slot]. Assumes what `iips` does; where rows are single slots (`whole` False) share_l is 1.
    """
    share = np.maximum(real.mean(0), 1e-300) if whole else 1.0
    return Terms(weights * rewards * real, weights * real / share)


def pseudo_inverse(rewards: F64, weights: F64, due: F64) -> Terms:
    """Pseudo-inverse: mean(R (1 + Σ_l (ρ_l - due_l))) (Swaminathan et al. 2017).

    rewards: [page]; weights (of `slot_weights`), due: [page, slot]. Assumes that a page's reward is a sum of what its slots' items bring,
    even where only the sum is seen. Where π₀ chooses slots independently, every due_l is 1 and this is the paper's closed form. Where no
    item stands twice, due_l is what ρ_l averages given the slots before it, so that a slot says nothing of those above. That an item which
    is taken leaves less for the slots below is not undone; it matters while pages hold much of the catalog.
    """
    return _plain(rewards * combined(weights, due))


def combined(weights: F64, due: F64) -> F64:
    """The pseudo-inverse's weight of a page: 1 + Σ_l (ρ_l - due_l). Shape [page]; may be negative."""
    return np.asarray(1 + (weights - due).sum(1))


def rips(rewards: F64, weights: F64) -> Terms:
    """Reward-interaction inverse propensity scoring: Σ_l mean(w_l r_l) (McInerney et al. 2020, equations 3 and 4).

    rewards: [page, slot]; weights: [page, slot] of `prefix_weights`. Assumes that a slot's reward depends on what stands before it and on
    nothing after it.
    """
    return _plain(_page_sums(weights, rewards))


def cascade_dr(rewards: F64, weights: F64, chosen: F64, expected: F64) -> Terms:
    """Cascade doubly robust: mean Σ_l (w_l (r_l - Q_l(a_l)) + w_{l-1} Σ_a π(a | x, a_<l) Q_l(a)) (Kiyohara et al. 2022, section 3.1).

    rewards, weights (of `prefix_weights`), chosen (Q_l of the logged item), expected (the sum over a): [page, slot]. Assumes what `rips`
    does; right whatever Q says, less spread the more it knows.
    """
    return _plain(_page_sums(weights, rewards - chosen) + expected[:, 0] + _page_sums(weights[:, :-1], expected[:, 1:]))


def doubly_robust(rewards: F64, weights: F64, chosen: F64, expected: F64) -> Terms:
    """Doubly robust: mean(q(π) + w (R - q(a))) (Dudík et al. 2011).

    rewards, weights, chosen (the model's value of the logged page), expected (of the evaluation policy's pages): [page]. Assumes nothing of
    how people read a page; right whatever the model says, less spread the more it knows.
    """
    return _plain(expected + weights * (rewards - chosen))


def _page_sums(weights: F64, values: F64) -> F64:
    """Σ_l weights_l values_l. Shape [page]."""
    return np.asarray(np.einsum("ps,ps->p", weights, values))


def _plain(contributions: F64) -> Terms:
    return Terms(contributions[:, None], np.ones((len(contributions), 1)))
