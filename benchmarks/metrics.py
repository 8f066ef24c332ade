"""P-EV-1: all ranking metrics at all cut-offs in one pass, against ranx and pytrec_eval on the same rankings.

20,000 users with 100 ranked items each, 1 to 10 targets. The peers' own data structures are built beforehand and not timed: only their
`evaluate` is. Per-user values are compared to 1e-12 first. Everybody computes the same 20 figures a user.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main

USERS, DEPTH, ITEMS = 20_000, 100, 10_000
TOLERANCE = 1e-12
RANX = ("ndcg", "recall", "hit_rate", "mrr", "map")
TREC = ("ndcg_cut", "recall", "success", "recip_rank_cut", "map_cut")


def inputs() -> tuple[Any, Any, Any]:
    """Rankings [user, rank] with about a third of the targets in them, and the targets as one flat array with offsets."""
    rng = np.random.default_rng(1)
    ranked = np.stack([rng.permutation(ITEMS)[:DEPTH] for _ in range(USERS)]).astype(np.int32)
    counts = rng.integers(1, 11, USERS)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    targets = np.empty(offsets[-1], np.int32)
    for u in range(USERS):
        easy = rng.choice(ranked[u], counts[u], replace=False)
        hard = rng.choice(ITEMS, counts[u], replace=False)
        chosen = np.unique(np.where(rng.random(counts[u]) < 1 / 3, easy, hard))
        targets[offsets[u] : offsets[u + 1]] = np.resize(chosen, counts[u])
    return ranked, targets, offsets


def comparisons() -> Sequence[Comparison]:
    import pytrec_eval
    import ranx

    from pagellm.evaluation.metrics import CUTS, accuracy_of

    ranked, targets, offsets = inputs()
    names = [f"u{u:05d}" for u in range(USERS)]  # in sorted order, so that every library answers in the same one
    wanted = {n: {str(i): 1 for i in targets[offsets[u] : offsets[u + 1]]} for u, n in enumerate(names)}
    scored = {n: {str(i): float(DEPTH - r) for r, i in enumerate(ranked[u])} for u, n in enumerate(names)}
    qrels, run = ranx.Qrels(wanted), ranx.Run(scored)
    ranx_names = [f"{m}@{k}" for m in RANX for k in CUTS]
    trec_names = {f"{m}.{','.join(map(str, CUTS))}" for m in TREC if m != "recip_rank_cut"} | {"recip_rank"}
    judge = pytrec_eval.RelevanceEvaluator(wanted, trec_names)

    def by_us() -> Any:
        return accuracy_of(ranked, targets, offsets[:-1], offsets[1:], CUTS)

    def by_ranx() -> Any:
        return ranx.evaluate(qrels, run, ranx_names, return_mean=False, save_results_in_run=False)

    def by_trec() -> Any:
        return judge.evaluate(scored)

    def same(peer: str, ours: Any, theirs: Any) -> float:
        largest = 0.0
        for c, k in enumerate(CUTS):
            for j, (of_ranx, of_trec) in enumerate(zip(RANX, TREC, strict=True)):
                if peer == "ranx.evaluate":
                    expected = theirs[f"{of_ranx}@{k}"]
                elif of_trec != "recip_rank_cut":
                    expected = np.array([theirs[n][f"{of_trec}_{k}"] for n in names])
                else:  # trec_eval has no cut-off here: a first hit beyond k counts as none
                    whole = np.array([theirs[n]["recip_rank"] for n in names])
                    expected = np.where(whole >= 1 / k, whole, 0.0)
                largest = max(largest, float(np.abs(ours[:, c, j] - expected).max()))
        assert largest <= TOLERANCE, f"{peer} differs by {largest:.1e}"
        return largest

    peers = {"ranx.evaluate": by_ranx, "pytrec_eval": by_trec}
    target = {"ranx.evaluate": 50.0, "pytrec_eval": 100.0}
    notes = {"users": USERS, "ranked items": DEPTH, "metrics": len(ranx_names)}
    return [compare("P-EV-1", ours=by_us, peers=peers, check=same, target=target, notes=notes)]


if __name__ == "__main__":
    main("metrics", comparisons)
