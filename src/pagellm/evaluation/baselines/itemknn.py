"""Item-based nearest neighbors: items taken by the same users as those of the history. Sparse algebra; knows no text, no time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from pagellm.evaluation.baselines.ranking import popular_first, rank_by_scores, recency_weights, taken
from pagellm.evaluation.baselines.tuning import DECAYS, Search, Settings, climb, sweep, validation_score
from pagellm.types import F32, I32, Bool, Contexts, Interactions

_SHRINKS = (0.0, 10.0, 30.0, 100.0, 300.0)
_NEIGHBORS = (100, 300, 1000)


@dataclass(frozen=True)
class ItemKNN:
    """Score of an item: sum over the history of recency weight times similarity. Items without any: by popularity, most first."""

    similarity: sparse.csr_array  # [item, item] only the nearest neighbors of each row, zero diagonal
    order: I32  # [candidate] order among equal scores
    decay: float  # weight of a history item per basket back
    repeats: bool = False  # whether items of the context's own history may be ranked
    name: str = "itemknn"

    def among(self, candidates: Bool) -> ItemKNN:
        """The same method over other candidates, equal scores by index."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k best candidates. Shape [context, k]."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def scores(self, contexts: Contexts) -> F32:
        """Scores of all items. Shape [context, item]."""
        weights = recency_weights(contexts, self.similarity.shape[0], self.decay)
        scores: F32 = (weights @ self.similarity).toarray()
        return scores


def fit_itemknn(
    log: Interactions,
    known: Bool,
    candidates: Bool,
    shrink: float = 10.0,
    neighbors: int = 200,
    decay: float = 0.8,
    repeats: bool = False,
) -> ItemKNN:
    """Similarities from the `known` [event] events: pairs over (root of both popularities + shrink).

    Sarwar et al. 2001 with the shrinkage of Bell & Koren 2007: a pair seen once by two rare items is weak evidence.
    """
    users = taken(log, known, len(candidates))
    pairs = (users.T @ users).tocoo()
    root = np.sqrt(users.sum(axis=0))
    off = pairs.row != pairs.col
    row, col = pairs.row[off], pairs.col[off]
    values = (pairs.data[off] / (root[row] * root[col] + shrink)).astype(np.float32)
    similarity = sparse.csr_array((values, (row, col)), shape=pairs.shape)
    return ItemKNN(_nearest(similarity, neighbors), popular_first(log, known, candidates), decay, repeats)


def tune_itemknn(log: Interactions, known: Bool, candidates: Bool, contexts: Contexts, repeats: bool = False) -> Search:
    """Searches shrink and neighbors together, which pull against each other, then decay, which needs no new fit."""

    def at(s: Settings) -> ItemKNN:
        return fit_itemknn(log, known, candidates, s["shrink"], int(s["neighbors"]), s["decay"], repeats)

    middle = {"decay": (0.65,), "shrink": _SHRINKS, "neighbors": _NEIGHBORS}
    fits = sweep(middle, lambda s: validation_score(at(s), contexts))
    best = fits.best.settings
    fitted = at(best)
    along = {"decay": DECAYS, "shrink": (best["shrink"],), "neighbors": (best["neighbors"],)}
    decays = climb(along, lambda s: validation_score(replace(fitted, decay=s["decay"]), contexts))
    return Search(fits.trials + tuple(t for t in decays.trials if t not in fits.trials))


def _nearest(similarity: sparse.csr_array, neighbors: int) -> sparse.csr_array:
    """Keeps the largest entries of each row, among equal ones those with the lower index."""
    similarity.sort_indices()
    rows = np.repeat(np.arange(similarity.shape[0]), np.diff(similarity.indptr))
    best_first = np.lexsort((similarity.indices, -similarity.data, rows))
    place = np.arange(len(rows)) - similarity.indptr[rows]
    kept = np.sort(best_first[place < neighbors])
    counts = np.bincount(rows[kept], minlength=similarity.shape[0])
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return sparse.csr_array((similarity.data[kept], similarity.indices[kept], offsets), shape=similarity.shape)
