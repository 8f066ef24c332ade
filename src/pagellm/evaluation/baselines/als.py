"""ALS: weighted matrix factorization of implicit feedback, by the library implicit. Takes a log, gives a ranker; knows no text, no time.

Hu, Koren and Volinsky 2008. The vector of a context's user is solved anew from the history that the context knows (their equation 4), so
it is never older than the context and needs no user of the fit.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from pagellm.evaluation.baselines.extra import library, threads
from pagellm.evaluation.baselines.ranking import popular_first, rank_by_scores, recency_weights, taken
from pagellm.evaluation.baselines.tuning import DECAYS, Search, Settings, climb, validation_score
from pagellm.types import F32, I32, Bool, Contexts, Interactions

_GRID = {
    "factors": (16.0, 32.0, 64.0, 128.0, 256.0),
    "alpha": (1.0, 3.0, 10.0, 30.0, 100.0),
    "regularization": (0.01, 0.1, 1.0, 10.0, 100.0),
}
_ITERATIONS = 15


@dataclass(frozen=True)
class ALS:
    """Score of an item: product of its vector with that of the history. Items that the fit never saw have 0."""

    model: Any  # implicit's AlternatingLeastSquares, fitted
    order: I32  # [candidate] order among equal scores
    decay: float  # confidence of a history item per basket back
    repeats: bool = False  # whether items of the context's own history may be ranked
    name: str = "als"

    def among(self, candidates: Bool) -> ALS:
        """The same method over other candidates, equal scores by index."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k best candidates. Shape [context, k]."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def scores(self, contexts: Contexts) -> F32:
        """Scores of all items. Shape [context, item]."""
        items: F32 = self.model.item_factors
        history = sparse.csr_matrix(recency_weights(contexts, len(items), self.decay))
        users: F32 = self.model.recalculate_user(np.arange(len(contexts)), history)
        return users @ items.T


def fit_als(
    log: Interactions,
    known: Bool,
    candidates: Bool,
    factors: int = 64,
    alpha: float = 10.0,
    regularization: float = 1.0,
    decay: float = 0.8,
    repeats: bool = False,
    seed: int = 0,
) -> ALS:
    """Factorizes who took what in the `known` [event] events; `alpha` is the confidence of an event, 1 that of its absence.

    Raises NotApplicableError where implicit is not installed.
    """
    users = sparse.csr_matrix(taken(log, known, len(candidates)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OpenBLAS", RuntimeWarning)  # the launcher decides on threads
        model = library("implicit.cpu.als", "als").AlternatingLeastSquares(
            factors, regularization, alpha, iterations=_ITERATIONS, num_threads=threads(), random_state=seed
        )
    model.fit(users, show_progress=False)
    return ALS(model, popular_first(log, known, candidates), decay, repeats)


def tune_als(
    log: Interactions, known: Bool, candidates: Bool, contexts: Contexts, repeats: bool = False, seed: int = 0
) -> Search:
    """Searches factors, alpha and regularization, which need a fit each, then decay, which needs none, on validation contexts."""

    def at(s: Settings) -> ALS:
        return fit_als(
            log, known, candidates, int(s["factors"]), s["alpha"], s["regularization"], s["decay"], repeats=repeats, seed=seed
        )

    fits = climb({**_GRID, "decay": (0.8,)}, lambda s: validation_score(at(s), contexts))
    best = fits.best.settings
    fitted = at(best)
    along = {name: (best[name],) for name in _GRID}
    decays = climb({**along, "decay": DECAYS}, lambda s: validation_score(replace(fitted, decay=s["decay"]), contexts))
    return Search(fits.trials + tuple(t for t in decays.trials if t not in fits.trials))
