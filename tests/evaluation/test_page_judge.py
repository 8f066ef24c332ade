"""Pages of several methods under one layout: what is compared, on whom, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from evaluation_shop import last_baskets, random_log

from layout.tiny import NOW, catalog
from pagellm.data.look import Look
from pagellm.errors import DataError, UsageError
from pagellm.evaluation.page_metrics import ItemFacts, item_facts
from pagellm.evaluation.pages import judge
from pagellm.evaluation.pages.judge import judge_pages
from pagellm.evaluation.pages.pour import Poured, pour
from pagellm.evaluation.pages.stand import READING_ORDER, PageStand, page_stand
from pagellm.evaluation.protocol import Comparison, compare
from pagellm.evaluation.results import Results, over_seeds, tables
from pagellm.evaluation.seeds import put_together
from pagellm.layout.compiled import CompiledLayout, compile_layout
from pagellm.layout.spec import Layout
from pagellm.types import I32, NO_ITEM, Context, Contexts, Page

ITEMS = 30
SHOP = catalog(
    brand=[["x", "y", "z"][i % 3] for i in range(ITEMS)],
    price=[float(1 + i) for i in range(ITEMS)],
    group_id=["g" if i < 2 else None for i in range(ITEMS)],
)
CONTEXTS = last_baskets(random_log(60, ITEMS, seed=1))
NOBODY = Context(NOW, np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64))


@dataclass(frozen=True)
class Order:
    """Ranks items by index, the same for everybody."""

    name: str
    first: int = 0

    def rank(self, contexts: Contexts, k: int) -> I32:
        row = np.full(k, NO_ITEM, np.int32)
        row[: min(k, ITEMS)] = np.roll(np.arange(ITEMS), -self.first)[:k]
        return np.tile(row, (len(contexts), 1))


@dataclass(frozen=True)
class Moody(Poured):
    """A maker whose pages depend on the order of its candidates in the last slot."""

    def reordered(self, contexts: Contexts, asked: Sequence[Context], seed: int) -> tuple[list[Page], I32]:
        pages, pool = self.pages(contexts, asked)
        return [replace(p, slots=(*p.slots[:-1], replace(p.slots[-1], item=29))) for p in pages], pool


def layout(**rules: object) -> Layout:
    rows = [{"id": "a", "capacity": 3}, {"id": "b", "capacity": 2}]
    return Layout.model_validate({"id": "two", "rows": rows, "rules": rules})


def stand(rules: CompiledLayout) -> PageStand:
    vectors = np.eye(ITEMS, dtype=np.float32)
    facts = item_facts(SHOP, vectors, vectors, CONTEXTS.log, np.ones(len(CONTEXTS.log), bool))
    return page_stand(rules, np.ones(ITEMS, bool), SHOP, facts)


CAPPED = compile_layout(layout(max_per=[{"field": "brand", "limit": 1, "window": "row"}]), SHOP, NOW)


def test_a_ranking_is_poured_in_reading_order_within_the_rules() -> None:
    rules = compile_layout(
        layout(pin=[{"item": "i9", "slot": "r0c1"}], max_per=[{"field": "brand", "limit": 1, "window": "row"}]), SHOP, NOW
    )
    maker = Poured(Order("o"), rules)
    asked = [NOBODY] * 2
    pages, pool = maker.pages(CONTEXTS.take(np.arange(2)), asked)
    # i9 is of brand x, so row a goes on with y and z; row b takes x, then y
    assert [slot.item for slot in pages[0].slots] == [1, 9, 2, 0, 4]
    assert pool.shape[0] == 2
    free, _ = maker.unruled(CONTEXTS.take(np.arange(2)), asked)
    assert [slot.item for slot in free[0].slots] == [0, 1, 2, 3, 4]


def test_a_frequency_cap_holds_what_the_user_was_shown() -> None:
    rules = compile_layout(layout(frequency_cap={"shown": 2, "days": 7}), SHOP, NOW)
    asked = [replace(NOBODY, shown=np.array([0, 0, 1], np.int32)), NOBODY]
    pages = pour(rules, np.tile(np.arange(ITEMS, dtype=np.int32), (2, 1)), asked)
    assert [[slot.item for slot in page.slots][:2] for page in pages] == [[1, 2], [0, 1]]


def test_rows_that_may_be_chosen_stand_in_the_order_of_the_file() -> None:
    rows = [
        {"id": "a", "capacity": 1},
        {"id": "b", "capacity": 1, "optional": True},
        {"id": "c", "capacity": 1, "optional": True},
    ]
    free = Layout.model_validate({"id": "l", "order": "policy", "rows_shown": 2, "rows": rows})
    pages = pour(
        compile_layout(free, SHOP, NOW),
        np.arange(5, dtype=np.int32)[None],
        [Context(NOW, *(np.empty(0, t) for t in (np.int32, np.int8, np.int64)))],
    )
    assert pages[0].rows == ("a", "b")


def test_every_measure_has_an_interval_and_rules_are_told_raw_and_served() -> None:
    found = judge_pages(
        [Moody(Order("pagellm"), CAPPED), Poured(Order("other", 5), CAPPED)], CONTEXTS, stand(CAPPED), "pagellm", 100
    )
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    for measure in ("page_dcg", "page_ndcg", "filled", "repeats", "group_repeats", "near_duplicates", "ild", "category_entropy"):
        assert len(told["methods"]["pagellm"][measure]["ci95"]) == 2, measure
    assert {"novelty", "price_spread", "price_level", "coverage", "gini"} <= set(told["methods"]["other"])
    assert {"brand_entropy", "row_overlap", "tail_share", "new_share"} <= set(told["methods"]["other"])
    assert "ad_share" not in told["methods"]["other"]  # the layout has no ads
    assert "expected_clicks" not in told["methods"]["other"]  # there is no log of pages
    assert set(told["p_holm"]["other"]) == set(told["paired"]["other"]) == set(found.results.metrics)
    rules = told["rules"]["methods"]
    assert rules["pagellm"]["violations_served"]["mean"] == 0
    assert rules["pagellm"]["violations_raw"]["mean"] == 0  # 0, 1, 2 | 3, 4 happen to be of different brands
    assert rules["pagellm"]["order_sensitivity"]["mean"] == pytest.approx(1 / 5)
    assert "order_sensitivity" not in rules["other"]  # a ranking has no list of candidates
    assert told["card"]["look"] == READING_ORDER


def test_raw_breaches_are_counted_by_rule() -> None:
    one = compile_layout(layout(max_per=[{"field": "brand", "value": "x", "limit": 1, "window": "page"}]), SHOP, NOW)
    found = judge_pages([Poured(Order("pagellm"), one)], CONTEXTS, stand(one), "pagellm", 100)
    assert found.rates["pagellm"]["violations_raw"]["mean"] == 1  # 0, 1, 2 | 3, 4: 3 is the second x
    assert found.rates["pagellm"]["violations_served"]["mean"] == 0
    assert found.broken["pagellm"] == {"max_per brand = x ≤ 1 (page)": len(CONTEXTS)}


def test_of_many_users_some_are_drawn_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MOST_USERS", 20)
    monkeypatch.setattr(judge, "MOST_CHECKED", 7)
    found = judge_pages([Poured(Order("pagellm"), CAPPED)], CONTEXTS, stand(CAPPED), "pagellm", 100, seed=3)
    assert len(found.results.users) == len(set(found.results.users.tolist())) == 20
    assert len(found.checked.users) == 7
    assert found.card["users"] == "20 of 60 warm test users, drawn with seed 3"


def test_without_contexts_there_is_nothing_to_judge() -> None:
    with pytest.raises(DataError, match="no pages to judge"):
        judge_pages([Poured(Order("pagellm"), CAPPED)], CONTEXTS.take(np.zeros(0, np.int64)), stand(CAPPED), "pagellm")


def test_tables_correct_all_tests_of_the_comparison_together() -> None:
    rng = np.random.default_rng(0)
    ours = rng.random((80, 2))
    told = tables(Results(np.arange(80, dtype=np.int32), ("a", "b"), {"s": ours, "x": ours - 0.2, "y": ours}), "s", 200)
    assert told.p["x"]["a"] == pytest.approx(1 / 2_001)
    assert told.p_holm["x"]["a"] == pytest.approx(2 / 2_001)  # two tests; y never differs, so nothing is tested there
    assert told.p["y"] == told.p_holm["y"] == {"a": 1, "b": 1}
    assert told.paired["x"]["b"].low == pytest.approx(0.2)


def judged(seed: int) -> Comparison:
    facts = ItemFacts(np.eye(ITEMS, dtype=np.float32), np.eye(ITEMS, dtype=np.float32), np.zeros(ITEMS, np.int32), np.ones(ITEMS))
    methods = [Order("pagellm", seed), *([Order("base")] if seed == 0 else [])]
    pages = judge_pages([Poured(m, CAPPED) for m in methods], CONTEXTS, stand(CAPPED), "pagellm", 50)
    return replace(compare(methods, CONTEXTS, np.ones(ITEMS, bool), facts, resamples=50), pages=pages)


def test_seeds_are_put_together_as_one_method_and_drawn_beside_users() -> None:
    parts = [judged(seed) for seed in (0, 1, 4)]
    whole = put_together(parts, [0, 1, 4], resamples=500)
    mean = np.mean([part.methods["pagellm"]["ndcg@10"].value for part in parts])
    assert whole.methods["pagellm"]["ndcg@10"].value == pytest.approx(mean)
    assert whole.methods["base"]["ndcg@10"].value == parts[0].methods["base"]["ndcg@10"].value
    assert whole.paired["base"]["ndcg@10"].value == pytest.approx(mean - parts[0].methods["base"]["ndcg@10"].value)
    assert whole.card["seeds"] == [0, 1, 4]
    assert "3 training seeds" in str(whole.card["interval"])
    assert whole.cold_users is None
    assert whole.pages is not None
    assert whole.pages.figures.methods["pagellm"]["page_dcg"].value == pytest.approx(
        np.mean([part.pages.figures.methods["pagellm"]["page_dcg"].value for part in parts if part.pages])
    )
    json.dumps(whole.as_json(), allow_nan=False)


def test_results_of_other_users_are_not_put_together() -> None:
    a = Results(np.arange(3, dtype=np.int32), ("m",), {"s": np.zeros((3, 1))})
    with pytest.raises(UsageError, match="same users"):
        over_seeds([a, Results(np.arange(1, 4, dtype=np.int32), ("m",), {"s": np.zeros((3, 1))})])


def test_pages_before_the_test_teach_the_look_and_none_leaves_reading_order() -> None:
    from test_pages_by_hand import shown

    rules, facts = CAPPED, stand(CAPPED).facts
    log = shown([0, 1] * 300, [1, 0] * 300)
    told = page_stand(rules, np.ones(ITEMS, bool), SHOP, facts, log, 1)
    assert told.look.seen is not None
    assert told.wanted is not None
    assert told.wanted[0] > told.wanted[2] > told.wanted[1]
    assert "600" not in told.looked
    assert "300 pages before the test part" in told.looked
    before = page_stand(rules, np.ones(ITEMS, bool), SHOP, facts, log, 0)
    assert before.look == Look()
    assert before.wanted is None
    assert before.looked.startswith("reading order: ")
