"""The protocol on tiny splits whose figures are plain: warm, cold, misses, pairs, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from evaluation_shop import last_baskets, make_log, random_log

from pagellm.errors import DataError, PagellmError
from pagellm.evaluation.metrics import CUTS, MEASURES
from pagellm.evaluation.page_metrics import PAGE_MEASURES, ItemFacts
from pagellm.evaluation.protocol import check_ranked, cold_item_contexts, compare, evaluate
from pagellm.types import I32, NO_ITEM, Contexts


@dataclass(frozen=True)
class Fixed:
    """Ranks the same items for everybody."""

    name: str
    items: tuple[int, ...]

    def rank(self, contexts: Contexts, k: int) -> I32:
        row = np.full(k, NO_ITEM, np.int32)
        row[: len(self.items)] = self.items[:k]
        return np.tile(row, (len(contexts), 1))


@dataclass(frozen=True)
class Oracle:
    """Ranks the target basket first."""

    name: str = "oracle"

    def rank(self, contexts: Contexts, k: int) -> I32:
        ranked = np.full((len(contexts), k), NO_ITEM, np.int32)
        for c in range(len(contexts)):
            target = np.unique(contexts.target(c))[:k]
            ranked[c, : len(target)] = target
        return ranked


def facts(n_items: int) -> ItemFacts:
    vectors = np.eye(n_items, dtype=np.float32)
    return ItemFacts(vectors, vectors, np.arange(n_items, dtype=np.int32) % 3, np.full(n_items, 2.0))


# Users 0 and 1 are warm, user 2 is cold. Item 5 was never seen before the last baskets.
LOG = make_log([(0, 0, 0), (0, 1, 1), (1, 1, 0), (1, 2, 3), (1, 5, 3), (2, 3, 4)])
CANDIDATES = np.array([1, 1, 1, 1, 1, 0], bool)


def test_warm_and_cold_users_stand_apart() -> None:
    found = compare([Fixed("pagellm", (1, 3))], last_baskets(LOG), CANDIDATES, facts(6), resamples=50)
    assert found.results.users.tolist() == [0, 1]
    assert found.results.column("pagellm", "hit@10").tolist() == [1, 0]
    assert found.cold_users is not None
    assert found.cold_users["users"] == 1
    assert found.cold_users["methods"]["pagellm"]["mrr@10"] == {"mean": 0.5, "ci95": [0.5, 0.5]}  # type: ignore[index]


def test_a_target_outside_the_candidates_is_a_miss_also_against_the_ideal() -> None:
    found = compare([Fixed("pagellm", (2,))], last_baskets(LOG), CANDIDATES, facts(6), resamples=50)
    user_1 = {m: found.results.column("pagellm", m)[1] for m in found.results.metrics}
    assert user_1["recall@10"] == 0.5
    assert user_1["ndcg@10"] == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert found.card["targets_outside_candidates"] == 1


def test_cold_items_are_judged_among_themselves() -> None:
    contexts = cold_item_contexts(last_baskets(LOG), CANDIDATES)
    assert [contexts.target(c).tolist() for c in range(len(contexts))] == [[5]]
    assert contexts.history(0).tolist() == [1]
    found = compare(
        [Fixed("pagellm", (1,))],
        last_baskets(LOG),
        CANDIDATES,
        facts(6),
        cold_item_methods=[Fixed("pagellm", (5,))],
        resamples=50,
    )
    assert found.cold_items is not None
    assert (found.cold_items["users"], found.cold_items["candidates"]) == (1, 1)
    assert found.cold_items["methods"]["pagellm"]["ndcg@10"]["mean"] == 1  # type: ignore[index]


def test_cold_item_contexts_agree_with_sets_on_a_random_log() -> None:
    log = random_log(60, 40, seed=1)
    contexts, candidates = last_baskets(log), np.random.default_rng(2).random(40) < 0.7
    found = cold_item_contexts(contexts, candidates)
    expected = {
        int(contexts.user[c]): (contexts.history(c).tolist(), [i for i in contexts.target(c) if not candidates[i]])
        for c in range(len(contexts))
        if not candidates[contexts.target(c)].all()
    }
    got = {int(found.user[c]): (found.history(c).tolist(), found.target(c).tolist()) for c in range(len(found))}
    assert got == expected


def test_json_has_the_documented_form() -> None:
    contexts = last_baskets(random_log(80, 30, seed=3))
    methods = [Oracle("pagellm"), Fixed("popularity", tuple(range(20))), Fixed("nothing", ())]
    found = compare(methods, contexts, np.ones(30, bool), facts(30), split="last-out", resamples=200)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    metrics = {f"{m}@{k}" for m in MEASURES for k in CUTS} | set(PAGE_MEASURES)
    assert (told["split"], told["users"]) == ("last-out", 80)
    assert set(told["methods"]) == {"pagellm", "popularity", "nothing"}
    assert set(told["paired"]) == {"popularity", "nothing"}
    for name, row in told["methods"].items():
        assert set(row) == metrics
        for metric, cell in row.items():
            assert set(cell) == {"mean", "ci95"}
            assert cell["ci95"][0] - 1e-12 <= cell["mean"] <= cell["ci95"][1] + 1e-12, (name, metric)
    assert told["methods"]["pagellm"]["ndcg@10"]["mean"] == 1
    assert told["paired"]["nothing"]["recall@20"] == {"diff": 1.0, "ci95": [1.0, 1.0]}
    assert "ndcg@10" not in told["ratio"]["nothing"]  # a ratio to nothing is no number
    assert told["ratio"]["popularity"]["ndcg@10"]["ci95"][0] > 1
    assert told["best"]["ndcg@10"] == "popularity"
    assert told["p"]["popularity"]["ndcg@10"] < 0.01


def test_pairs_are_differences_of_the_same_users() -> None:
    contexts = last_baskets(random_log(60, 20, seed=4))
    found = compare([Oracle("pagellm"), Fixed("x", (0, 1, 2))], contexts, np.ones(20, bool), facts(20), resamples=100)
    difference = found.results.column("pagellm", "ndcg@10") - found.results.column("x", "ndcg@10")
    assert found.paired["x"]["ndcg@10"].value == pytest.approx(difference.mean())
    assert found.paired["x"]["ndcg@10"].low < difference.mean() < found.paired["x"]["ndcg@10"].high


def test_without_the_subject_nothing_is_paired() -> None:
    found = compare([Fixed("x", (0,))], last_baskets(LOG), CANDIDATES, facts(6), resamples=20)
    assert found.paired == {} == found.ratio


def test_per_user_values_are_kept_as_a_table() -> None:
    results = evaluate([Fixed("a", (1,)), Fixed("b", (2,))], last_baskets(LOG), CANDIDATES, facts(6))
    table = results.frame()
    assert table.height == 6
    assert table.filter(method="b", user=1)["recall@10"].item() == 0.5


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        ([[0, 5]], "ranks item 5 for context 0, which is no candidate"),
        ([[0, 6]], "ranks item 6"),
        ([[0, -2]], "ranks item -2"),
        ([[3, 3]], "ranks an item twice for context 0"),
        ([[0], [1]], r"must rank \[context, k\] for 1 contexts"),
    ],
)
def test_broken_rankings_are_refused(ranked: list[list[int]], message: str) -> None:
    with pytest.raises(PagellmError, match=message):
        check_ranked("x", np.array(ranked, np.int32), 1, CANDIDATES)


def test_empty_places_may_repeat() -> None:
    check_ranked("x", np.array([[0, NO_ITEM, NO_ITEM]], np.int32), 1, CANDIDATES)


def test_no_context_and_two_contexts_of_a_user_are_refused() -> None:
    contexts = last_baskets(LOG)
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate([Fixed("x", ())], contexts.take(np.zeros(0, np.intp)), CANDIDATES, facts(6))
    with pytest.raises(DataError, match="one context"):
        evaluate([Fixed("x", ())], contexts.take(np.array([0, 0])), CANDIDATES, facts(6))
