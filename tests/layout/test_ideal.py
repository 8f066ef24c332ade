"""The best page that a layout allows: by hand, and by trying every page of tiny shops."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest
from tiny import NOW, catalog, context, page_of

from pagellm.catalog import Catalog
from pagellm.layout.compiled import compile_layout
from pagellm.layout.ideal import MOST_ORDERS, BestPages
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Validator

WORTH = np.array([[8.0, 4.0, 3.0], [2.0, 1.0, 0.5], [0.4, 0.2, 0.1]])


def look(row: np.ndarray, col: np.ndarray, place: np.ndarray) -> np.ndarray:
    return WORTH[row, col]


def by_place(row: np.ndarray, col: np.ndarray, place: np.ndarray) -> np.ndarray:
    return 1 / np.log2(place + 2)


def best(shop: Catalog, wanted: list[int], rows: list[dict[str, object]] | None = None, **rules: object) -> float:
    layout = Layout.model_validate(
        {"id": "l", "rows": rows or [{"id": "a", "capacity": 2}, {"id": "b", "capacity": 2}], "rules": rules}
    )
    return BestPages(compile_layout(layout, shop, NOW), look).worth(np.array(wanted, np.int32))


def shop(**more: list[object]) -> Catalog:
    plain = {"brand": ["x", "x", "x", "y", "z", "w"], "sponsored": [False] * 6, "fresh": [False] * 6}
    return catalog(**(plain | more))


def test_without_rules_wanted_items_stand_in_the_best_slots() -> None:
    assert best(shop(), [0]) == 8
    assert best(shop(), [0, 1, 1, 3]) == 8 + 4 + 2
    assert best(shop(), [0, 1, 2, 3, 4, 5]) == 8 + 4 + 2 + 1
    assert best(shop(), []) == 0


def test_a_pin_takes_its_slot_and_gains_it_where_the_item_is_wanted() -> None:
    pin = [{"item": "i5", "slot": "r0c0"}]
    assert best(shop(), [0], pin=pin) == 4
    assert best(shop(), [0, 5], pin=pin) == 8 + 4


def test_a_cap_leaves_items_out_or_sends_them_to_another_row() -> None:
    assert best(shop(), [0, 1, 2], max_per=[{"field": "brand", "limit": 2, "window": "page"}]) == 8 + 4
    assert best(shop(), [0, 1], max_per=[{"field": "brand", "limit": 1, "window": "row"}]) == 8 + 2
    # one of the brand a row: the second goes to row b, so y may have the better slot
    assert best(shop(), [0, 1, 3], max_per=[{"field": "brand", "limit": 1, "window": "row"}]) == 8 + 4 + 2
    pinned = {"pin": [{"item": "i0", "slot": "r1c1"}], "max_per": [{"field": "brand", "limit": 2, "window": "page"}]}
    assert best(shop(), [1, 2], **pinned) == 8


def test_a_soft_rule_gives_way_so_it_bounds_nothing() -> None:
    shop_ = shop(group_id=["g", "g", "h", None, None, None])
    assert best(shop_, [0, 1], dedup=[{"unit": "group_id"}]) == 8
    assert best(shop_, [0, 1], dedup=[{"unit": "group_id", "soft": True}]) == 12


def test_rows_that_take_only_some_items() -> None:
    rows = [{"id": "a", "capacity": 2, "source": {"filter": "brand == 'y'"}}, {"id": "b", "capacity": 2}]
    assert best(shop(), [0, 3], rows) == 8 + 2
    assert best(shop(), [0, 1, 2], rows) == 2 + 1
    assert best(shop(hidden=[True, *[False] * 5]), [0, 3], rows) == 8


def test_slots_for_sponsored_items() -> None:
    ads = {"slots": ["a.c0"], "max_share": 0.5}
    found = shop(sponsored=[True, False, False, False, False, True])
    assert best(found, [1], ads=ads) == 4
    assert best(found, [0, 1], ads=ads) == 8 + 4
    assert best(found, [0, 5], ads=ads) == 8


def test_a_minimum_rule_keeps_slots_free() -> None:
    least = [{"field": "fresh", "limit": 3, "window": "page"}]
    found = shop(fresh=[False, False, False, True, True, True])
    assert best(found, [0, 1], min_per=least) == 8
    assert best(found, [0, 3], min_per=least) == 8 + 4
    in_row = [{"field": "fresh", "limit": 2, "window": "row", "rows": ["a"]}]
    assert best(found, [0, 1], min_per=in_row) == 2 + 1
    assert best(found, [3, 0], min_per=in_row) == 8 + 2


def test_rows_in_any_order_stand_where_they_gain_most() -> None:
    rows = [{"id": "a", "capacity": 2}, {"id": "b", "capacity": 2, "source": {"filter": "brand == 'y'"}}]
    layout = Layout.model_validate({"id": "l", "order": "policy", "rows": rows})
    pages = BestPages(compile_layout(layout, shop(), NOW), look)
    assert pages.exact
    assert pages.worth(np.array([3], np.int32)) == 8
    assert pages.worth(np.array([0, 1, 3], np.int32)) == 8 + 4 + 2


def test_with_too_many_orders_it_is_an_upper_bound() -> None:
    rows = [{"id": name, "capacity": size} for name, size in (("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1))]
    layout = Layout.model_validate({"id": "l", "order": "policy", "rows": rows})
    pages = BestPages(compile_layout(layout, shop(), NOW), by_place)
    assert not pages.exact
    assert MOST_ORDERS < 120
    assert pages.worth(np.array([0, 1], np.int32)) >= 1 + 1 / np.log2(3)


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_best_of_all_pages_that_the_validator_accepts(seed: int) -> None:
    """Six items of which three are like no other, so that some item always fills a slot without taking a place from a wanted one."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(6)],
            "title": [f"Item {n}" for n in range(6)],
            "brand": [*rng.choice(["x", "y"], 3).tolist(), None, None, None],
            "fresh": [*rng.choice([True, False], 5).tolist(), True],
        }
    )
    rules: dict[str, object] = {"max_per": [{"field": "brand", "limit": 1, "window": str(rng.choice(["row", "page"]))}]}
    if rng.random() < 0.6:
        rules["min_per"] = [{"field": "fresh", "limit": int(rng.integers(1, 3)), "window": "page"}]
    if rng.random() < 0.5:
        rules["pin"] = [{"item": "i4", "slot": str(rng.choice(["r0c0", "r1c0"]))}]
    rows = [{"id": "a", "capacity": 2}, {"id": "b", "capacity": 1}]
    layout = Layout.model_validate({"id": "l", "rows": rows, "rules": rules})
    items = Catalog(frame)
    ours = BestPages(compile_layout(layout, items, NOW), look)
    check = Validator(layout, items, NOW)
    wanted = rng.choice(6, int(rng.integers(1, 4)), replace=False).astype(np.int32)
    worths = np.array([8.0, 4.0, 2.0])
    most = 0.0
    for filled in product(range(6), repeat=3):
        gain = float(worths[np.isin(filled, wanted)].sum())
        if len(set(filled)) == 3 and gain > most and not check.check(page_of(layout, ("a", "b"), filled), context()):
            most = gain
    assert ours.worth(wanted) == pytest.approx(most)
