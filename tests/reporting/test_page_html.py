"""The preview as text: whole, inert, escaped. What a browser makes of it is in test_in_browser."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from html_reader import Reader
from sample_shop import HOSTILE, view_of

from pagellm.reporting.preview import page_html


def test_the_document_is_whole_and_its_tags_nest():
    read = Reader(page_html(view_of(explained=True)))
    assert read.open == []
    assert read.tags.count("li") == 18 + 3 + 2  # slots, history, notes


def test_it_forbids_everything_but_its_own_style():
    read = Reader(page_html(view_of()))
    policy = next(v for k, v in read.attributes if k == "content" and "default-src" in v)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def test_two_pages_stand_beside_each_other_and_what_differs_is_marked():
    before = replace(view_of(), facts=(("policy", "sft"),))
    first, *rest = before.rows
    other = replace(first.cards[0], item_id="another", title="Another")
    after = replace(before, facts=(("policy", "ppo"),), rows=(replace(first, cards=(other, *first.cards[1:])), *rest))
    html = page_html(after, before)
    assert Reader(html).open == []
    assert html.index(">Before") < html.index(">sft<") < html.index(">After") < html.index(">ppo<")
    assert html.count('class="card marked"') == 2  # the item that went and the one that came
    assert "card marked" not in page_html(before, before)
    assert "Before" not in page_html(after)


def test_nothing_points_outside():
    html = page_html(view_of(explained=True))
    read = Reader(html)
    assert not {"script", "iframe", "object", "embed", "form", "img", "base"} & set(read.tags)
    targets = [v for k, v in read.attributes if k in ("src", "href", "action", "srcset", "data", "xlink:href")]
    assert all(v.startswith(("#", "data:image/svg+xml,")) for v in targets)
    assert "url(" not in html
    assert "@import" not in html
    assert not [k for k, _ in read.attributes if k.startswith("on")]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_adds_no_tag_and_no_attribute(name):
    text = HOSTILE[name]
    clean = Reader(page_html(view_of({0: "Teapot, Sage", 22: "Teapot, Sage"}, shop="Shop")))
    dirty = Reader(page_html(view_of({0: "Teapot, " + text, 22: "Teapot, " + text}, shop=text)))
    assert dirty.tags == clean.tags
    assert [k for k, _ in dirty.attributes] == [k for k, _ in clean.attributes]
    assert dirty.open == []


def test_titles_read_as_they_were_written():
    html = page_html(view_of({0: "Tea & <Cups> \"2'"}))
    assert "Tea &amp; &lt;Cups&gt; &#34;2&#39;" in html


def test_panels_stand_only_where_they_are_asked_for():
    assert "Why this?" not in page_html(view_of())
    html = page_html(view_of(explained=True))
    assert html.count("Why this?") == 17
    assert "25.0 %" in html
    assert "-2.000" in html


def test_empty_slots_notes_and_facts_are_told():
    html = page_html(view_of())
    assert html.count("Left empty") == 1
    assert "Row 3, slot 5: only 4 items are younger than 30 days" in html
    for fact in ("policy", "pagellm", "seed", "2014-05-13 16:53 UTC"):
        assert fact in html


def test_the_history_heading_names_the_action_where_there_is_one():
    assert "Because of what you did lately" in page_html(view_of())
    assert "Because you bought" in page_html(view_of(history=1))


def test_the_same_page_gives_the_same_bytes():
    assert page_html(view_of()) == page_html(view_of())


def test_styles_carry_only_numbers():
    html = page_html(view_of({0: HOSTILE["attribute"]}))
    for style in re.findall(r'style="([^"]*)"', html):
        assert re.fullmatch(r"--h:\d+;--s:\d+%;--g:\d+;--r:\d+", style)
