"""The fused pass against plain numpy: the same rankings, the same metrics, in the memory of one batch."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pagellm.evaluation.full_catalog import ItemLists, factor_scores, judge_full_catalog
from pagellm.evaluation.metrics import accuracy_of
from pagellm.evaluation.top_k import top_row
from pagellm.types import NO_ITEM


def best(row: np.ndarray, k: int) -> np.ndarray:
    out, keys, places = np.empty(k, np.int32), np.empty(k, np.float32), np.empty(k, np.int64)
    top_row(row.astype(np.float32), out, keys, places, np.empty(len(row), np.int32))
    return out


def plain(row: np.ndarray, k: int) -> np.ndarray:
    """By a stable sort, NaN left out."""
    order = [i for i in np.argsort(-row, kind="stable") if row[i] == row[i]][:k]
    return np.array(order + [NO_ITEM] * (k - len(order)), np.int32)


@pytest.mark.parametrize("n", [1, 5, 40, 700, 3_000, 20_000])
@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_top_of_a_row_equals_a_stable_sort(n: int, levels: int) -> None:
    rng = np.random.default_rng(n + levels)
    for k in (1, 10, 100):
        row = rng.integers(0, levels, n).astype(np.float32)
        row[rng.random(n) < 0.2] = np.nan
        np.testing.assert_array_equal(best(row, k), plain(row, k))


def test_a_bound_that_was_guessed_too_high_is_given_up() -> None:
    row = np.zeros(10_000, np.float32)
    row[9::19] = 5  # what the sample reads, and nothing else, is high
    row[9::19][200:] = 0
    np.testing.assert_array_equal(best(row, 300), plain(row, 300))
    row[:] = -np.inf
    np.testing.assert_array_equal(best(row, 3), [0, 1, 2])


def lists(rng: np.random.Generator, users: int, items: int, most: int) -> ItemLists:
    counts = rng.integers(0, most + 1, users)
    return ItemLists(np.concatenate(([0], np.cumsum(counts))), rng.integers(0, items, counts.sum(), dtype=np.int32))


def test_equals_ranking_everything_at_once() -> None:
    rng = np.random.default_rng(3)
    users, items = rng.integers(-9, 9, (90, 8)).astype(np.float32), rng.integers(-9, 9, (400, 8)).astype(np.float32)
    seen, targets = lists(rng, 90, 400, 20), lists(rng, 90, 400, 4)
    scores = users @ items.T
    for u in range(90):
        scores[u, seen.items[seen.offsets[u] : seen.offsets[u + 1]]] = np.nan
    ranked = np.stack([plain(row, 30) for row in scores])
    values = accuracy_of(ranked, targets.items, targets.offsets[:-1], targets.offsets[1:], (5, 30))
    for batch in (7, 90, 500):
        parts = list(judge_full_catalog(factor_scores(users, items), 400, seen, targets, (5, 30), batch))
        assert [part.first for part in parts] == list(range(0, 90, batch))
        np.testing.assert_array_equal(np.concatenate([part.ranked for part in parts]), ranked)
        np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), values)


def test_memory_is_that_of_one_batch() -> None:
    rng = np.random.default_rng(4)
    users, items = rng.random((3_000, 4), np.float32), rng.random((5_000, 4), np.float32)
    seen, targets = lists(rng, 3_000, 5_000, 5), lists(rng, 3_000, 5_000, 3)
    score = factor_scores(users, items)
    next(judge_full_catalog(score, 5_000, seen, targets, batch=1))  # compilation
    tracemalloc.start()
    for _ in judge_full_catalog(score, 5_000, seen, targets, batch=512):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.2 * 512 * 5_000 * 4


def test_users_without_targets_gain_nothing_and_users_who_saw_all_get_nothing() -> None:
    seen = ItemLists(np.array([0, 0, 3]), np.array([0, 1, 2], np.int32))
    targets = ItemLists(np.array([0, 0, 1]), np.array([1], np.int32))
    (part,) = judge_full_catalog(factor_scores(np.ones((2, 1), np.float32), np.ones((3, 1), np.float32)), 3, seen, targets, (2,))
    np.testing.assert_array_equal(part.ranked, [[0, 1], [NO_ITEM, NO_ITEM]])
    assert not part.values.any()


def test_lists_that_do_not_fit_are_refused() -> None:
    one, two = ItemLists(np.array([0, 1]), np.array([0], np.int32)), ItemLists(np.array([0, 0, 0]), np.empty(0, np.int32))
    score = factor_scores(np.ones((1, 1), np.float32), np.ones((3, 1), np.float32))
    with pytest.raises(ValueError, match="same users"):
        next(judge_full_catalog(score, 3, one, two))
    with pytest.raises(ValueError, match="catalog of 3 items"):
        next(judge_full_catalog(score, 3, ItemLists(np.array([0, 1]), np.array([3], np.int32)), one))
