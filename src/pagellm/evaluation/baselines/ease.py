"""EASE: the linear item-item model with a zero diagonal, in closed form. Takes a log, gives a ranker; knows no text, no time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import lapack

from pagellm.errors import DataError
from pagellm.evaluation.baselines.ranking import popular_first, rank_by_scores, recency_weights, taken
from pagellm.evaluation.baselines.tuning import DECAYS, Search, climb, validation_score
from pagellm.types import F32, I32, Bool, Contexts, Interactions

_L2S = (25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)

_BLOCK = 1024


@dataclass(frozen=True)
class Ease:
    """Score of an item j: sum over the history of recency weight times B_ij. Items without any: by popularity, most first.

    B_ij = -P_ij / P_jj off the diagonal and 0 on it (Steck 2019, equation 8), so P alone is kept.
    """

    precision: F32  # [known item, known item] P = (X'X + lambda I)^-1
    places: I32  # [known item] catalog indexes
    order: I32  # [candidate] order among equal scores
    n_items: int
    l2: float  # lambda
    decay: float  # weight of a history item per basket back
    repeats: bool = False  # whether items of the context's own history may be ranked
    name: str = "ease"

    def among(self, candidates: Bool) -> Ease:
        """The same method over other candidates, equal scores by index."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k best candidates. Shape [context, k]."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def scores(self, contexts: Contexts) -> F32:
        """Scores of all items, 0 for those that the fit never saw. Shape [context, item]."""
        weights = recency_weights(contexts, self.n_items, self.decay)[:, self.places]
        scores = np.zeros((len(contexts), self.n_items), np.float32)
        scores[:, self.places] = weights.toarray() - (weights @ self.precision) / np.diag(self.precision)
        return scores


def fit_ease(
    log: Interactions, known: Bool, candidates: Bool, l2: float = 200.0, decay: float = 0.8, repeats: bool = False
) -> Ease:
    """Inverts X'X + l2 I over the items with `known` [event] events, in place: one float32 matrix of items x items.

    Raises DataError where the matrix is not positive definite in float32: `l2` is too small then.
    """
    users = taken(log, known, len(candidates))
    places = np.flatnonzero(users.sum(axis=0) > 0).astype(np.int32)
    users = users[:, places]
    gram = (users.T @ users).toarray(order="F")
    gram[np.diag_indices_from(gram)] += np.float32(l2)
    precision = _invert(gram, l2)
    return Ease(precision, places, popular_first(log, known, candidates), len(candidates), l2, decay, repeats)


def tune_ease(log: Interactions, known: Bool, candidates: Bool, contexts: Contexts, repeats: bool = False) -> Search:
    """Searches decay, which needs one fit, then l2, which needs one each, on validation contexts."""
    middle = fit_ease(log, known, candidates, repeats=repeats)
    decays = climb({"l2": (middle.l2,), "decay": DECAYS}, lambda s: validation_score(replace(middle, decay=s["decay"]), contexts))

    def at(l2: float) -> Ease:
        return middle if l2 == middle.l2 else fit_ease(log, known, candidates, l2, repeats=repeats)

    grid = {"l2": _L2S, "decay": (decays.best.settings["decay"],)}
    l2s = climb(grid, lambda s: validation_score(replace(at(s["l2"]), decay=s["decay"]), contexts))
    return Search(decays.trials + tuple(t for t in l2s.trials if t not in decays.trials))


def _invert(matrix: F32, l2: float) -> F32:
    """Inverse of a symmetric positive definite matrix by Cholesky, written over it."""
    if len(matrix) == 0:
        return matrix
    factor, wrong = lapack.spotrf(matrix, lower=True, clean=False, overwrite_a=True)
    if not wrong:
        factor, wrong = lapack.spotri(factor, lower=True, overwrite_c=True)
    if wrong:
        raise DataError(f"EASE cannot invert its matrix of {len(matrix):,} items with l2 = {l2:g}. Raise l2.")
    for first in range(0, len(factor), _BLOCK):  # LAPACK fills one triangle; mirror it block by block, without a second matrix
        block = slice(first, first + _BLOCK)
        corner = np.tril(factor[block, block])
        factor[block, block] = corner + np.tril(corner, -1).T
        factor[block, first + _BLOCK :] = factor[first + _BLOCK :, block].T
    inverse: F32 = factor.T
    return inverse
