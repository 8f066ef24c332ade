"""The pages that the masks let be written are exactly the pages that the validator accepts, by brute force on tiny shops."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import NOW, conceivable, context, layouts, page_of, shops, written

from pagellm.catalog import Catalog
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Validator
from pagellm.types import Context

Items = tuple[int, ...]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Catalog, Layout, Items, Context]:
    shop = draw(shops())
    items = st.integers(0, len(shop) - 1)
    layout = draw(layouts(len(shop)))
    pool = tuple(sorted(draw(st.sets(items, min_size=max(0, len(shop) - 2)))))
    exclude = draw(st.sampled_from([(), (), (0,), (1,)]))
    shown = tuple(draw(st.lists(items, max_size=4)))
    return shop, layout, pool, context(exclude, shown)


def compare(shop: Catalog, layout: Layout, pool: Items, asked: Context) -> None:
    rules = compile_layout(layout, shop, NOW)
    validator = Validator(layout, shop, NOW)
    pages = conceivable(layout, len(shop))
    accepted = {page for page in pages if not validator.check(page_of(layout, *page), asked, pool)}
    assert accepted, "some page must be possible, if only an empty one"
    assert written(rules, pool, asked) == accepted


OPTIONS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=80, **OPTIONS)
@given(cases())
def test_masks_equal_validator(case: tuple[Catalog, Layout, Items, Context]) -> None:
    compare(*case)


@pytest.mark.slow
@settings(max_examples=3_000, **(OPTIONS | {"derandomize": False}))
@given(cases())
def test_masks_equal_validator_at_length(case: tuple[Catalog, Layout, Items, Context]) -> None:
    compare(*case)
