"""Items whose words are like those of the history. Takes content vectors, gives a ranker; knows no other user."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pagellm.evaluation.baselines.ranking import popular_first, rank_by_scores, recency_weights
from pagellm.evaluation.baselines.tuning import DECAYS, Search, climb, validation_score
from pagellm.types import F32, I32, Bool, Contexts, Interactions


@dataclass(frozen=True)
class TextSimilarity:
    """Score of an item: inner product of its vector with the recency-weighted sum of the history's vectors."""

    vectors: F32  # [item, dim] of unit length, zero without text
    order: I32  # [candidate] order among equal scores
    decay: float  # weight of a history item per basket back
    repeats: bool = False  # whether items of the context's own history may be ranked
    name: str = "text"

    def among(self, candidates: Bool) -> TextSimilarity:
        """The same method over other candidates, equal scores by index."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k best candidates. Shape [context, k]."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def scores(self, contexts: Contexts) -> F32:
        """Scores of all items. Shape [context, item]."""
        profile = recency_weights(contexts, len(self.vectors), self.decay) @ self.vectors
        scores: F32 = profile @ self.vectors.T
        return scores


def fit_text(
    log: Interactions, known: Bool, candidates: Bool, vectors: F32, decay: float = 0.8, repeats: bool = False
) -> TextSimilarity:
    """Nothing is fitted but the order among equal scores, by popularity in the `known` [event] events."""
    return TextSimilarity(vectors, popular_first(log, known, candidates), decay, repeats)


def tune_text(
    log: Interactions, known: Bool, candidates: Bool, vectors: F32, contexts: Contexts, repeats: bool = False
) -> Search:
    """Searches the decay on validation contexts."""
    fitted = fit_text(log, known, candidates, vectors, repeats=repeats)
    return climb({"decay": DECAYS}, lambda s: validation_score(replace(fitted, decay=s["decay"]), contexts))
