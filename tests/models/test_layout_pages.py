"""The policy's pages as they are judged: under rules, without them, and from candidates in another order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.small_shop import small_catalog, small_log
from pagellm.data.shown import askers
from pagellm.evaluation.pages.rules import order_sensitivity, violations
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Validator
from pagellm.models.composer import LanguagePolicy
from pagellm.models.layout_pages import LayoutPages
from tiny_run import fresh_run

RUN = fresh_run(small_catalog(), small_log())
CONTEXTS = RUN.split.test.take(np.flatnonzero(RUN.split.test.warm)[:40])
ASKED = list(askers(CONTEXTS, None, 0))
LAYOUT = Layout.model_validate(
    {
        "id": "ruled",
        "rows": [{"id": "picks", "capacity": 4}, {"id": "tea", "capacity": 3, "source": {"theme": "tea"}}],
        "rules": {
            "max_per": [{"field": "brand", "limit": 1, "window": "row"}],
            "pin": [{"item": "i9", "slot": "r0c1"}],
        },
    }
)
RULES = compile_layout(LAYOUT, RUN.catalog, int(CONTEXTS.time.min()))
MAKER = LayoutPages(RUN, RULES)


def test_served_pages_break_nothing_and_unruled_ones_do() -> None:
    check = Validator(LAYOUT, RUN.catalog, RULES.now)
    pages, pool = MAKER.pages(CONTEXTS, ASKED)
    served, _ = violations(pages, ASKED, pool, check)
    assert not served.any()
    free, wide = MAKER.unruled(CONTEXTS, ASKED)
    raw, broken = violations(free, ASKED, wide, check)
    assert raw.mean() > 1
    assert any(rule.startswith("pin i9") for rule in broken)
    assert all(len(set(page.items)) == 7 for page in free)


def test_the_order_of_candidates_means_nothing() -> None:
    pages, pool = MAKER.pages(CONTEXTS, ASKED)
    again, other = MAKER.reordered(CONTEXTS, ASKED, 1)
    assert (pool != other).any()
    np.testing.assert_array_equal(order_sensitivity(pages, again), 0)


def test_pages_are_those_that_compose_writes() -> None:
    policy = LanguagePolicy(RUN, LAYOUT, now=RULES.now)
    drawn = policy.draw_for(CONTEXTS)
    composed = [group[0] for group in policy.write(drawn, ASKED, np.random.default_rng(0))]
    pages, _ = MAKER.pages(CONTEXTS, ASKED)
    assert [page.items.tolist() for page in pages] == [page.items.tolist() for page in composed]


def test_nothing_but_candidates_and_pins_stands_on_a_page() -> None:
    few = np.zeros(len(RUN.catalog), bool)
    few[::3] = True
    pages, _ = LayoutPages(RUN, replace(RULES, eligible=RULES.eligible & few)).pages(CONTEXTS, ASKED)
    assert all(few[page.items].all() for page in pages)
