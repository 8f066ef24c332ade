"""Classical baselines: one contract for all, brute force for each, a search that finds a known top."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation_shop import last_baskets, make_log, random_log

from pagellm.data.splits import make_split
from pagellm.errors import DataError, UsageError
from pagellm.evaluation.baselines.als import fit_als
from pagellm.evaluation.baselines.bpr import fit_bpr
from pagellm.evaluation.baselines.ease import fit_ease, tune_ease
from pagellm.evaluation.baselines.itemknn import fit_itemknn, tune_itemknn
from pagellm.evaluation.baselines.popularity import fit_popularity
from pagellm.evaluation.baselines.ranking import popular_first, rank_by_scores, recency_weights
from pagellm.evaluation.baselines.text import fit_text, tune_text
from pagellm.evaluation.baselines.tuning import climb
from pagellm.evaluation.methods import CLASSICAL, NAMES, QUICK, fit_classical, resolve
from pagellm.evaluation.protocol import Ranker, check_ranked
from pagellm.types import DAY, NO_ITEM, Bool, Contexts, Interactions

ITEMS = 50
LOG = random_log(120, ITEMS, seed=11)
CONTEXTS = last_baskets(LOG)
SEEN = np.ones(len(LOG), bool)
SEEN[np.concatenate([np.arange(a, b) for a, b in zip(CONTEXTS.stop, CONTEXTS.target_stop, strict=True)])] = False
CANDIDATES = np.arange(ITEMS) % 7 != 3
VECTORS = np.random.default_rng(12).normal(size=(ITEMS, 6)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)

FITS = {
    "popularity": lambda log, known, ok, repeats: fit_popularity(log, known, ok, None, repeats),
    "popularity-7d": lambda log, known, ok, repeats: fit_popularity(log, known, ok, 7, repeats),
    "itemknn": lambda log, known, ok, repeats: fit_itemknn(log, known, ok, repeats=repeats),
    "ease": lambda log, known, ok, repeats: fit_ease(log, known, ok, 5.0, repeats=repeats),
    "als": lambda log, known, ok, repeats: fit_als(log, known, ok, 16, repeats=repeats),
    "bpr": lambda log, known, ok, repeats: fit_bpr(log, known, ok, 16, repeats=repeats),
    "text": lambda log, known, ok, repeats: fit_text(log, known, ok, VECTORS[: len(ok)], repeats=repeats),
}


def fit(name: str, log: Interactions = LOG, known: Bool = SEEN, candidates: Bool = CANDIDATES, repeats: bool = False) -> Ranker:
    return FITS[name](log, known, candidates, repeats)


@pytest.mark.parametrize("name", FITS)
class TestContract:
    def test_candidates_only_none_twice_no_history(self, name: str) -> None:
        ranked = fit(name).rank(CONTEXTS, ITEMS)
        check_ranked(name, ranked, len(CONTEXTS), CANDIDATES)
        for c in range(len(CONTEXTS)):
            left = set(np.flatnonzero(CANDIDATES)) - set(CONTEXTS.history(c))
            assert set(ranked[c][ranked[c] != NO_ITEM]) == left

    def test_repeats_bring_the_history_back(self, name: str) -> None:
        ranked = fit(name, repeats=True).rank(CONTEXTS, ITEMS)
        assert all(set(row[row != NO_ITEM]) == set(np.flatnonzero(CANDIDATES)) for row in ranked)

    def test_a_shorter_ranking_is_a_prefix(self, name: str) -> None:
        method = fit(name)
        np.testing.assert_array_equal(method.rank(CONTEXTS, 5), method.rank(CONTEXTS, 20)[:, :5])

    def test_other_contexts_of_the_batch_do_not_matter(self, name: str) -> None:
        method, order = fit(name), np.random.default_rng(1).permutation(len(CONTEXTS))
        np.testing.assert_array_equal(method.rank(CONTEXTS.take(order), 10), method.rank(CONTEXTS, 10)[order])

    def test_knows_nothing_of_the_targets(self, name: str) -> None:
        changed = LOG.item.copy()
        changed[~SEEN] = (changed[~SEEN] + 1) % ITEMS
        log = replace(LOG, item=changed)
        np.testing.assert_array_equal(fit(name, log).rank(replace(CONTEXTS, log=log), 10), fit(name).rank(CONTEXTS, 10))

    def test_an_empty_history_gets_a_full_page(self, name: str) -> None:
        cold = replace(CONTEXTS, start=CONTEXTS.stop)
        assert (fit(name).rank(cold, 10) != NO_ITEM).all()

    def test_other_candidates(self, name: str) -> None:
        ranked = fit(name).among(~CANDIDATES).rank(CONTEXTS, 5)  # type: ignore[attr-defined]
        check_ranked(name, ranked, len(CONTEXTS), ~CANDIDATES)

    def test_no_context(self, name: str) -> None:
        assert fit(name).rank(CONTEXTS.take(np.zeros(0, np.intp)), 4).shape == (0, 4)


def two_worlds() -> tuple[Interactions, Contexts]:
    """Users take items of 0..4 or of 5..9 alone; the last item of each is left to guess."""
    rng = np.random.default_rng(3)
    events = []
    for u in range(60):
        own = rng.permutation(5)[:4] + 5 * (u % 2)
        events += [(u, int(i), day) for day, i in enumerate(own)]
    log = make_log(events)
    return log, last_baskets(log)


@pytest.mark.parametrize("name", ["itemknn", "ease", "text"])
def test_personal_methods_find_the_world_of_each_user(name: str) -> None:
    log, contexts = two_worlds()
    known = np.ones(len(log), bool)
    known[contexts.stop] = False
    worlds = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    method = fit_text(log, known, np.ones(10, bool), worlds) if name == "text" else fit(name, log, known, np.ones(10, bool))
    ranked = method.rank(contexts, 2)
    assert (ranked // 5 == contexts.user[:, None] % 2).all()


@pytest.mark.parametrize("days", [None, 1, 7, 30])
def test_live_popularity_equals_a_recount_from_the_raw_log(days: float | None) -> None:
    ranked = fit_popularity(LOG, SEEN, CANDIDATES, days).rank(CONTEXTS, 12)
    for c in range(len(CONTEXTS)):
        older = SEEN & (LOG.time < CONTEXTS.time[c])
        recent = older & (LOG.time >= CONTEXTS.time[c] - (days * DAY if days else 2**50))
        window, ever = (np.bincount(LOG.item[e], minlength=ITEMS) for e in (recent, older))
        left = [i for i in np.flatnonzero(CANDIDATES) if i not in set(CONTEXTS.history(c))]
        assert ranked[c].tolist() == sorted(left, key=lambda i: (-window[i], -ever[i], i))[:12]


def test_an_event_at_the_very_time_of_the_context_is_not_known() -> None:
    log = make_log([(0, 0, 0), (0, 1, 5), (1, 2, 5), (2, 2, 5), (3, 3, 4)])
    contexts = last_baskets(log).take(np.array([0]))
    every = np.ones(len(log), bool)
    assert fit_popularity(log, every, np.ones(4, bool), 7).rank(contexts, 1).tolist() == [[3]]


def test_itemknn_by_hand() -> None:
    # Item 0 was taken by users 0, 1; item 1 by 0, 1, 2; item 2 by 2. Pairs: (0,1) twice, (1,2) once.
    log = make_log([(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (2, 1, 0), (2, 2, 0)])
    found = fit_itemknn(log, np.ones(6, bool), np.ones(3, bool), shrink=1, neighbors=5).similarity.toarray()
    a, b = 2 / (np.sqrt(6) + 1), 1 / (np.sqrt(3) + 1)
    np.testing.assert_allclose(found, [[0, a, 0], [a, 0, b], [0, b, 0]], rtol=1e-6)


def test_itemknn_keeps_the_nearest_neighbors() -> None:
    full = fit_itemknn(LOG, SEEN, CANDIDATES, neighbors=ITEMS).similarity.toarray()
    cut = fit_itemknn(LOG, SEEN, CANDIDATES, neighbors=3).similarity.toarray()
    for whole, kept in zip(full, cut, strict=True):
        best = sorted(np.flatnonzero(whole), key=lambda i, w=whole: (-w[i], i))[:3]
        np.testing.assert_array_equal(np.flatnonzero(kept), sorted(best))
        np.testing.assert_array_equal(kept[best], whole[best])


def test_ease_equals_the_formula_of_the_paper() -> None:
    method = fit_ease(LOG, SEEN, CANDIDATES, l2=7.0, decay=0.5)
    taken = np.zeros((LOG.users, ITEMS))
    taken[LOG.user[SEEN], LOG.item[SEEN]] = 1
    inverse = np.linalg.inv(taken.T @ taken + 7 * np.eye(ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    expected = recency_weights(CONTEXTS, ITEMS, 0.5).toarray() @ weights
    seen = taken.any(0)
    np.testing.assert_allclose(method.scores(CONTEXTS)[:, seen], expected[:, seen], atol=1e-5)
    assert (method.scores(CONTEXTS)[:, ~seen] == 0).all()


def test_ease_solves_its_ridge_regression() -> None:
    # Independent of the closed form: column j of B minimizes |x_j - X b|^2 + l2 |b|^2 with b_j = 0.
    taken = np.zeros((LOG.users, ITEMS))
    taken[LOG.user[SEEN], LOG.item[SEEN]] = 1
    scores = fit_ease(LOG, SEEN, CANDIDATES, l2=7.0, decay=1.0).scores(CONTEXTS)
    for j in (0, 4, 9):
        others = np.delete(np.arange(ITEMS), j)
        x = taken[:, others]
        b = np.linalg.solve(x.T @ x + 7 * np.eye(len(others)), x.T @ taken[:, j])
        np.testing.assert_allclose(scores[:, j], recency_weights(CONTEXTS, ITEMS, 1.0).toarray()[:, others] @ b, atol=1e-5)


def test_ease_mirrors_its_matrix_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_ease(LOG, SEEN, CANDIDATES).precision
    monkeypatch.setattr("pagellm.evaluation.baselines.ease._BLOCK", 7)
    np.testing.assert_array_equal(fit_ease(LOG, SEEN, CANDIDATES).precision, whole)
    np.testing.assert_array_equal(whole, whole.T)


def test_ease_without_regularization_says_so() -> None:
    twins = make_log([(u, i, 0) for u in range(4) for i in (0, 1)])
    with pytest.raises(DataError, match="Raise l2"):
        fit_ease(twins, np.ones(8, bool), np.ones(2, bool), l2=-8.0)


def test_als_vectors_solve_their_equation() -> None:
    # Hu et al. 2008, equation 4: (Y'Y + Y'(C - I)Y + lambda I) x = Y'C p, the confidence fading with the history.
    method = fit_als(LOG, SEEN, CANDIDATES, 8, alpha=5.0, regularization=2.0, decay=0.5)
    y = method.model.item_factors.astype(np.float64)
    for row in recency_weights(CONTEXTS.take(np.arange(5)), ITEMS, 0.5).toarray():
        c = np.where(row > 0, 5.0 * row, 1.0)
        x = np.linalg.solve(y.T @ (y * c[:, None]) + 2 * np.eye(8), y.T @ (c * (row > 0)))
        expected = x @ y.T
        place = np.flatnonzero((recency_weights(CONTEXTS, ITEMS, 0.5).toarray() == row).all(1))[0]
        np.testing.assert_allclose(method.scores(CONTEXTS)[place], expected, atol=1e-4)


def test_history_weights_by_hand() -> None:
    log = make_log([(0, 4, 0), (0, 1, 3), (0, 2, 3), (0, 4, 9), (0, 0, 12)])
    weights = recency_weights(last_baskets(log), 5, 0.5).toarray()
    np.testing.assert_allclose(weights, [[0, 0.5, 0.5, 0, 1 + 0.25]])


def test_ties_go_to_the_more_popular_item_then_to_the_lower_index() -> None:
    log = make_log([(0, 3, 0), (1, 3, 0), (1, 1, 0), (2, 2, 1)])
    order = popular_first(log, np.ones(4, bool), np.array([1, 1, 1, 1, 0], bool))
    assert order.tolist() == [3, 1, 2, 0]
    contexts = last_baskets(log).take(np.array([2]))
    flat = rank_by_scores(lambda c: np.zeros((len(c), 5), np.float32), contexts, order, 4)
    assert flat.tolist() == [[3, 1, 2, 0]]


def test_selection_equals_sorting_with_many_ties() -> None:
    rng = np.random.default_rng(5)
    order = rng.permutation(ITEMS)[:40].astype(np.int32)
    table = rng.integers(0, 6, (len(CONTEXTS), ITEMS)).astype(np.float32)
    rows = {int(u): table[c] for c, u in enumerate(CONTEXTS.user)}
    ranked = rank_by_scores(lambda c: np.stack([rows[int(u)] for u in c.user]), CONTEXTS, order, 25, batch=17)
    for c in range(len(CONTEXTS)):
        left = [i for i in order if i not in set(CONTEXTS.history(c))]
        expected = sorted(left, key=lambda i, c=c: -table[c][i])[:25]
        assert ranked[c].tolist() == expected + [NO_ITEM] * (25 - len(expected))


def test_climbing_finds_the_top_of_a_hill_and_keeps_the_budget() -> None:
    grid = {"a": tuple(range(9)), "b": tuple(range(9))}
    found = climb(grid, lambda s: -((s["a"] - 7) ** 2) - (s["b"] - 1) ** 2, budget=60)
    assert found.best.settings == {"a": 7, "b": 1}
    assert len({tuple(t.settings.values()) for t in found.trials}) == len(found.trials)
    assert len(climb(grid, lambda s: s["a"] + s["b"], budget=4).trials) == 4


def test_searches_find_the_strength_that_was_planted() -> None:
    # Only the newest basket tells the next item, so the search must choose to forget fast.
    rng = np.random.default_rng(6)
    events = []
    for u in range(150):
        items = rng.permutation(20)[:5].tolist()
        events += [(u, i, day) for day, i in enumerate([*items, (items[-1] + 1) % 20])]
    log = make_log(events)
    contexts, everything = last_baskets(log), np.ones(20, bool)
    known = np.ones(len(log), bool)
    circle = np.arange(20) * 2 * np.pi / 20
    vectors = np.stack([np.cos(circle), np.sin(circle)], axis=1).astype(np.float32)
    for search in (
        tune_itemknn(log, known, everything, contexts),
        tune_ease(log, known, everything, contexts),
        tune_text(log, known, everything, vectors, contexts),
    ):
        assert search.best.settings["decay"] < 0.8
        assert search.best.score == max(t.score for t in search.trials)


def test_names() -> None:
    assert resolve(None) == QUICK
    assert resolve("all") == NAMES[1:]
    assert resolve("ease, Text,ease,pagellm") == ("ease", "text")
    with pytest.raises(UsageError, match=r"'itemnn' is not known\. Did you mean 'itemknn'\?"):
        resolve("itemnn")
    with pytest.raises(UsageError, match="at least one method"):
        resolve(" ,")


@pytest.mark.parametrize("protocol", ["temporal", "last-out"])
def test_every_classical_name_is_fitted_on_a_split(protocol: str) -> None:
    log = random_log(150, ITEMS, seed=13)
    split = make_split(log, ITEMS, protocol)
    contexts = split.test.take(split.test.warm)
    for name in CLASSICAL:
        fitted = fit_classical(name, split, VECTORS)
        assert fitted.ranker.name == name
        assert (fitted.search is None) == name.startswith("popularity")
        check_ranked(name, fitted.ranker.rank(contexts, 20), len(contexts), split.candidates_test)
        check_ranked(name, fitted.cold_items.rank(contexts, 20), len(contexts), ~split.candidates_test)
        if fitted.search:
            again = fit_classical(name, split, VECTORS, fitted.search.best.settings)
            np.testing.assert_array_equal(again.ranker.rank(contexts, 20), fitted.ranker.rank(contexts, 20))
    with pytest.raises(UsageError, match="Did you mean"):
        fit_classical("sasrec", split, VECTORS)


def test_a_search_sees_nothing_that_came_after_its_contexts() -> None:
    log = random_log(150, ITEMS, seed=13)
    split = make_split(log, ITEMS)
    late = ~split.fit_until_test
    changed = replace(log, item=np.where(late, (log.item + 1) % ITEMS, log.item).astype(np.int32))
    for name in ("itemknn", "ease", "text", "als", "bpr"):
        found = fit_classical(name, make_split(changed, ITEMS), VECTORS).search
        assert found == fit_classical(name, split, VECTORS).search


def test_a_search_fits_on_what_is_older_than_the_valid_contexts() -> None:
    split = make_split(random_log(150, ITEMS, seed=13), ITEMS)
    more = replace(split, fit_until_test=np.ones(len(split.log), bool), candidates_test=np.ones(ITEMS, bool))
    for name in ("itemknn", "ease", "text", "als", "bpr"):
        assert fit_classical(name, more, VECTORS).search == fit_classical(name, split, VECTORS).search


def test_popularity_is_live_where_time_parts_past_from_future_and_static_elsewhere() -> None:
    log = random_log(150, ITEMS, seed=13)
    for protocol in ("temporal", "last-out"):
        split = make_split(log, ITEMS, protocol)
        every = np.ones(len(log), bool)
        counted = every if protocol == "temporal" else split.fit_until_test
        contexts = split.test.take(split.test.warm)
        ranked = {
            name: fit_popularity(log, mask, split.candidates_test, 30).rank(contexts, 10)
            for name, mask in (("right", counted), ("wrong", split.fit_until_test if protocol == "temporal" else every))
        }
        assert (ranked["right"] != ranked["wrong"]).any()
        found = fit_classical("popularity-30d", split, VECTORS).ranker.rank(contexts, 10)
        np.testing.assert_array_equal(found, ranked["right"])
