"""Ranking metrics against hand-computed 2 x 3 cases and against ranx."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_shop import last_baskets, make_log

from pagellm.evaluation.metrics import CUTS, MEASURES, accuracy, accuracy_of
from pagellm.types import NO_ITEM

LOG2_3 = np.log2(3)


def judge(ranked: list[list[int]], targets: list[list[int]], cuts: tuple[int, ...]) -> np.ndarray:
    ends = np.cumsum([len(t) for t in targets])
    items = np.array([i for t in targets for i in t], np.int32)
    return accuracy_of(np.array(ranked, np.int32), items, ends - [len(t) for t in targets], ends, cuts)


def test_two_contexts_three_ranks_by_hand() -> None:
    # Context 0 wants {1, 5}, gets 4, 1, 2: a hit at rank 2. Context 1 wants {0, 3, 7}, gets 3, 6, 0: hits at ranks 1 and 3.
    values = judge([[4, 1, 2], [3, 6, 0]], [[1, 5], [0, 3, 7]], (1, 3))
    ideal_2, ideal_3 = 1 + 1 / LOG2_3, 1 + 1 / LOG2_3 + 1 / 2
    expected = [
        [[0, 0, 0, 0, 0], [1 / LOG2_3 / ideal_2, 1 / 2, 1, 1 / 2, (1 / 2) / 2]],
        [[1, 1 / 3, 1, 1, 1 / 3], [(1 + 1 / 2) / ideal_3, 2 / 3, 1, 1, (1 + 2 / 3) / 3]],
    ]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-15)


def test_recall_divides_by_all_targets_and_ndcg_by_an_ideal_cut_at_k() -> None:
    values = judge([[0, 1]], [[0, 1, 2, 3]], (2,))[0, 0]
    assert dict(zip(MEASURES, values, strict=True)) == {"ndcg": 1.0, "recall": 0.5, "hit": 1.0, "mrr": 1.0, "map": 0.5}


def test_empty_places_hold_no_hit_and_keep_their_rank() -> None:
    values = judge([[NO_ITEM, 3, NO_ITEM]], [[3]], (3,))[0, 0]
    np.testing.assert_allclose(values, [1 / LOG2_3, 1, 1, 1 / 2, 1 / 2], rtol=0, atol=1e-15)


def test_a_repeated_item_hits_once_and_a_repeated_target_counts_once() -> None:
    once = judge([[3, 9, 9]], [[3]], (3,))
    np.testing.assert_array_equal(judge([[3, 3, 3]], [[3, 3]], (3,)), once)


def test_no_target_is_zero_everywhere() -> None:
    np.testing.assert_array_equal(judge([[1, 2, 3]], [[]], (1, 3)), 0)


def test_cut_offs_beyond_the_ranking_see_what_there_is() -> None:
    np.testing.assert_array_equal(judge([[1, 2]], [[2]], (2, 50))[0, 0], judge([[1, 2]], [[2]], (2, 50))[0, 1])


def test_names_and_contexts() -> None:
    contexts = last_baskets(make_log([(0, 1, 0), (0, 2, 1), (1, 3, 0), (1, 0, 2), (1, 4, 2)]))
    values = accuracy(np.array([[2, 0], [1, 0]], np.int32), contexts)
    assert set(values) == {f"{m}@{k}" for m in MEASURES for k in CUTS}
    np.testing.assert_allclose(values["recall@10"], [1, 0.5])
    np.testing.assert_allclose(values["mrr@20"], [1, 0.5])


@pytest.mark.parametrize("cuts", [(), (0, 5), (10, 10), (20, 10)])
def test_cut_offs_must_rise(cuts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cut-offs must be rising"):
        judge([[1]], [[1]], cuts)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\[context, rank\] with 2 contexts"):
        judge([[1]], [[1], [2]], (1,))


def test_equals_ranx_on_1000_random_cases() -> None:
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(5)
    n, depth, catalog = 1000, 100, 400
    ranked = np.argsort(rng.random((n, catalog)), axis=1)[:, :depth].astype(np.int32)
    targets = [rng.choice(catalog, rng.integers(1, 30), replace=False).tolist() for _ in range(n)]
    qrels = ranx.Qrels({str(c): {str(i): 1 for i in t} for c, t in enumerate(targets)})
    run = ranx.Run({str(c): {str(i): float(depth - r) for r, i in enumerate(row)} for c, row in enumerate(ranked)})
    ours = judge(ranked.tolist(), targets, CUTS)
    place = {c: p for p, c in enumerate(int(q) for q in qrels.keys())}  # noqa: SIM118 - a ranx type without __iter__
    order = [place[c] for c in range(n)]
    for j, theirs in enumerate(("ndcg", "recall", "hit_rate", "mrr", "map")):
        for k, cut in enumerate(CUTS):
            expected = ranx.evaluate(qrels, run, f"{theirs}@{cut}", return_mean=False)[order]
            np.testing.assert_allclose(ours[:, k, j], expected, rtol=0, atol=1e-12, err_msg=f"{theirs}@{cut}")
