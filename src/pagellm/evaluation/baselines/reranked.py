"""MMR and DPP on any ranker: its best 100 become a page that repeats less, the dial tuned on validation contexts.

Methods have no common scale of scores, so relevance is a function of the rank r alone: -log r, as if the chance of a hit fell as 1 / r.
Takes a ranker and title vectors, gives a ranker; the greedy choices stand in `rerank.py`. Knows no feedback but what it is tuned on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pagellm.evaluation.baselines.rerank import dpp, mmr
from pagellm.evaluation.baselines.tuning import Search, Settings, sweep
from pagellm.evaluation.metrics import accuracy
from pagellm.evaluation.pages.variety import near_duplicates
from pagellm.evaluation.protocol import Method, Ranker
from pagellm.types import F32, F64, I32, NO_ITEM, Bool, Contexts

DIALS = {"mmr": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98), "dpp": (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0)}
"""λ of MMR and θ of DPP, from pages that repeat little to the ranker's own order."""

KEPT = 0.98
"""Share of the ranker's own validation score that a setting must keep."""

SLOTS = 10  # of the page that is written; below it the ranker's order stays
_POOL = 100


@dataclass(frozen=True)
class Reranked:
    """A ranker's page, chosen anew from its first 100; then the rest in its own order."""

    base: Method
    vectors: F32  # [item, dim] unit vectors that near-duplicates are told by
    dial: float
    name: str  # mmr or dpp

    def among(self, candidates: Bool) -> Reranked:
        """The same over other candidates."""
        return replace(self, base=self.base.among(candidates))

    def rank(self, contexts: Contexts, k: int) -> I32:
        """See `Ranker.rank`."""
        order = self.base.rank(contexts, max(k, _POOL))
        page = paged(self.name, order[:, :_POOL], self.vectors, self.dial)
        on_page = (order[:, :, None] == page[:, None, :]).any(2)
        below = np.take_along_axis(np.where(on_page, NO_ITEM, order), np.argsort(on_page, axis=1, kind="stable"), 1)
        return np.concatenate([page, below[:, : order.shape[1] - SLOTS]], axis=1)[:, :k].astype(np.int32)


def paged(name: str, ranked: I32, vectors: F32, dial: float) -> I32:
    """Pages [context, slot] from rankings [context, rank]."""
    relevance = -np.log(np.arange(1, ranked.shape[1] + 1, dtype=np.float32))
    scores = np.tile(relevance, (len(ranked), 1))
    return (mmr if name == "mmr" else dpp)(scores, ranked, vectors, SLOTS, dial)


def tune_reranked(name: str, base: Ranker, vectors: F32, contexts: Contexts) -> Search:
    """Tries every dial. The score of one that keeps 98 % of the base's NDCG@10 is the share of slots without a near-duplicate, else the
    NDCG@10 that it loses, as a negative share: so the best repeats least for a small price, or loses least."""
    order = base.rank(contexts, _POOL)

    def ndcg(ranked: I32) -> float:
        return float(accuracy(ranked, contexts, (SLOTS,))[f"ndcg@{SLOTS}"].mean())

    own = ndcg(order)

    def score(s: Settings) -> float:
        page = paged(name, order, vectors, s["dial"])
        kept = ndcg(page) / own if own else 1.0
        alike: F64 = near_duplicates(page, vectors)
        return float(1 - alike.mean() / SLOTS) if kept >= KEPT else kept - 1

    return sweep({"dial": DIALS[name]}, score)
