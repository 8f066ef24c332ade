"""Pages from any ranker's scores by rules that know what stands there already: the re-rankers that learned pages have to beat.

    mmr      λ · score - (1 - λ) · largest cosine with a slot before, scores scaled to 0..1 in each context
    dpp      the likeliest subset of a determinantal point process with kernel q_i cos(i, j) q_j, q = exp(θ · score), greedily
    priced   score - price where a near-duplicate stands before

Takes scores of each context's candidates and unit vectors of items, gives pages. Each has one dial, from the ranker's own order (λ = 1,
large θ, price 0) to pages that repeat nothing. Knows no model and no feedback.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pagellm.types import F32, I32, NO_ITEM


def mmr(scores: F32, pool: I32, vectors: F32, slots: int, share: float) -> I32:
    """Maximal marginal relevance (Carbonell and Goldstein 1998). Shape [context, slot], NO_ITEM where the pool [context, candidate] ends.

    `scores` [context, candidate] are read where the pool has an item; `vectors` [item, dim] have length 1; `share` is λ in [0, 1].
    """
    real = pool != NO_ITEM
    low = np.where(real, scores, np.inf).min(1, keepdims=True)
    high = np.where(real, scores, -np.inf).max(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(real & (high > low), (scores - low) / (high - low), 0.0)
    return _pages(np.float64(share) * scaled, pool, vectors, slots, 1 - share, 2.0)


def priced(scores: F32, pool: I32, vectors: F32, slots: int, price: float, alike: float) -> I32:
    """A flat price on an item with a cosine above `alike` to one that stands before it. Shapes as in `mmr`."""
    return _pages(scores.astype(np.float64), pool, vectors, slots, price, alike)


def dpp(scores: F32, pool: I32, vectors: F32, slots: int, theta: float) -> I32:
    """Greedy maximum a posteriori inference (Chen, Zhang and Zhou 2018, algorithm 1). Shapes as in `mmr`; `theta` weighs the scores.

    Once nothing new spans more than rounding, the rest of the page is filled in the order of the scores.
    """
    out = np.full((len(pool), slots), NO_ITEM, np.int32)
    _greedy_dpp(scores.astype(np.float64) * theta, pool, vectors, out)
    return out


def _pages(scores: np.ndarray, pool: I32, vectors: F32, slots: int, weight: float, above: float) -> I32:
    out = np.full((len(pool), slots), NO_ITEM, np.int32)
    _greedy(scores, pool, vectors, weight, above, out)
    return out


@njit(cache=True)
def _cosine(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return float(total)


@njit(cache=True, parallel=True)
def _greedy(scores, pool, vectors, weight, above, out):  # type: ignore[no-untyped-def]
    """Takes the best of score - weight · penalty slot by slot: the largest cosine before, or 1 where it is larger than `above` <= 1."""
    for c in prange(len(pool)):
        left = pool[c] >= 0
        nearest = np.zeros(pool.shape[1])
        for s in range(out.shape[1]):
            best, most = -1, -np.inf
            for j in range(pool.shape[1]):
                if left[j]:
                    penalty = nearest[j]
                    if above <= 1:
                        penalty = 1.0 if nearest[j] > above else 0.0
                    value = scores[c, j] - weight * penalty
                    if value > most:
                        best, most = j, value
            if best < 0:
                break
            out[c, s], left[best] = pool[c, best], False
            for j in range(pool.shape[1]):
                if left[j]:
                    nearest[j] = max(nearest[j], _cosine(vectors[pool[c, j]], vectors[pool[c, best]]))


@njit(cache=True, parallel=True)
def _greedy_dpp(scores, pool, vectors, out):  # type: ignore[no-untyped-def]
    slots = out.shape[1]
    for c in prange(len(pool)):
        width = pool.shape[1]
        left = pool[c] >= 0
        top = -np.inf
        for j in range(width):
            if left[j]:
                top = max(top, scores[c, j])
        quality, rows, gain = np.zeros(width), np.zeros((slots, width)), np.full(width, -1.0)
        for j in range(width):
            if left[j]:
                quality[j] = np.exp(scores[c, j] - top)  # a common factor changes no choice
                gain[j] = quality[j] ** 2 * _cosine(vectors[pool[c, j]], vectors[pool[c, j]])
        first = gain.copy()
        for s in range(slots):
            best, most = -1, -np.inf
            for j in range(width):
                if left[j] and gain[j] > 1e-6 * first[j] and gain[j] > most:
                    best, most = j, gain[j]
            spans = best >= 0
            if not spans:  # nothing left spans anything new
                for j in range(width):
                    if left[j] and scores[c, j] > most:
                        best, most = j, scores[c, j]
            if best < 0:
                break
            out[c, s], left[best] = pool[c, best], False
            if not spans:
                continue
            root = np.sqrt(gain[best])
            for j in range(width):
                if left[j]:
                    product = quality[best] * quality[j] * _cosine(vectors[pool[c, best]], vectors[pool[c, j]])
                    for r in range(s):
                        product -= rows[r, best] * rows[r, j]
                    rows[s, j] = product / root
                    gain[j] -= rows[s, j] ** 2
