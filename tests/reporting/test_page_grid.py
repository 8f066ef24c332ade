"""The terminal grid keeps its width, its lines and its columns, whatever the titles are."""

from __future__ import annotations

import dataclasses
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from sample_shop import HOSTILE, make_catalog, view_of

from pagellm.reporting.receipt import WORDS, ReceiptView, receipt_view
from pagellm.reporting.terminal import page_grid
from pagellm.reporting.view import page_view
from pagellm.types import Page, Slot


def test_a_small_page_drawn_by_hand():
    page = Page("home", ("picks",), (Slot(0, 0, 0), Slot(0, 1, -1)), ("r0c1: out of stock",))
    text = page_grid(page_view(page, make_catalog(), shop="Shop"), 40).plain
    assert text == "\n".join(
        [
            "Shop",
            "",
            "Picks  (1 of 2 slots)",
            "┌──────────────────┬──────────────────┐",
            "│ Ostrelm Teapot   │ (empty)          │",
            "│ No. 0, Sage      │ out of stock     │",
            "│ €9.95            │                  │",
            "└──────────────────┴──────────────────┘",
            "! Row 1, slot 2: out of stock",
            "layout home · items 1",
        ]
    )


@pytest.mark.parametrize("width", [20, 40, 79, 100, 160, 300])
@pytest.mark.parametrize("explained", [False, True])
def test_no_line_is_wider_than_asked(width, explained):
    lines = page_grid(view_of(HOSTILE_TITLES, explained), width).plain.split("\n")
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [40, 100])
def test_the_boxes_close_on_every_line(width):
    lines = page_grid(view_of(HOSTILE_TITLES, True), width).plain.split("\n")
    for place, line in enumerate(lines):
        if line.startswith("│"):
            assert line.endswith("│")
            assert cell_len(line) == cell_len(next(above for above in reversed(lines[:place]) if above.startswith("┌")))


def test_a_hostile_title_changes_only_its_own_box():
    clean = page_grid(view_of(), 100).plain.split("\n")
    for title in HOSTILE.values():
        dirty = page_grid(view_of({0: title}), 100).plain.split("\n")
        assert len(dirty) == len(clean)
        for before, after in zip(clean, dirty, strict=True):
            assert before.split("│")[2:] == after.split("│")[2:]


@given(st.text(max_size=300), st.integers(20, 120))
@settings(max_examples=150, deadline=None)
def test_any_title_prints_without_control_characters_in_the_width(title, width):
    page = Page("home", ("picks",), (Slot(0, 0, 0), Slot(0, 1, 1)))
    text = page_grid(page_view(page, make_catalog(2, {0: title}), shop=title), width).plain
    assert all(cell_len(line) <= width for line in text.split("\n"))
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]


def test_explained_boxes_show_score_chance_and_strongest_evidence():
    text = page_grid(view_of(explained=True), 100).plain
    assert "1.50 p=0.250" in text
    assert "-2.00 similar" in text


def receipt_of(titles: list[str]) -> ReceiptView:
    """A receipt of slots 1, 2 and 4 of the second row, with round numbers."""
    parts = {name: [0.1 * (s + 1) - 0.2 * n for s in range(4)] for n, name in enumerate(WORDS)}
    places = [(1, s) for s in range(4)]
    return receipt_view(places, titles, parts, -1.5, 0.25, {0: 0.5, 1: -0.125, 3: 12.0}, (0, 3, 0.2), 0.1, ruled=True)


def test_a_receipt_is_a_table_with_one_row_a_slot():
    view = dataclasses.replace(
        view_of(), receipt=receipt_of(["Ostrelm Teapot", "A clock that is too long for its column", "", "Tea"])
    )
    lines = page_grid(view, 80).plain.split("\n")
    begin = lines.index("How sure: the models that scored it differ by 0.10.") + 1
    assert lines[begin : begin + 5] == [
        "row,                  items that  their                      expected       lost",
        "slot item                    fit  order variety repetition engagement without it",
        "2, 1 Ostrelm Teapot       +0.100 -0.100  -0.300     -0.500     -0.700      0.500",
        "2, 2 A clock that is…     +0.200 +0.000  -0.200     -0.400     -0.600     -0.125",
        "2, 4 Tea                  +0.400 +0.200  +0.000     -0.200     -0.400     12.000",
    ]
    assert lines[begin + 5].startswith("policy ")


def test_a_receipt_without_room_for_a_table_is_a_sentence_a_slot():
    view = dataclasses.replace(view_of(), receipt=receipt_of(["Ostrelm Teapot", "Clock", "", "Tea"]))
    text = " ".join(page_grid(view, 60).plain.split())
    assert "row 2, slot 4: items that fit +0.400, their order +0.200, variety +0.000, repetition -0.200, " in text
    assert "expected engagement -0.400; lost without it 12.000: Tea policy" in text
    assert "row, " not in text


@pytest.mark.parametrize("width", [20, 40, 77, 78, 100, 300])
@pytest.mark.parametrize("title", HOSTILE.values())
def test_a_hostile_title_changes_only_its_own_row_of_a_receipt(width, title):
    clean, dirty = (
        page_grid(dataclasses.replace(view_of(), receipt=receipt_of(["Teapot", name, "", "Tea"])), width).plain
        for name in ("Clock", title)
    )
    assert all(cell_len(line) <= width for line in dirty.split("\n"))
    assert not [c for c in dirty if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")]
    if width >= 78:
        rows, others = (text.split("\n")[-6:-1] for text in (clean, dirty))
        assert [rows[place] == others[place] for place in (0, 1, 2, 4)] == [True] * 4
        assert rows[3].split()[-6:] == others[3].split()[-6:]
        assert cell_len(rows[3]) == cell_len(others[3])


def test_titles_are_never_read_as_markup():
    grid = page_grid(view_of({0: "[bold]x[/bold] [red]"}), 120)
    assert "[bold]x[/bold]" in grid.plain
    assert not any("red" in str(span.style) for span in grid.spans)


HOSTILE_TITLES = dict(enumerate(HOSTILE.values()))
