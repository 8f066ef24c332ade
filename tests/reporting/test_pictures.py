"""Placeholders are always the same for an item, and every one that a word can choose is drawn in the symbol file."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files

import pytest
from sample_shop import HOSTILE, make_catalog

from pagellm.reporting.picture import _DEPARTMENTS, Picture, picture
from pagellm.reporting.view import item_card

CARD = item_card(make_catalog(), 0)


def drawn() -> set[str]:
    art = files("pagellm.reporting").joinpath("templates/pictures.svg").read_text()
    return set(re.findall(r'<symbol id="p-([a-z]+)"', art))


def test_every_symbol_is_drawn_and_every_drawing_is_used():
    named = {symbol for symbols in _DEPARTMENTS.values() for symbol in symbols} | {"box"}
    assert named == drawn()


@pytest.mark.parametrize(
    ("title", "category", "symbol"),
    [
        ("Ostrelm Harbor Stoneware Teapot 600 ml, Sage", "Kitchen › Coffee & Tea", "teapot"),
        ("Light moisturizing cream", "Skin Care", "jar"),
        ("Reading light", "", "lamp"),
        ("Night light", "Kids › Nursery", "bear"),
        ("Something without a name", "Hair Care", "bottle"),
        ("Qwertz", "", "box"),
    ],
)
def test_the_words_choose_the_symbol(title, category, symbol):
    assert picture(replace(CARD, title=title, category=category)).symbol == symbol


def test_color_words_choose_the_color_and_items_without_them_differ():
    sage = picture(replace(CARD, title="Teapot, Sage"))
    assert (sage.hue, sage.saturation) == (118, 20)
    assert len({picture(replace(CARD, title="Teapot", item_id=f"i{i}")).hue for i in range(50)}) > 10


def test_the_same_item_always_looks_the_same():
    assert picture(CARD) == Picture("teapot", 118, 20, picture(CARD).second, picture(CARD).angle, "")
    assert picture(CARD) == picture(item_card(make_catalog(), 0))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_words_only_choose_among_what_is_drawn(name):
    found = picture(replace(CARD, title=HOSTILE[name], category=HOSTILE[name], brand=HOSTILE[name]))
    assert found.symbol in drawn()
    assert 0 <= found.hue < 360
    assert 0 <= found.second < 360
    assert len(found.initials) <= 2
