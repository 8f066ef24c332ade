"""The control `sasrec+recency`: SASRec's opinion and live popularity, weighed by the same listwise head that the policy has.

It asks what the policy's other evidence is worth: most of the lift of evidence is recency, so a policy must beat this. Takes the two
fits of SASRec, gives a ranker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pagellm.config import CandidateConfig, SFTConfig
from pagellm.data.candidates import unite
from pagellm.data.cooccurrence import Postings, build_postings
from pagellm.data.popularity import WINDOWS_D, popular_candidates, popularity_evidence
from pagellm.evaluation.baselines.sequence import SequenceFits, SequenceRanker
from pagellm.models.listwise import EvidenceHead, fit_listwise
from pagellm.types import F32, I32, NO_ITEM, Bool, Contexts

_CHUNK = 512
_FAVORITES = 300  # items that SASRec itself brings into the pool
_RECIPE = SFTConfig()  # the head is fitted as the policy's is
_FEATURES = len(WINDOWS_D) + 3


@dataclass(frozen=True)
class SASRecRecency:
    """The control as a ranker."""

    sasrec: SequenceRanker
    head: EvidenceHead
    postings: Postings
    candidates: Bool  # [item]
    repeats: bool
    name: str = "sasrec+recency"

    def among(self, candidates: Bool) -> SASRecRecency:
        """The same method over other candidates."""
        return replace(self, candidates=candidates)

    def rank(self, contexts: Contexts, k: int) -> I32:
        """See `Ranker.rank`."""
        out = np.full((len(contexts), k), NO_ITEM, np.int32)
        for begin in range(0, len(contexts), _CHUNK):
            some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
            pool, base = pool_of(self.sasrec, self.postings, some, self.candidates, self.repeats)
            evidence = torch.from_numpy(popularity_evidence(self.postings, some.time, pool))
            with torch.no_grad():
                logits = self.head(evidence, torch.from_numpy(base)).numpy()
            order = np.argsort(-np.where(pool == NO_ITEM, -np.inf, logits), axis=1, kind="stable")[:, :k]
            out[begin : begin + len(some), : order.shape[1]] = np.take_along_axis(pool, order, 1)
        return out


def fit_recency(fits: SequenceFits) -> SASRecRecency:
    """Learns the weights on contexts between the cuts, where the searched SASRec is out of sample; ranks with the final one."""
    split = fits.split
    postings = build_postings(split.log, len(split.candidates_test), None if split.point_in_time else split.fit_until_valid)
    contexts = split.between_cuts()
    every = np.ones(len(split.candidates_valid), bool)  # new items too, as the policy's own head
    evidence, base, targets, real = _examples(fits.early, postings, contexts, every, fits.repeats)
    torch.manual_seed(fits.seed)
    head = EvidenceHead(_FEATURES, 64)
    epochs, batch = _RECIPE.head_passes(len(targets)), _RECIPE.head_batch
    for _ in fit_listwise(head, evidence, base, targets, real, epochs=epochs, batch=batch, lr=_RECIPE.head_lr, seed=fits.seed):
        pass
    return SASRecRecency(fits.final, head.eval(), postings, split.candidates_test, fits.repeats)


def pool_of(sasrec: SequenceRanker, postings: Postings, contexts: Contexts, allowed: Bool, repeats: bool) -> tuple[I32, F32]:
    """Candidates of SASRec and of live popularity, and SASRec's log-probabilities over them. Shapes [context, candidate]."""
    scores = sasrec.scores(contexts)
    k = min(_FAVORITES, int(allowed.sum()))
    masked = np.where(allowed, scores, -np.inf)
    favorites = np.argpartition(-masked, max(k - 1, 0), axis=1)[:, :k].astype(np.int32)
    sizes = CandidateConfig()
    recent = ((1.0, sizes.popular_1d), (7.0, sizes.popular_7d), (30.0, sizes.popular_30d), (90.0, sizes.popular_90d))
    windows = (*recent, (None, sizes.popular_all))
    popular = [popular_candidates(postings, contexts.time, days, size, allowed) for days, size in windows]
    pool = unite(np.concatenate([favorites, *popular], axis=1), contexts, allowed, repeats)
    return pool, np.where(pool == NO_ITEM, scores.min(), np.take_along_axis(scores, np.maximum(pool, 0), 1)).astype(np.float32)


def _examples(
    sasrec: SequenceRanker, postings: Postings, contexts: Contexts, allowed: Bool, repeats: bool
) -> tuple[F32, F32, F32, Bool]:
    """Evidence, base, targets and real [context, candidate] of the contexts that have a target in their pool, equally wide."""
    parts = []
    for begin in range(0, len(contexts), _CHUNK):
        some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
        pool, base = pool_of(sasrec, postings, some, allowed, repeats)
        targets = np.stack([np.isin(row, some.target(c)) for c, row in enumerate(pool)]).astype(np.float32)
        useful = targets.sum(1) > 0
        parts.append((pool[useful], base[useful], targets[useful], some.time[useful]))
    width = max(part[0].shape[1] for part in parts)
    pool = np.concatenate([_widened(p, width, NO_ITEM) for p, _, _, _ in parts])
    base = np.concatenate([_widened(b, width, 0) for _, b, _, _ in parts])
    targets = np.concatenate([_widened(t, width, 0) for _, _, t, _ in parts])
    times = np.concatenate([t for _, _, _, t in parts])
    return popularity_evidence(postings, times, pool), base, targets, pool != NO_ITEM


def _widened(table: NDArray[Any], width: int, value: int) -> NDArray[Any]:
    return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=value)
