"""Page measures on pages whose right answer is worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_shop import last_baskets, make_log

from layout.tiny import NOW, catalog
from pagellm.data.examination import Examination
from pagellm.data.look import Look
from pagellm.evaluation.metrics import accuracy_of
from pagellm.evaluation.pages.accuracy import dcg, expected_clicks, ideal_dcg, ndcg, relevance, wanted_rates, worth
from pagellm.evaluation.pages.reach import gini, long_tail, share_of
from pagellm.evaluation.pages.rules import order_sensitivity
from pagellm.evaluation.pages.variety import category_entropy, group_repeats, price_level, price_spread, repeats, row_overlap
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.types import NO_ITEM, Contexts, Impressions, Page, PageBatch, Slot

# User 0 takes items 1 and 4 next, user 1 takes item 2.
CONTEXTS = last_baskets(make_log([(0, 0, 0), (0, 1, 1), (0, 4, 1), (1, 0, 0), (1, 2, 3)]))
LOOK = Look(np.array([[1.0, 0.5], [0.4, 0.2]]))


def batch(*pages: list[int], contexts: Contexts = CONTEXTS, cols: int = 2) -> PageBatch:
    items = np.array(pages, np.int32)
    row, col = (np.tile(x, (len(items), 1)).astype(np.int16) for x in np.divmod(np.arange(items.shape[1]), cols))
    return PageBatch(contexts, np.arange(len(items)), items, row, col)


def two_rows(cols: int = 2, **rules: object) -> Layout:
    rows = [{"id": "a", "capacity": cols}, {"id": "b", "capacity": cols}]
    return Layout.model_validate({"id": "two", "rows": rows, "rules": rules})


def compiled(layout: Layout, **columns: list[object]):  # type: ignore[no-untyped-def]
    return compile_layout(layout, catalog(**(columns or {"price": [1.0] * 6})), NOW)


def test_relevance_counts_an_item_once_and_no_empty_slot() -> None:
    found = relevance(batch([1, 3, 1, NO_ITEM], [2, 2, NO_ITEM, 0]))
    np.testing.assert_array_equal(found, [[1, 0, 0, 0], [1, 0, 0, 0]])


def test_row_aware_dcg_by_hand() -> None:
    pages = batch([3, 1, 4, 5], [5, 3, 0, 2])  # hits at r0c1 and r1c0; at r1c1
    gained = dcg(relevance(pages), worth(pages, LOOK))
    np.testing.assert_allclose(gained, [0.5 + 0.4, 0.2])
    ideal, exact = ideal_dcg(CONTEXTS, compiled(two_rows()), LOOK)
    assert exact
    np.testing.assert_allclose(ideal, [1.5, 1.0])
    np.testing.assert_allclose(ndcg(gained, ideal), [0.9 / 1.5, 0.2])


def test_one_row_without_rules_has_the_ordinary_ndcg() -> None:
    rng = np.random.default_rng(0)
    log = make_log([(u, int(i), d) for u in range(30) for d in (0, 1) for i in rng.choice(12, rng.integers(1, 9), replace=False)])
    contexts = last_baskets(log)
    ranked = np.stack([rng.permutation(12)[:5] for _ in range(len(contexts))]).astype(np.int32)
    col = np.tile(np.arange(5), (30, 1)).astype(np.int16)
    pages = PageBatch(contexts, np.arange(30), ranked, np.zeros_like(col), col)
    ideal, _ = ideal_dcg(contexts, compiled(Layout.single_row(5), price=[1.0] * 12), Look())
    ours = ndcg(dcg(relevance(pages), worth(pages, Look())), ideal)
    ordinary = accuracy_of(ranked, log.item, contexts.stop, contexts.target_stop, (5,))[:, 0, 0]
    np.testing.assert_allclose(ours, ordinary, rtol=1e-12)


def test_normalising_can_turn_the_order_of_two_methods_around() -> None:
    ideal = np.array([1.5, 1.0])  # a user with two targets and one with a single target
    one, other = np.array([1.5, 0.0]), np.array([0.3, 1.0])
    assert one.mean() > other.mean()
    assert ndcg(one, ideal).mean() == pytest.approx(0.5)
    assert ndcg(other, ideal).mean() == pytest.approx(0.6)


def test_a_user_without_a_target_that_may_stand_has_no_gain_and_no_error() -> None:
    ideal, _ = ideal_dcg(CONTEXTS, compiled(two_rows(exclude=[{"items": ["i2"]}])), LOOK)
    np.testing.assert_allclose(ideal, [1.5, 0])
    np.testing.assert_array_equal(ndcg(np.array([1.5, 0.0]), ideal), [1, 0])


def shown(items: list[int], clicked: list[int], cols: int = 2) -> Impressions:
    """Pages of one row with `cols` slots."""
    pages, n = len(items) // cols, len(items)
    nothing = np.zeros(n, bool)
    return Impressions(
        np.arange(pages).astype(np.str_), np.zeros(pages, np.int32), np.zeros(pages, np.int64), np.full(pages, "p"),
        np.arange(pages + 1) * cols, np.array(items, np.int32), np.zeros(n, np.int16), np.tile(np.arange(cols), pages).astype(np.int16),
        np.full(n, np.nan, np.float32), np.full(n, -1, np.int8), np.array(clicked, bool), nothing, nothing, np.zeros(n, np.float32),
        np.zeros(pages, np.int64),
    )  # fmt: skip


def test_click_rates_and_expected_clicks_by_hand() -> None:
    # Item 0 stood at the places of chance 1 and .5 and was clicked once: 1.5 views. Item 1 as well, never clicked. Mean 1 / 3.
    examination = Examination(np.array([[1.0, 0.5]]), "clicks", np.array([[2, 2]]), np.array([[2.0, 2.0]]), "by hand")
    wanted = wanted_rates(shown([0, 1, 1, 0], [1, 0, 0, 0]), examination, 3)
    np.testing.assert_allclose(wanted, [(1 + 20 / 3) / 21.5, (20 / 3) / 21.5, 1 / 3], rtol=1e-6)
    pages = batch([0, 1, 2, NO_ITEM], contexts=CONTEXTS)
    np.testing.assert_allclose(expected_clicks(pages, LOOK, wanted), [wanted[0] + 0.5 * wanted[1] + 0.4 * wanted[2]])


def test_expected_clicks_of_a_log_s_own_pages_are_its_clicks() -> None:
    rng = np.random.default_rng(1)
    look, appeal = np.array([1.0, 0.4]), rng.uniform(0.05, 0.6, 4)
    items = np.stack([rng.permutation(4)[:2] for _ in range(6_000)])
    log = shown(items.ravel().tolist(), (rng.random(items.shape) < look * appeal[items]).ravel().tolist())
    examination = Examination(look[None], "clicks", np.full((1, 2), 6_000), np.full((1, 2), 6_000.0), "known")
    pages = PageBatch(
        CONTEXTS, np.zeros(6_000, np.int64), items.astype(np.int32), *(x.reshape(-1, 2) for x in (log.row, log.col))
    )
    told = expected_clicks(pages, Look(look[None]), wanted_rates(log, examination, 4)).sum()
    assert told == pytest.approx(log.clicked.sum(), rel=0.01)


def test_exact_and_group_redundancy_by_hand() -> None:
    pages = np.array([[0, 1, 0, 0], [2, NO_ITEM, NO_ITEM, 3]], np.int32)
    np.testing.assert_array_equal(repeats(pages), [2, 0])
    np.testing.assert_array_equal(group_repeats(pages, np.array([7, -1, 5, 5], np.int32)), [2, 1])
    np.testing.assert_array_equal(group_repeats(pages, np.full(4, -1, np.int32)), [0, 0])


def test_category_entropy_by_hand() -> None:
    theme = np.array([0, 0, 1, 2, -1], np.int32)
    found = category_entropy(
        np.array([[0, 1, 2, 2], [0, 2, 3, 4], [0, 1, 4, NO_ITEM], [4, 4, NO_ITEM, NO_ITEM]], np.int32), theme
    )
    np.testing.assert_allclose(found, [1, np.log2(3), 0, 0], atol=1e-12)


def test_price_spread_by_hand() -> None:
    price = np.array([10.0, 40.0, np.nan, 10.0])
    found = price_spread(np.array([[0, 1], [0, 3], [0, 2], [NO_ITEM, NO_ITEM]], np.int32), price)
    np.testing.assert_allclose(found, [np.log(2), 0, 0, 0], atol=1e-12)  # ln 10 and ln 40 lie ln 2 on either side of their mean


def test_price_level_by_hand() -> None:
    price = np.array([2.0, 8.0, np.nan, 0.0])
    pages = np.array([[0, 1, 2], [1, NO_ITEM, NO_ITEM], [2, 3, NO_ITEM]], np.int32)
    np.testing.assert_allclose(price_level(pages, price), [4.0, 8.0, 4.0])  # nothing is known of the last, so the shop's
    np.testing.assert_array_equal(price_level(pages, np.full(4, np.nan)), 1.0)


def test_row_overlap_by_hand() -> None:
    theme = np.array([0, 0, 1, 2, -1], np.int32)
    row = np.array([[0, 0, 1, 1, 2, 2]] * 3)
    pages = np.array([[0, 2, 1, 3, 3, 3], [0, 0, 1, 1, NO_ITEM, 4], [4, 4, 4, 4, 0, 2]], np.int32)
    # {0, 1}, {0, 2}, {2}: 1/3, 0 and 1/2; {0}, {0} and a row that nothing is known of; one row alone
    np.testing.assert_allclose(row_overlap(pages, row, theme), [(1 / 3 + 0 + 1 / 2) / 3, 1.0, 0.0])


def test_the_long_tail_and_its_share_by_hand() -> None:
    tail = long_tail(np.array([50, 1, 30, 10, 9, 0]))
    np.testing.assert_array_equal(tail, [False, True, False, True, True, True])  # 50 and 30 of 100 are four fifths
    np.testing.assert_allclose(share_of(np.array([[0, 1, 3, NO_ITEM], [NO_ITEM] * 4], np.int32), tail), [2 / 3, 0])
    known = np.array([[True, False], [True, True]])
    np.testing.assert_allclose(share_of(np.array([[0, 1], [NO_ITEM, 2]], np.int32), known), [0.5, 1.0])


def test_gini_by_hand() -> None:
    every, one = np.ones(4, bool), np.ones((2, 2))
    assert gini(np.array([[0, 1], [2, 3]], np.int32), one, every).mean() == pytest.approx(0)
    # exposures 0, 0, 0, 4: (2 · 4 - 5) · 4 / (4 · 4) = .75, the most that four items allow
    assert gini(np.full((2, 2), 3, np.int32), one, every).mean() == pytest.approx(0.75)
    # exposures 0, 1, 1, 2: (-3 · 0 + -1 + 1 + 3 · 2) / (4 · 4) = .375
    assert gini(np.array([[0, 1], [2, 2]], np.int32), one, every).mean() == pytest.approx(0.375)
    assert (gini(np.full((2, 2), NO_ITEM, np.int32), one, every) == 0).all()


def test_the_interval_of_gini_is_about_as_wide_as_its_truth() -> None:
    rng, share = np.random.default_rng(2), 1 / np.arange(1, 101)
    draw = lambda: rng.choice(100, (300, 10), p=share / share.sum()).astype(np.int32)  # noqa: E731
    one, every = np.ones((300, 10)), np.ones(100, bool)
    truth = np.std([gini(draw(), one, every).mean() for _ in range(300)])
    ours = np.mean([np.std(gini(draw(), one, every)) / np.sqrt(300) for _ in range(20)])
    assert 0.8 < ours / truth < 1.3


def test_order_sensitivity_by_hand() -> None:
    def page(*items: int, rows: tuple[str, ...] = ("a",)) -> Page:
        return Page("one", rows, tuple(Slot(0, c, item) for c, item in enumerate(items)))

    found = order_sensitivity([page(1, 2, 3, 4)] * 3, [page(1, 2, 3, 4), page(1, 3, 2, 4), page(1, 2, 3, 4, rows=("b",))])
    np.testing.assert_array_equal(found, [0, 0.5, 1])
