"""Click rates are what was known at the context's time: those of a log cut there, counted by hand, and blind to the context's own page."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.data.click_rates import ITEM_PRIOR, KINDS, USER_PRIOR, ClickCounts, click_evidence, count_clicks, views
from pagellm.data.content import content_vectors
from pagellm.data.contexts import ALWAYS, contexts_at, contexts_between, contexts_of
from pagellm.data.evidence import GROUPS, IMPRESSIONS, NAMES, build_evidence, leaf_codes
from pagellm.data.readers import read_log
from pagellm.types import DAY, Context, Contexts, Impressions, Interactions

CATALOG, LOG = small_catalog(), small_log()
ITEMS, SLOTS, PAGES = len(CATALOG), 5, 300
START = int(LOG.time.min())
CODES = tuple(np.arange(ITEMS, dtype=np.int32) % n - (n == 3) for n in (4, 7, 3))
"""Codes of three fields; a third of the items have no code in the last one."""
POOL = np.arange(ITEMS, dtype=np.int32)[None]


def pages(seed: int = 0, known: bool = True) -> Impressions:
    """Drawn pages of drawn users with drawn feedback, which takes up to ten days to come in."""
    rng = np.random.default_rng(seed)
    time = np.sort(START + rng.integers(0, 200, PAGES) * DAY)
    sizes = rng.integers(0, SLOTS + 1, PAGES)
    n = int(sizes.sum())
    clicked = rng.random(n) < 0.2
    place = np.concatenate([np.arange(size) for size in sizes])
    return Impressions(
        np.array([f"p{p}" for p in range(PAGES)]),
        rng.integers(0, 12, PAGES).astype(np.int32),
        time,
        np.array(["logging"] * PAGES),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        rng.integers(0, ITEMS, n).astype(np.int32),
        np.zeros(n, np.int16),
        place.astype(np.int16),
        np.full(n, np.nan, np.float32),
        (rng.random(n) < 0.6).astype(np.int8) if known else np.full(n, -1, np.int8),
        clicked,
        np.zeros(n, bool),
        clicked & (rng.random(n) < 0.3),
        np.zeros(n, np.float32),
        time + rng.integers(0, 11, PAGES) * DAY,
    )


SHOWN = pages()
COUNTS = count_clicks(SHOWN, LOG.user_ids, ITEMS, START)


def asked(seed: int = 1, count: int = 60) -> Contexts:
    """Contexts at drawn days, so that many are at the very second at which a page was shown or settled."""
    rng = np.random.default_rng(seed)
    return contexts_at(LOG, rng.integers(0, 14, count).astype(np.int32), START + rng.integers(0, 215, count) * DAY)


ASKED = asked()


def evidence(counts: ClickCounts, contexts: Contexts) -> np.ndarray:
    return click_evidence(counts, contexts, np.repeat(POOL, len(contexts), 0), CODES)


def lift(clicked: float, seen: float, mean: float, prior: float) -> float:
    return math.log((clicked + prior * mean) / (seen + prior) / mean)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(ASKED) - 1), st.integers(0, ITEMS - 1))
def test_rates_equal_counting(place: int, item: int) -> None:
    context = ASKED.take(np.array([place]))
    now, user = int(context.time[0]), int(context.user[0])
    page = np.repeat(np.arange(PAGES), np.diff(SHOWN.offsets))
    past = SHOWN.settled[page] < now
    seen, clicked = ((SHOWN.viewed == 1) | SHOWN.clicked).astype(float), SHOWN.clicked.astype(float)

    def rate(some: np.ndarray, prior: float) -> float:
        return lift(clicked[past & some].sum(), seen[past & some].sum(), mean, prior)

    every = np.ones(len(page), bool)
    mean = (clicked[past].sum() + 1) / (seen[past].sum() + 20)
    own, this = SHOWN.user[page] == user, SHOWN.item == item
    like = [(code[SHOWN.item] == code[item]) & own if code[item] >= 0 else ~every for code in CODES]
    wanted = {
        "rate_all": rate(this, ITEM_PRIOR),
        "rate_14d": rate(this & (SHOWN.settled[page] >= now - 14 * DAY), ITEM_PRIOR),
        "seen_all": math.log1p(seen[past & this].sum()),
        "own_rate": rate(own, USER_PRIOR),
        "own_category_rate": rate(like[0], USER_PRIOR),
        "own_leaf_rate": rate(like[1], USER_PRIOR),
        "own_brand_rate": rate(like[2], USER_PRIOR),
        "own_ignored": math.log1p(seen[past & own & this & ~SHOWN.clicked].sum()),
    }
    found = evidence(COUNTS, context)[0, item]
    assert tuple(wanted) == KINDS
    np.testing.assert_allclose(found, list(wanted.values()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_the_future_changes_no_bit(place: int) -> None:
    context = ASKED.take(np.array([place]))
    past = SHOWN.where(SHOWN.settled < context.time[0])
    assert place == 0 or len(past) < PAGES
    known = count_clicks(past, LOG.user_ids, ITEMS, START)
    np.testing.assert_array_equal(evidence(COUNTS, context), evidence(known, context))


def test_contexts_are_read_alike_in_any_batch() -> None:
    whole = evidence(COUNTS, ASKED)
    for place in range(len(ASKED)):
        np.testing.assert_array_equal(whole[place], evidence(COUNTS, ASKED.take(np.array([place])))[0])
    assert (np.abs(whole).max((0, 1)) > 0.1).all(), "every column must say something here"


def test_who_asks_is_found_by_id_and_strangers_get_the_prior() -> None:
    none = np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64)
    now = START + 150 * DAY
    askers = contexts_of([Context(now, *none, name) for name in ("u3", "nobody", None, "u0")])
    inside = contexts_at(LOG, np.array([3, 0], np.int32), np.full(2, now, np.int64))
    found, own = evidence(COUNTS, askers), [k for k, kind in enumerate(KINDS) if kind.startswith("own")]
    np.testing.assert_array_equal(found[[0, 3]], evidence(COUNTS, inside))
    assert found[0][:, own].any()
    assert not found[1:3][..., own].any(), "0 is the shop's mean"
    others = [k for k in range(len(KINDS)) if k not in own]
    np.testing.assert_array_equal(found[1][:, others], found[0][:, others])
    assert COUNTS.users_of(askers).tolist() == [3, -1, -1, 0]


def test_a_view_is_what_the_log_knows_else_the_chance_of_its_place() -> None:
    assert views(SHOWN, START).tolist() == ((SHOWN.viewed == 1) | SHOWN.clicked).tolist()
    unknown = pages(known=False)
    chance = views(unknown, START + 100 * DAY)
    for col in range(SLOTS):
        assert len(set(chance[unknown.col == col].tolist())) == 1, "a click says nothing of how much a place is looked at"
    later = dataclasses.replace(
        unknown, clicked=unknown.clicked & (np.repeat(unknown.time, np.diff(unknown.offsets)) < START + 100 * DAY)
    )
    np.testing.assert_array_equal(chance, views(later, START + 100 * DAY))
    first = views(unknown, START)  # no page before: by reading order
    np.testing.assert_allclose(first, 1 / np.log2(unknown.col + 2), rtol=1e-6)


def test_a_log_without_pages_has_the_columns_that_it_had() -> None:
    content = content_vectors(CATALOG, 16)
    bare, full = build_evidence(CATALOG, LOG, content), build_evidence(CATALOG, LOG, content, clicks=COUNTS)
    assert bare.names == NAMES
    assert IMPRESSIONS not in bare.groups
    assert full.names == (*NAMES, *GROUPS[IMPRESSIONS])
    pool = np.repeat(POOL, len(ASKED), 0)
    before, after = bare.features(ASKED, pool), full.features(ASKED, pool)
    np.testing.assert_array_equal(after[..., : len(NAMES)], before)
    assert after[..., len(NAMES) :].any()
    dropped = build_evidence(CATALOG, LOG, content, drop=(IMPRESSIONS,), clicks=COUNTS).features(ASKED, pool)
    np.testing.assert_array_equal(dropped[..., : len(NAMES)], before)
    assert not dropped[..., len(NAMES) :].any()
    assert not full.features(ASKED, np.full_like(pool, -1)).any()


def test_leaves_are_the_last_category_under_its_first() -> None:
    paths = [["home", "lamps"], ["home", "rugs"], ["garden", "lamps"], ["home", "lamps"], None, ["garden"]]
    frame = pl.DataFrame({"item_id": list("abcdef"), "title": list("abcdef"), "categories": paths})
    codes = leaf_codes(Catalog(frame))
    assert codes[4] == -1
    assert codes[0] == codes[3]
    assert len({int(c) for c in codes[[0, 1, 2, 5]]}) == 4


@pytest.fixture(scope="module")
def world_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Interactions, Impressions]:
    from pagellm.simulation.disk import write_world
    from pagellm.simulation.shop_log import simulate_log
    from pagellm.simulation.world import World

    folder: Path = tmp_path_factory.mktemp("world") / "shop"
    world = World.make("tiny", 3)
    write_world(world, simulate_log(world), folder)
    log = read_log(folder)
    assert log.impressions is not None
    return log.interactions, log.impressions


def test_no_context_reads_the_page_that_its_own_feedback_is_on(world_log: tuple[Interactions, Impressions]) -> None:
    """A context is made from the first click on a page, later than the page: what was clicked there is what is to be foretold."""
    log, shown = world_log
    contexts = contexts_between(log, -ALWAYS, ALWAYS)
    keys = shown.user.astype(np.int64) * 2**33 + shown.time
    order = np.argsort(keys, kind="stable")
    asked_at = contexts.user.astype(np.int64) * 2**33 + contexts.time
    own = order[np.searchsorted(keys[order], asked_at, side="right") - 1]  # the user's last page until then
    assert (shown.user[own] == contexts.user).all()
    late = shown.time[own] < contexts.time
    assert late.mean() > 0.9, "else this test sees nothing"
    for place in np.flatnonzero(late)[:300]:
        page = shown.item[shown.offsets[own[place]] : shown.offsets[own[place] + 1]]
        assert np.isin(contexts.target(place), page).all()
    assert (shown.settled[own] >= contexts.time).all()
