"""What people read on a card, in the history strip and in the notes."""

from __future__ import annotations

import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_shop import HOSTILE, NOW, make_catalog, make_context, make_page, view_of

from pagellm.catalog import Catalog
from pagellm.reporting.view import page_view
from pagellm.reporting.words import age_text, chance_text, cut, plain, price_text
from pagellm.types import DAY, Context, Page, Slot


def test_cards_stand_in_reading_order_with_badges():
    view = view_of()
    assert [[card.slot_id for card in row.cards] for row in view.rows] == [
        [f"r0c{c}" for c in range(8)],
        [f"r1c{c}" for c in range(5)],
        [f"r2c{c}" for c in range(5)],
    ]
    badges = {card.slot_id: card.badge for row in view.rows for card in row.cards if card.badge}
    assert badges == {"r0c0": "Pinned", "r1c3": "Sponsored", "r2c1": "Explore"}
    first = view.rows[0].cards[0]
    assert (first.item_id, first.title, first.brand) == ("SKU-0", "Ostrelm Teapot No. 0, Sage", "Ostrelm")
    assert (first.price, first.category) == ("€9.95", "Home › Things")


def test_row_titles_fall_back_to_the_row_id():
    view = page_view(make_page(), make_catalog(), row_titles={"picks": "Top picks"})
    assert [row.title for row in view.rows] == ["Top picks", "Kitchen", "New"]


def test_an_empty_slot_tells_its_reason_and_the_note_tells_its_place():
    view = view_of()
    blank = view.rows[2].cards[4]
    assert blank.empty
    assert blank.reason == "only 4 items are younger than 30 days"
    assert view.notes == ("Row 3, slot 5: only 4 items are younger than 30 days", "min_per brand was dropped")


def test_a_row_note_reaches_its_empty_slots_only():
    page = Page("home", ("a", "b"), (Slot(0, 0, -1), Slot(1, 0, -1)), ("r0: nothing is in stock",))
    view = page_view(page, make_catalog())
    assert view.rows[0].cards[0].reason == "nothing is in stock"
    assert view.rows[1].cards[0].reason == "No item left that may stand here"


def test_history_runs_from_new_to_old_with_verbs_and_ages():
    assert [(p.verb, p.age, p.card.item_id) for p in view_of().history] == [
        ("bought", "today", "SKU-22"),
        ("viewed", "3 days ago", "SKU-21"),
        ("bought", "1 month ago", "SKU-20"),
    ]
    assert len(view_of(history=2).history) == 2


def test_scores_stay_out_unless_they_are_asked_for():
    hidden, shown = view_of().rows[0].cards[1], view_of(explained=True).rows[0].cards[1]
    assert (hidden.score, hidden.propensity, hidden.parts) == (None, None, ())
    assert (shown.score, shown.parts) == (1.5, (("similar text", -2.0), ("bought together", 0.5)))
    assert shown.propensity == pytest.approx(0.25)


def test_a_bare_catalog_and_an_empty_page_are_enough():
    catalog = Catalog(pl.DataFrame({"item_id": ["1"], "title": [None]}, schema={"item_id": pl.String, "title": pl.String}))
    view = page_view(Page("home", ("only",), (Slot(0, 0, 0),)), catalog)
    assert view.rows[0].cards[0].title == "Item 1"
    assert view.rows[0].cards[0].price == ""
    assert page_view(Page("home", (), ()), catalog).rows == ()


def test_an_anonymous_context_has_no_history():
    nothing = Context(NOW, np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64), query="red\x1b[31m shoes")
    view = page_view(make_page(), make_catalog(), nothing)
    assert view.history == ()
    assert view.query == "red[31m shoes"


def test_the_view_carries_no_user_id():
    assert "u42" not in repr(view_of())
    assert make_context().user == "u42"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_titles_come_out_plain_and_short(name):
    title = view_of({0: HOSTILE[name]}).rows[0].cards[0].title
    assert 0 < len(title) <= 200
    assert not [c for c in title if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]


@given(st.text(max_size=400))
def test_plain_never_stacks_more_than_three_marks(text):
    run = 0
    for char in plain(text):
        run = run + 1 if unicodedata.combining(char) else 0
        assert run <= 3


def test_thai_and_vietnamese_keep_their_marks():
    assert plain("น้ำหอมกลิ่นดอกไม้ Việt Nam हिन्दी") == unicodedata.normalize("NFKC", "น้ำหอมกลิ่นดอกไม้ Việt Nam हिन्दी")


@pytest.mark.parametrize(
    ("price", "currency", "text"),
    [
        (19.9, "EUR", "€19.90"),
        (1234.5, "USD", "$1,234.50"),
        (1200, "JPY", "¥1,200"),
        (5, "CHF", "5.00 CHF"),
        (5, "", "5.00"),
        (None, "EUR", ""),
        (float("nan"), "EUR", ""),
        (float("inf"), "EUR", ""),
        ("12", "EUR", ""),
        (True, "EUR", ""),
    ],
)
def test_prices(price, currency, text):
    assert price_text(price, currency) == text


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (0, "today"),
        (1, "1 day ago"),
        (6, "6 days ago"),
        (7, "1 week ago"),
        (29, "4 weeks ago"),
        (30, "1 month ago"),
        (800, "2 years ago"),
    ],
)
def test_ages(days, text):
    assert age_text(days * DAY) == text
    assert age_text(-5) == "today"


def test_chances_and_cuts():
    assert [chance_text(c) for c in (0.25, 0.001, 0.0001, 0.0)] == ["25.0 %", "0.1 %", "1 in 10,000", "0 %"]
    assert (cut("abcdef", 6), cut("abcdef", 4)) == ("abcdef", "abc…")
