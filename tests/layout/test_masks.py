"""Each rule by hand on small shops: what the masks leave, in which order rules win, and what the notes say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tiny import NOW, context, masks_for, page_of, written

from pagellm.catalog import Catalog
from pagellm.errors import LayoutError, UsageError
from pagellm.layout.compiled import CompiledLayout, compile_layout
from pagellm.layout.masks import PageMasks
from pagellm.layout.reading import parse_layout
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Violation, validate_page
from pagellm.types import DAY, NO_ITEM, Origin

SHOP = Catalog(
    pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(6)],
            "title": ["Red cup", "red CUP!", "Blue cup", "Tea", "Pot", "Bowl"],
            "brand": ["a", "a", "a", "b", "b", None],
            "categories": [["cups"], ["cups"], ["cups"], ["tea"], ["tea", "pots"], ["pots"]],
            "group_id": ["g", "g", None, "h", None, None],
            "sponsored": [False, False, True, False, True, False],
            "margin": [0.1, 0.5, 0.5, None, 0.2, 0.9],
            "created_at": [NOW - n * 10 * DAY for n in range(6)],
        }
    )
)
EVERY = tuple(range(6))


def layout(rules: str, rows: str = '[{ id = "r", capacity = 3 }]', head: str = "") -> Layout:
    return parse_layout(f'id = "x"\n{head}\nrows = {rows}\n[rules]\n{rules}\n')


def start(
    rules: str, rows: str = '[{ id = "r", capacity = 3 }]', pool: tuple[int, ...] = EVERY, **asked: tuple[int, ...]
) -> PageMasks:
    return masks_for(compile_layout(layout(rules, rows), SHOP, NOW), pool, context(**asked), 1)


def items(masks: PageMasks) -> list[int]:
    """Catalog indexes that may stand in the current slot of the first page."""
    return sorted(int(item) for item in masks.state.items[0, : masks._pool][masks.allowed()[0]])


def put(masks: PageMasks, item: int) -> None:
    masks.place(np.array([int(np.flatnonzero(masks.state.items[0] == item)[0]) if item != NO_ITEM else -1]))


def test_nothing_but_no_repeats() -> None:
    rules = compile_layout(Layout.single_row(3), SHOP, NOW)
    assert rules.trivial
    assert rules.places == 3
    masks = masks_for(rules, (2, 4, 2, NO_ITEM), context(), 1)
    assert masks.allowed().tolist() == [[True, True, False, False]]  # the second copy of an item and padding never stand
    put(masks, 2)
    assert items(masks) == [4]
    put(masks, 4)
    assert items(masks) == []
    put(masks, NO_ITEM)
    assert masks.done.all()
    page = masks.pages()[0]
    assert [slot.item for slot in page.slots] == [2, 4, NO_ITEM]
    assert page.notes == ("r0c2: of 3 candidates 1 a repeat in the pool, 2 already on the page",)


@pytest.mark.parametrize(
    ("rules", "rows"),
    [
        ("pin = [{ item = 'i0', slot = 'r0c0' }]", "[{ id = 'r' }]"),
        ("ads = { max_share = 0.5 }", "[{ id = 'r', capacity = 2 }]"),
        ("min_per = [{ field = 'sponsored', limit = 1 }]", "[{ id = 'r' }]"),
        ("frequency_cap = { shown = 1, days = 7 }", "[{ id = 'r' }]"),
        ("", "[{ id = 'r', source = { theme = 'tea' } }]"),
    ],
)
def test_rules_are_not_trivial(rules: str, rows: str) -> None:
    assert not compile_layout(layout(rules, rows), SHOP, NOW).trivial


def test_exclude_and_bias_alone_stay_trivial() -> None:
    rules = compile_layout(
        layout("exclude = [{ items = ['i1', 'unknown'] }]\nboost = [{ where = 'margin > 0.3', factor = 2.0 }]"), SHOP, NOW
    )
    assert rules.trivial
    assert np.flatnonzero(rules.eligible).tolist() == [0, 2, 3, 4, 5]


def test_hidden_items_stand_nowhere() -> None:
    shop = Catalog(SHOP.frame.with_columns(hidden=pl.Series([True, None, False, False, False, False])))
    rules = compile_layout(Layout.single_row(1), shop, NOW)
    assert np.flatnonzero(~rules.eligible).tolist() == [0]


def test_boost_and_bury_add_logs() -> None:
    text = "boost = [{ where = 'margin > 0.3', factor = 2.0 }, "
    text += "{ where = \"brand == 'a'\", factor = 3.0 }]\n"
    text += "bury = [{ where = 'margin > 0.8', factor = 0.5 }]"
    masks = start(text, pool=(*EVERY, NO_ITEM))
    expected = np.log([3, 6, 6, 1, 1, 1, 1])
    assert masks.bias.dtype == np.float32
    np.testing.assert_allclose(masks.bias[0], expected, rtol=1e-6)
    put(masks, 1)
    put(masks, 3)
    put(masks, 5)
    assert [slot.origin for slot in masks.pages()[0].slots] == [Origin.BOOSTED, Origin.ORGANIC, Origin.BOOSTED]


def test_pin_wins_over_everything_but_exclude() -> None:
    rules = """
    pin = [{ item = 'i2', slot = 'r0c1' }]
    ads = { slots = ['r0c0'] }
    max_per = [{ field = 'brand', limit = 1 }]
    """
    rows = "[{ id = 'r', capacity = 3, source = { theme = 'tea' } }]"
    masks = start(rules, rows, shown=(2, 2))
    assert items(masks) == [4]  # sponsored, of the theme
    put(masks, 4)
    assert items(masks) == [2]  # sponsored, no ad slot, not of the theme: pinned
    put(masks, 2)
    assert items(masks) == []  # tea item i3 is of brand b, which i4 has used up
    put(masks, NO_ITEM)
    page = masks.pages()[0]
    assert [slot.origin for slot in page.slots] == [Origin.SPONSORED, Origin.PINNED, Origin.ORGANIC]
    assert validate_page(page, masks.rules.layout, SHOP, context(shown=(2, 2)), NOW) == []
    without = start("pin = [{ item = 'i2', slot = 'r0c0' }]\nexclude = [{ where = \"brand == 'a'\" }]")
    assert items(without) == [3, 4, 5]
    assert without.reasons(0) == ["pin i2 at r0c0 gives way: the item is hidden or excluded"]
    banned = start("pin = [{ item = 'i2', slot = 'r0c0' }]", exclude=(2,))
    assert items(banned) == [0, 1, 3, 4, 5]
    assert banned.reasons(0) == ["pin i2 at r0c0 gives way: the item is excluded for this context"]


def test_pins_count_before_they_are_reached() -> None:
    masks = start(
        "pin = [{ item = 'i3', slot = 'r0c2' }]\nmax_per = [{ field = 'brand', limit = 1 }]\ndedup = [{ unit = 'title' }]"
    )
    assert items(masks) == [0, 1, 2, 5]
    put(masks, 0)
    assert items(masks) == [5]


def test_pins_end() -> None:
    text = "pin = [{ item = 'i0', slot = 'r0c0', until = 2023-11-15 }]"  # NOW is 2023-11-14 22:13 UTC
    assert items(start(text)) == [0]
    late = compile_layout(layout(text), SHOP, NOW + DAY)
    assert not late.pins


def test_pins_that_cannot_be() -> None:
    with pytest.raises(LayoutError, match="'SKU' is not in the catalog \\(6 items\\)"):
        compile_layout(layout("pin = [{ item = 'SKU', slot = 'r0c0' }]"), SHOP, NOW)
    with pytest.raises(LayoutError, match="name the same slot"):
        compile_layout(layout("pin = [{ item = 'i0', slot = 'r0c0' }, { item = 'i1', slot = 'r.c0' }]"), SHOP, NOW)
    with pytest.raises(LayoutError, match="name the same item"):
        compile_layout(layout("pin = [{ item = 'i0', slot = 'r0c0' }, { item = 'i0', slot = 'r0c1' }]"), SHOP, NOW)
    rules = compile_layout(layout("pin = [{ item = 'i0', slot = 'r0c0' }]"), SHOP, NOW)
    assert rules.required_items.tolist() == [0]
    with pytest.raises(UsageError, match="missing from 1 of 1 candidate pools"):
        masks_for(rules, (1, 2), context(), 1)


def test_ads() -> None:
    slots = start("ads = { slots = ['r0c1'] }")
    assert items(slots) == [0, 1, 3, 5]
    put(slots, 0)
    assert items(slots) == [2, 4]
    share = start("ads = { max_share = 0.34 }")  # one of three slots
    assert items(share) == list(EVERY)
    put(share, 2)
    assert items(share) == [0, 1, 3, 5]


def test_limits_by_row_and_page() -> None:
    rows = "[{ id = 'r', capacity = 2 }, { id = 's', capacity = 2 }]"
    by_row = start("max_per = [{ field = 'brand', limit = 1, window = 'row' }]", rows)
    put(by_row, 0)
    assert items(by_row) == [3, 4, 5]
    put(by_row, 5)  # no brand: never counted
    assert items(by_row) == [1, 2, 3, 4]
    one_row = start("max_per = [{ field = 'brand', limit = 1, window = 'row', rows = ['s'] }]", rows)
    put(one_row, 0)
    assert items(one_row) == [1, 2, 3, 4, 5]
    value = start("max_per = [{ field = 'categories[0]', value = 'cups', limit = 1 }]", rows)
    put(value, 0)
    assert items(value) == [3, 4, 5]


def test_dedup_by_group_and_title() -> None:
    group = start("dedup = [{ unit = 'group_id' }]")
    put(group, 0)
    assert items(group) == [2, 3, 4, 5]
    title = start("dedup = [{ unit = 'title', scope = 'row' }]", "[{ id = 'r', capacity = 2 }, { id = 's', capacity = 2 }]")
    put(title, 0)
    assert items(title) == [2, 3, 4, 5]
    put(title, 2)
    assert items(title) == [1, 3, 4, 5]
    nothing = start("dedup = [{ unit = 'item' }]")
    put(nothing, 0)
    assert items(nothing) == [1, 2, 3, 4, 5]


def test_frequency_cap() -> None:
    assert items(start("frequency_cap = { shown = 2, days = 7 }", shown=(0, 0, 1))) == [1, 2, 3, 4, 5]


def test_soft_rules_give_way_in_a_slot_that_would_stay_empty() -> None:
    text = "dedup = [{ unit = 'group_id', soft = true }]\nfrequency_cap = { shown = 1, days = 7, soft = true }"
    masks = start(text, pool=(0, 1, 3), shown=(3,))
    put(masks, 0)
    assert items(masks) == [3]  # before dedup gives way, the lower frequency cap does
    put(masks, 3)
    assert items(masks) == [1]
    put(masks, 1)
    assert masks.reasons(0) == [
        "r0c1: frequency_cap 1 in 7 days gave way, the slot would have stayed empty",
        "r0c2: dedup group_id (page) gave way, the slot would have stayed empty",
    ]


def test_minimum_is_kept_until_the_last_slot() -> None:
    masks = start("min_per = [{ field = 'categories[0]', value = 'tea', limit = 2 }]")
    put(masks, 0)
    assert items(masks) == [3, 4]
    put(masks, 4)
    assert items(masks) == [3]


def test_minimum_takes_what_it_can_get() -> None:
    masks = start("min_per = [{ field = 'categories[0]', value = 'tea', limit = 3 }]")
    assert masks.reasons(0) == ["min_per categories[0] = tea ≥ 3 (page) cannot be met: the candidates allow 2"]
    put(masks, 0)
    assert items(masks) == [3, 4]
    soft = start("min_per = [{ field = 'categories[0]', value = 'tea', limit = 3, soft = true }]")
    assert soft.reasons(0) == ["min_per categories[0] = tea ≥ 3 (page) is dropped: the candidates cannot meet it"]
    put(soft, 0)
    assert items(soft) == [1, 2, 3, 4, 5]


def test_a_soft_rule_is_dropped_for_a_minimum() -> None:
    masks = start(
        "min_per = [{ field = 'group_id', value = 'g', limit = 2 }]\ndedup = [{ unit = 'group_id', soft = true }, { unit = 'title' }]",
        pool=(0, 1, 3),
    )
    assert masks.reasons(0)[0].endswith("cannot be met: the candidates allow 1")  # the hard dedup by title stands
    free = start("min_per = [{ field = 'group_id', value = 'g', limit = 2 }]\ndedup = [{ unit = 'group_id', soft = true }]")
    assert free.reasons(0) == ["dedup group_id (page) is dropped: a minimum rule cannot be met with it"]


def test_rows_of_the_policy() -> None:
    head = 'order = "policy"\nrows_shown = 2'
    rows = """[
      { id = "r" },
      { id = "s", optional = true, source = { theme = "pots" } },
      { id = "t", optional = true },
    ]"""
    rules = compile_layout(layout("min_per = [{ field = 'categories[0]', value = 'pots', limit = 1 }]", rows, head), SHOP, NOW)
    masks = masks_for(rules, (0, 3, 4, 5), context(), 2)
    assert not masks.allowed().any()
    assert masks.rows_allowed().tolist() == [[True, True, True]] * 2
    masks.place_row(np.array([1, 2]))
    assert masks.slot[0].tolist() == [0, 0]
    assert masks.allowed().tolist() == [[False, False, True, True], [True, True, True, True]]
    masks.place(np.array([2, 0]))
    assert masks.rows_allowed().tolist() == [[True, False, False]] * 2  # the required row comes last at the latest
    masks.place_row(np.array([0, 0]))
    assert masks.allowed().tolist() == [[False, False, False, True]] * 2
    masks.place(np.array([3, 3]))
    assert [page.rows for page in masks.pages()] == [("s", "r"), ("t", "r")]
    again = masks_for(rules, (0, 3, 4, 5), context(), 1)
    again.place_row(np.array([0]))
    again.place(np.array([0]))
    with pytest.raises(ValueError, match="cannot go on with row 0"):
        again.place_row(np.array([0]))


@pytest.mark.parametrize(
    ("pool", "asked"),
    [((), {}), ((NO_ITEM, NO_ITEM), {}), (EVERY, {"exclude": EVERY}), ((3,), {}), ((0, 0, 0), {})],
    ids=["no candidate", "padding", "all excluded", "one item", "one item thrice"],
)
def test_poor_pools_make_short_pages_with_reasons(pool: tuple[int, ...], asked: dict[str, tuple[int, ...]]) -> None:
    rules = compile_layout(layout("min_per = [{ field = 'sponsored', limit = 1 }]\ndedup = [{ unit = 'group_id' }]"), SHOP, NOW)
    masks = masks_for(rules, pool, context(**asked), 3)
    assert masks.allowed().shape == (3, len(pool))
    assert masks.bias.shape == (3, len(pool))
    while not masks.done.all():
        allowed = masks.allowed()
        masks.place(np.argmax(allowed, 1) if allowed.any() else np.full(3, -1))
    for page in masks.pages():
        wanted = set(pool) - {NO_ITEM} - set(asked.get("exclude", ()))
        assert set(page.items.tolist()) == wanted
        assert len(page.slots) == 3
        assert sum(note.startswith("r0c") for note in page.notes) == 3 - len(wanted)
        assert validate_page(page, rules.layout, SHOP, context(**asked), NOW, pool) == []


def test_log_probabilities_and_scores_reach_their_slots() -> None:
    masks = start("")
    for item in (3, 1, 0):
        put(masks, item)
    page = masks.pages(np.array([[-0.1, -0.2, -0.3]]), np.array([[3.0, 2.0, 1.0]]))[0]
    assert [(slot.logprob, slot.score) for slot in page.slots] == [(-0.1, 3.0), (-0.2, 2.0), (-0.3, 1.0)]
    assert page.items.tolist() == [3, 1, 0]


WRONG = [
    ("max_per = [{ field = 'brand', limit = 1 }]", (0, 1, 3), "max_per brand ≤ 1 (page)", "r0c1"),
    ("dedup = [{ unit = 'title' }]", (0, 3, 1), "dedup title (page)", "r0c2"),
    ("exclude = [{ where = 'margin > 0.8' }]", (0, 3, 5), "exclude margin > 0.8", "r0c2"),
    ("ads = { max_share = 0.34 }", (2, 4, 0), "ads max_share 0.34", "r0c1"),
    ("ads = { slots = ['r0c0'] }", (0, 1, 3), "ads in r0c0", "r0c0"),
    ("pin = [{ item = 'i5', slot = 'r0c0' }]", (0, 1, 3), "pin i5 at r0c0", "r0c0"),
    ("min_per = [{ field = 'sponsored', limit = 1 }]", (0, 1, 3), "min_per sponsored ≥ 1 (page)", ""),
    ("frequency_cap = { shown = 1, days = 7 }", (0, 1, 3), "frequency_cap 1 in 7 days", "r0c0"),
    ("", (0, 0, 3), "repeat", "r0c1"),
    ("", (0, NO_ITEM, 3), "empty", "r0c1"),
    ("", (0, 1, 99), "catalog", "r0c2"),
]


@pytest.mark.parametrize(("rules", "page", "rule", "slot"), WRONG)
def test_the_validator_names_rule_and_slot(rules: str, page: tuple[int, ...], rule: str, slot: str) -> None:
    asked = layout(rules)
    found = validate_page(page_of(asked, ("r",), page), asked, SHOP, context(shown=(0,)), NOW)
    assert (rule, slot) in [(violation.rule, violation.slot) for violation in found]


def test_the_validator_refuses_misshapen_pages() -> None:
    two = layout("", '[{ id = "r" }, { id = "s" }]')
    assert validate_page(page_of(two, ("s", "r"), (0, 1)), two, SHOP, context(), NOW)[0].rule == "row"
    assert validate_page(page_of(two, ("r",), (0,)), two, SHOP, context(), NOW)[0].rule == "row"
    page = page_of(two, ("r", "s"), (0, 1))
    assert validate_page(page, Layout.single_row(2), SHOP, context(), NOW) == [
        Violation("page", "", "the page is of layout 'x', not 'single'")
    ]
    assert validate_page(page, two, SHOP, context(), NOW, candidates=[0])[0].rule == "candidates"
    assert validate_page(page, two, SHOP, context(exclude=(1,)), NOW)[0].rule == "context"


COLUMNS = [
    ("max_per = [{ field = 'brnd', limit = 1 }]", "Did you mean 'brand'"),
    ("max_per = [{ field = 'categories', limit = 1 }]", "name a part, as in categories[0]"),
    ("max_per = [{ field = 'brand[0]', limit = 1 }]", "leave the part out"),
    ("max_per = [{ field = 'margin', limit = 1 }]", "Count texts, whole numbers or true/false"),
    ("max_per = [{ field = 'brand', value = 3, limit = 1 }]", "Write it as a text"),
    ("min_per = [{ field = 'brand', limit = 1 }]", "needs `value`"),
    ("exclude = [{ where = 'stock < 1' }]", "'stock' is not a column"),
]


@pytest.mark.parametrize(("rules", "message"), COLUMNS)
def test_columns_that_cannot_be_counted(rules: str, message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        compile_layout(layout(rules), SHOP, NOW)
    assert message in str(caught.value)


def test_columns_that_rules_need() -> None:
    bare = Catalog(SHOP.frame.select("item_id", "title"))
    for rules, rows in (
        ("ads = { max_share = 0.5 }", "[{ id = 'r', capacity = 2 }]"),
        ("dedup = [{ unit = 'group_id' }]", "[{ id = 'r' }]"),
        ("", "[{ id = 'r', source = { theme = 'tea' } }]"),
    ):
        with pytest.raises(LayoutError, match="Add it to the items file"):
            compile_layout(layout(rules, rows), bare, NOW)


def test_writing_is_the_same_in_any_batch() -> None:
    rules: CompiledLayout = compile_layout(
        layout("max_per = [{ field = 'brand', limit = 2 }]\ndedup = [{ unit = 'title' }]"), SHOP, NOW
    )
    pages = written(rules, EVERY, context())
    assert all(len(set(items)) == 3 for _, items in pages)
    assert (("r",), (0, 3, 5)) in pages
    assert (("r",), (0, 1, 5)) not in pages
