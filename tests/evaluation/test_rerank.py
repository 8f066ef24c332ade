"""Re-rankers by hand and by brute force: each end of their dials, and the greedy choice at every slot."""

from __future__ import annotations

import numpy as np
import pytest

from pagellm.evaluation.baselines.rerank import dpp, mmr, priced
from pagellm.types import NO_ITEM

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(30, 5)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
POOL = np.stack([RNG.permutation(30)[:12] for _ in range(20)]).astype(np.int32)
POOL[::3, 9:] = NO_ITEM
SCORES = RNG.normal(size=POOL.shape).astype(np.float32)


def in_order(slots: int) -> np.ndarray:
    order = np.argsort(np.where(POOL == NO_ITEM, np.inf, -SCORES), axis=1, kind="stable")[:, :slots]
    return np.take_along_axis(POOL, order, 1)


def test_one_end_of_each_dial_is_the_rankers_own_order() -> None:
    for pages in (mmr(SCORES, POOL, VECTORS, 5, 1.0), priced(SCORES, POOL, VECTORS, 5, 0.0, 0.6)):
        assert (pages == in_order(5)).all()
    assert (dpp(SCORES, POOL, VECTORS, 1, 2.0) == in_order(1)).all()
    assert (dpp(SCORES, POOL, VECTORS, 4, 60.0)[:, 0] == in_order(1)[:, 0]).all()


@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_mmr_takes_the_best_at_every_slot(share: float) -> None:
    pages = mmr(SCORES, POOL, VECTORS, 5, share)
    for c, page in enumerate(pages):
        real = POOL[c] != NO_ITEM
        items, score = POOL[c][real], SCORES[c][real]
        scaled = (score - score.min()) / (score.max() - score.min())
        for s, item in enumerate(page):
            left = ~np.isin(items, page[:s])
            near = np.maximum((VECTORS[items] @ VECTORS[page[:s]].T).max(1), 0) if s else np.zeros(len(items))
            value = np.where(left, share * scaled - (1 - share) * near, -np.inf)
            assert value[items == item][0] == pytest.approx(value.max(), abs=1e-6)


def test_the_price_is_paid_once_and_only_for_near_duplicates() -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[1] = vectors[0]
    pool, scores = np.array([[0, 1, 2, 3]], np.int32), np.array([[4.0, 3.0, 2.5, 1.0]], np.float32)
    assert priced(scores, pool, vectors, 4, 0.4, 0.6).tolist() == [[0, 1, 2, 3]]
    assert priced(scores, pool, vectors, 4, 0.6, 0.6).tolist() == [[0, 2, 1, 3]]
    assert priced(scores, pool, vectors, 4, 9.0, 0.6).tolist() == [[0, 2, 3, 1]]


@pytest.mark.parametrize("theta", [0.3, 1.0])
def test_dpp_adds_what_makes_the_determinant_largest(theta: float) -> None:
    pages = dpp(SCORES, POOL, VECTORS, 4, theta)
    for c, page in enumerate(pages):
        items = POOL[c][POOL[c] != NO_ITEM]
        quality = np.exp(theta * SCORES[c][POOL[c] != NO_ITEM].astype(np.float64))
        kernel = quality[:, None] * (VECTORS[items] @ VECTORS[items].T).astype(np.float64) * quality
        place = {int(item): at for at, item in enumerate(items)}
        for s in range(len(page)):
            before = [place[int(i)] for i in page[:s]]
            volumes = [
                -np.inf if j in before else np.linalg.det(kernel[np.ix_([*before, j], [*before, j])]) for j in range(len(items))
            ]
            assert volumes[place[int(page[s])]] == pytest.approx(max(volumes), rel=1e-4)


def test_copies_come_last_and_short_pools_leave_slots_empty() -> None:
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    pool, scores = np.array([[0, 1, 2, 3, NO_ITEM]], np.int32), np.array([[3.0, 2.9, 1.0, 0.0, 99.0]], np.float32)
    assert dpp(scores, pool, vectors, 6, 1.0).tolist() == [[0, 2, 3, 1, NO_ITEM, NO_ITEM]]
    assert mmr(scores, pool, vectors, 6, 0.3)[0, :4].tolist() == [0, 2, 3, 1]
    assert (mmr(np.zeros((1, 5), np.float32), np.full((1, 5), NO_ITEM, np.int32), vectors, 2, 0.5) == NO_ITEM).all()
