"""P-BL-1 and P-BL-2: what wrapping implicit and LightGBM costs, and EASE against the inverse that numpy makes of the same matrix.

P-BL-1: a fit through pagellm against the same fit by the library itself, the matrix of who took what or the groups of rows included;
results equal to the bit. P-BL-2: EASE by Cholesky in float32 against the closed form as RecBole 1.2.1 has it, `np.linalg.inv` of the
same float32 matrix and a second one for the weights; the same 100 best items for at least 99.9 % of the users. Takes nothing, gives ratios.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke
from pagellm.data.contexts import contexts_at
from pagellm.evaluation.baselines.als import fit_als
from pagellm.evaluation.baselines.bpr import fit_bpr
from pagellm.evaluation.baselines.ease import Ease, fit_ease
from pagellm.evaluation.baselines.lambdamart import Examples, fit_trees, parameters
from pagellm.evaluation.baselines.ranking import rank_by_scores
from pagellm.types import DAY, F32, I32, Event, Interactions

L2 = 200.0
TREES = {"num_leaves": 16.0, "learning_rate": 0.12, "min_data_in_leaf": 100.0}


def people(users: int, items: int, seed: int = 0) -> Interactions:
    """Users with 4 to 20 items of skewed popularity, a quarter of the catalog likelier than the rest for each."""
    rng = np.random.default_rng(seed)
    share = (np.arange(1, items + 1) + 30.0) ** -0.8
    theme = rng.integers(0, 4, items)
    rows: list[tuple[int, int]] = []
    for user in range(users):
        weight = share * np.where(theme == user % 4, 8.0, 1.0)
        chosen = np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(int(rng.integers(4, 21))))
        rows += [(user, int(item)) for item in np.unique(np.minimum(chosen, items - 1))]
    user, item = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    nan = np.full(len(user), np.nan, np.float32)
    place = np.concatenate([np.arange(n) for n in np.bincount(user, minlength=users)])
    kind = np.full(len(user), int(Event.INTERACTION), np.int8)
    return Interactions(user, item, place * DAY, place.astype(np.int32), kind, nan, nan, np.arange(users).astype(np.str_))


def matrix(log: Interactions, items: int) -> sparse.csr_matrix:
    """Who took what, as somebody who uses a library alone would build it."""
    ones = np.ones(len(log), np.float32)
    return sparse.csr_matrix((ones, (log.user, log.item)), shape=(log.users, items))


def als(log: Interactions, items: int) -> Comparison:
    """A fit of 64 factors."""
    from implicit.cpu.als import AlternatingLeastSquares

    every = np.ones(len(log), bool), np.ones(items, bool)

    def alone() -> F32:
        model = AlternatingLeastSquares(64, 1.0, 10.0, iterations=15, num_threads=1, random_state=0)
        model.fit(matrix(log, items), show_progress=False)
        return np.asarray(model.item_factors)

    return compare(
        "P-BL-1, ALS",
        ours=lambda: fit_als(log, *every).model.item_factors,
        peers={"implicit alone": alone},
        check=equal,
        target={"implicit alone": 1 / 1.03},
        rounds=15,
        notes=sizes(log, items),
    )


def bpr(log: Interactions, items: int) -> Comparison:
    """A fit of 64 factors, 100 passes."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    every = np.ones(len(log), bool), np.ones(items, bool)

    def alone() -> F32:
        model = BayesianPersonalizedRanking(64, 0.05, 0.01, iterations=100, num_threads=1, random_state=0)
        order = np.argsort(log.user_ids, kind="stable")  # rows in the order of the ids, as ours
        model.fit(matrix(log, items)[order], show_progress=False)
        return np.asarray(model.item_factors)

    return compare(
        "P-BL-1, BPR",
        ours=lambda: fit_bpr(log, *every).item_factors,
        peers={"implicit alone": alone},
        check=equal,
        target={"implicit alone": 1 / 1.03},
        rounds=15,
        notes=sizes(log, items),
    )


