"""The expression language: what it means, by hand and against the validator's own reading; what it refuses, and where it points."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagellm.catalog import Catalog
from pagellm.errors import LayoutError
from pagellm.layout.facts import Facts
from pagellm.layout.select import select
from pagellm.layout.spec import Layout
from pagellm.layout.where import MAX_CHARS, parse_where

NOW = 1_700_000_000
DAY = 86_400

SHOP = Catalog(
    pl.DataFrame(
        {
            "item_id": ["i0", "i1", "i2", "i3"],
            "title": ["a", "b", "c", "d"],
            "brand": ["Lune", "Ost", None, "Lune"],
            "price": [1.0, 2.5, None, float("nan")],
            "stock": [0, 3, 5, None],
            "hidden": [True, False, None, False],
            "categories": [["Home", "Tea"], ["Home"], [], None],
            "created_at": [NOW - DAY, NOW - 40 * DAY, None, NOW - 30 * DAY],
            "empty": pl.Series([None] * 4, dtype=pl.Null),
        }
    )
)

CASES = [
    ("brand == 'Lune'", [0, 3]),
    ("brand != 'Lune'", [1]),
    ("not brand == 'Lune'", [1, 2]),
    ('brand == "Ost"', [1]),
    ("brand in ('Ost', 'Lune')", [0, 1, 3]),
    ("brand not in ['Ost']", [0, 2, 3]),
    ("price < 2.5", [0]),
    ("price <= 2.5", [0, 1]),
    ("price >= -1e2", [0, 1]),
    ("price is missing", [2, 3]),
    ("price is not missing", [0, 1]),
    ("stock > 2", [1, 2]),
    ("stock == 3", [1]),
    ("stock in (0, 5)", [0, 2]),
    ("hidden", [0]),
    ("not hidden", [1, 2, 3]),
    ("hidden == false", [1, 3]),
    ("'Tea' in categories", [0]),
    ("'Tea' not in categories", [1, 2, 3]),
    ("categories[0] == 'Home'", [0, 1]),
    ("categories[1] is missing", [1, 2, 3]),
    ("age_days < 30", [0]),
    ("age_days <= 30", [0, 3]),
    ("empty == 3 or empty == 'x' or empty", []),
    ("empty is missing", [0, 1, 2, 3]),
    ("hidden or brand == 'Ost' and price > 2", [0, 1]),
    ("(hidden or brand == 'Ost') and price > 2", [1]),
    ("not (hidden or stock > 4)", [1, 3]),
]


@pytest.mark.parametrize(("text", "items"), CASES)
def test_meaning(text: str, items: list[int]) -> None:
    assert [int(i) for i in select(text, SHOP, NOW).nonzero()[0]] == items
    facts = Facts(Layout.single_row(1), SHOP, NOW)
    assert [item for item in range(4) if facts.holds(parse_where(text), item)] == items


def test_age_of_dates_and_times() -> None:
    times = pl.from_epoch(SHOP.frame["created_at"], "s")
    for column in (times, times.dt.replace_time_zone("UTC"), times.cast(pl.Datetime("ms"))):
        shop = Catalog(SHOP.frame.with_columns(created_at=column))
        assert select("age_days <= 30", shop, NOW).tolist() == [True, False, False, True]
        facts = Facts(Layout.single_row(1), shop, NOW)
        assert [facts.holds(parse_where("age_days <= 30"), item) for item in range(4)] == [True, False, False, True]


WRONG = [
    ("price = 3", 6, "Write == to compare"),
    ("price <", 7, "Expected a number"),
    ("price < 'a", 8, "no closing quote"),
    ("3 < price", 0, "Expected the name of a column"),
    ("price < 3 brand", 10, "Expected `and`, `or` or the end"),
    ("price iss missing", 6, "Did you mean 'is'"),
    ("brand in 'Ost'", 9, "list of values in brackets"),
    ("brand in ('Ost'", 15, "closing bracket"),
    ("(hidden", 7, "Expected ')'"),
    ("categories[x]", 11, "whole number"),
    ("hidden & price", 7, "Write `and`"),
    ("", 0, "Expected the name of a column"),
    ("'Tea' == brand", 6, "After a quoted text comes `in`"),
    ("__import__('os')", 10, "Expected `and`"),
]


@pytest.mark.parametrize(("text", "at", "message"), WRONG)
def test_refusals_point_at_the_character(text: str, at: int, message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        parse_where(text)
    first, shown, caret = str(caught.value).split("\n")
    assert message in first
    assert shown == f"    {text}"
    assert caret == " " * (4 + at) + "^"


BOUND = [
    ("prise < 3", "Did you mean 'price'"),
    ("hidden and stok > 1", "Did you mean 'stock'"),
    ("price == 'x'", "Compare it with a number"),
    ("brand < 3", "Compare it with a text"),
    ("brand < 'b'", "Only numbers have an order"),
    ("brand", "Compare it with a text in quotes"),
    ("brand[0] == 'x'", "Only a list column has parts"),
    ("'x' in brand", "write brand == 'x'"),
    ("categories == 'Home'", "'text' in column"),
]


@pytest.mark.parametrize(("text", "message"), BOUND)
def test_refusals_of_a_catalog(text: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message.replace("[", "\\[")):
        select(text, SHOP, NOW)


def test_long_and_deep() -> None:
    with pytest.raises(LayoutError, match="nest 40 deep"):
        parse_where("(" * 500 + "hidden" + ")" * 500)
    with pytest.raises(LayoutError, match="nest 40 deep"):
        parse_where("not " * 450 + "hidden")
    with pytest.raises(LayoutError, match="2,000 characters"):
        parse_where("a" * (MAX_CHARS + 1))
    assert not select(" or ".join(["hidden"] * 200), SHOP, NOW)[1]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=60), st.text("()[]'\"<>=!,-._ \n\tabnotrmisg013", max_size=60)))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse_where(text)
    except LayoutError as error:
        said = str(error)
    else:
        return
    assert said.rstrip().endswith("^")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 0) -> str:
    if depth < 3 and draw(st.booleans()):
        left, right = draw(expressions(depth + 1)), draw(expressions(depth + 1))
        return draw(st.sampled_from([f"({left} and {right})", f"({left} or {right})", f"not ({left})"]))
    return draw(st.sampled_from([text for text, _ in CASES]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(expressions())
def test_both_readings_agree(text: str) -> None:
    facts = Facts(Layout.single_row(1), SHOP, NOW)
    assert select(text, SHOP, NOW).tolist() == [facts.holds(parse_where(text), item) for item in range(4)]
