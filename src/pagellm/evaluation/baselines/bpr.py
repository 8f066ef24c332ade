"""BPR: matrix factorization by pairs of what a user took and did not, by the library implicit. Takes a log, gives a ranker; knows no time.

Rendle et al. 2009. A user has one vector, fitted from all that was known: whoever the fit never saw gets the most popular items.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from pagellm.evaluation.baselines.extra import library
from pagellm.evaluation.baselines.ranking import KnownUsers, known_users, popular_first, rank_by_scores, taken
from pagellm.evaluation.baselines.tuning import Search, Settings, climb, validation_score
from pagellm.types import F32, I32, Bool, Contexts, Interactions

_GRID = {
    "factors": (32.0, 64.0, 128.0),
    "learning_rate": (0.01, 0.02, 0.05, 0.1, 0.2),
    "regularization": (0.001, 0.003, 0.01, 0.03, 0.1),
    "iterations": (50.0, 100.0, 200.0),
}


@dataclass(frozen=True)
class BPR:
    """Score of an item: product of its vector with the user's, plus its bias. Items that the fit never saw come last."""

    users: KnownUsers
    user_factors: F32  # [known user, factor + 1] the last column is 1
    item_factors: F32  # [item, factor + 1] the last column is the bias
    seen: Bool  # [item] whether the fit saw it
    order: I32  # [candidate] order among equal scores
    repeats: bool = False  # whether items of the context's own history may be ranked
    name: str = "bpr"

    def among(self, candidates: Bool) -> BPR:
        """The same method over other candidates, equal scores by index."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k best candidates. Shape [context, k]."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def scores(self, contexts: Contexts) -> F32:
        """Scores of all items, 0 for a user that the fit never saw or that the context knows nothing of. Shape [context, item]."""
        rows = np.where(contexts.warm, self.users.rows(contexts), -1)
        scores = np.zeros((len(contexts), len(self.item_factors)), np.float32)
        scores[rows >= 0] = np.where(self.seen, self.user_factors[rows[rows >= 0]] @ self.item_factors.T, -np.inf)
        return scores


def fit_bpr(
    log: Interactions,
    known: Bool,
    candidates: Bool,
    factors: int = 64,
    learning_rate: float = 0.05,
    regularization: float = 0.01,
    iterations: int = 100,
    repeats: bool = False,
    seed: int = 0,
) -> BPR:
    """Fits on who took what in the `known` [event] events, on one thread: with more, the same seed gives other vectors.

    Raises NotApplicableError where implicit is not installed.
    """
    known_ids, users = known_users(log, known)
    matrix = sparse.csr_matrix(taken(log, known, len(candidates)))[users]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OpenBLAS", RuntimeWarning)  # the launcher decides on threads
        model = library("implicit.cpu.bpr", "bpr").BayesianPersonalizedRanking(
            factors, learning_rate, regularization, iterations=iterations, num_threads=1, random_state=seed
        )
    model.fit(matrix, show_progress=False)
    seen = np.bincount(log.item[known], minlength=len(candidates)) > 0
    return BPR(known_ids, model.user_factors, model.item_factors, seen, popular_first(log, known, candidates), repeats)


def tune_bpr(
    log: Interactions, known: Bool, candidates: Bool, contexts: Contexts, repeats: bool = False, seed: int = 0
) -> Search:
    """Searches all settings on validation contexts."""

    def at(s: Settings) -> BPR:
        sizes, rates = (int(s["factors"]), int(s["iterations"])), (s["learning_rate"], s["regularization"])
        return fit_bpr(log, known, candidates, sizes[0], *rates, iterations=sizes[1], repeats=repeats, seed=seed)

    return climb(_GRID, lambda s: validation_score(at(s), contexts))