def lambdamart(contexts: int, candidates: int, features: int = 25) -> Comparison:
    """A fit of 50 trees on drawn evidence."""
    import lightgbm

    rng = np.random.default_rng(1)
    rows = rng.normal(size=(contexts * candidates, features)).astype(np.float32)
    label = (rows[:, 0] + rng.normal(size=len(rows)) > 2.5).astype(np.int32)
    group = np.full(contexts, candidates, np.int64)

    def alone() -> F32:
        data = lightgbm.Dataset(rows, label, group=group, params={"verbosity": -1})
        return np.asarray(lightgbm.train(parameters(TREES, 0), data, 50).predict(rows[:1_000]))

    return compare(
        "P-BL-1, LambdaMART",
        ours=lambda: fit_trees(Examples(rows, label, group), TREES, 50).predict(rows[:1_000]),
        peers={"LightGBM alone": alone},
        check=equal,
        target={"LightGBM alone": 1 / 1.03},
        rounds=15,
        notes={"rows": len(rows), "features": features, "trees": 50},
    )


def ease(log: Interactions, items: int) -> Comparison:
    """Both fits, the sparse product included."""
    every = np.ones(len(log), bool), np.ones(items, bool)
    judged = np.linspace(0, log.users - 1, min(log.users, 2_000)).astype(np.int32)
    contexts = contexts_at(log, judged, np.full(len(judged), 2**40, np.int64))
    taken = matrix(log, items)

    def inverse() -> F32:
        x = matrix(log, items)
        gram = (x.T @ x + L2 * sparse.identity(items, np.float32)).toarray()
        p = np.linalg.inv(gram)
        weights = p / -np.diag(p)
        np.fill_diagonal(weights, 0)
        return weights

    def check(_: str, ours: Ease, theirs: F32) -> float:
        """The largest difference of two scores, after the rankings were found to agree."""
        scores, others = ours.scores(contexts), (taken[judged] @ theirs).astype(np.float32)
        order = np.arange(items, dtype=np.int32)
        a = rank_by_scores(lambda part: scores[at(part)], contexts, order, 100)
        b = rank_by_scores(lambda part: others[at(part)], contexts, order, 100)
        same = np.mean([set(x) == set(y) or tied(s, x, y) for s, x, y in zip(scores, a, b, strict=True)])
        assert same >= 0.999, f"only {same:.4f} of the users have the same 100 best items"
        return float(np.abs(scores - others).max())

    def at(part: object) -> I32:
        return np.searchsorted(judged, part.user)  # type: ignore[attr-defined]

    return compare(
        "P-BL-2, EASE",
        ours=lambda: fit_ease(log, *every, L2, 1.0),
        peers={"np.linalg.inv": inverse},
        check=check,
        target={"np.linalg.inv": 3},
        rounds=5,
        notes=sizes(log, items),
    )


def tied(scores: F32, a: I32, b: I32) -> bool:
    """Whether two sets differ only in items whose scores rounding cannot tell apart at the end of the list."""
    exchanged = np.setxor1d(a, b)
    return bool(np.abs(scores[exchanged] - scores[a[-1]]).max() < 1e-6)


def equal(peer: str, ours: F32, theirs: F32) -> float:
    """0, or an error."""
    assert np.array_equal(ours, theirs), f"{peer} has another result"
    return 0.0


def sizes(log: Interactions, items: int) -> dict[str, int]:
    """What the fits read."""
    return {"users": log.users, "items": items, "events": len(log)}


def comparisons() -> Sequence[Comparison]:
    """Small sizes in a smoke run."""
    log, items = (people(400, 200), 200) if smoke() else (people(6_000, 3_000), 3_000)
    trees = lambdamart(60, 40) if smoke() else lambdamart(300, 300)
    return [als(log, items), bpr(log, items), trees, ease(log, items)]


if __name__ == "__main__":
    main("baselines", comparisons)
