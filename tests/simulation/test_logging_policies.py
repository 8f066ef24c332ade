"""Logging policies: their chances sum to one over all pages, and draws follow them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from pagellm.errors import UsageError
from pagellm.simulation.choosing import compose_page, propensities
from pagellm.simulation.counters import stream
from pagellm.simulation.logging_policies import MIXTURES, POLICIES, mixture
from pagellm.simulation.page_policies import LoggedBy
from pagellm.types import DAY, NO_ITEM, Context

NAMES = [p.name for p in POLICIES]


def moment(world):
    """A day on which all items have been launched."""
    return world.spec.start + (world.spec.horizon - 1) * DAY


def context(world, user="u000004"):
    none = np.empty(0, np.int32)
    return Context(time=moment(world), items=none, events=none.astype(np.int8), times=none.astype(np.int64), user=user)


def all_pages(world):
    candidates = world.candidates(moment(world)).tolist()
    return np.array(list(permutations(candidates, world.spec.slots)), np.int32)


@pytest.mark.parametrize("name", NAMES)
def test_the_chances_of_all_ordered_pages_sum_to_one(micro, name):
    pages = all_pages(micro)
    count = len(pages)
    chance = LoggedBy.named(micro, name).propensities(pages, np.full(count, 4, np.int32), np.full(count, moment(micro), np.int64))
    assert chance.prod(axis=1).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_chances(micro, name):
    policy, pages, times = LoggedBy.named(micro, name), all_pages(micro), 20_000
    who = (np.full(times, 4, np.int32), np.full(times, moment(micro), np.int64))
    drawn = policy.draw(*who, np.arange(times))
    exact = policy.propensities(pages, who[0][: len(pages)], who[1][: len(pages)]).prod(axis=1)
    place = {tuple(p): i for i, p in enumerate(pages.tolist())}
    found = np.bincount([place[tuple(p)] for p in drawn.tolist()], minlength=len(pages)) / times
    z = (found - exact) / np.sqrt(exact * (1 - exact) / times + 1e-9)
    assert np.abs(z).max() < 5.5


def test_uniform_draws_without_replacement(micro):
    left = len(micro.candidates(moment(micro)))
    page = LoggedBy.named(micro, "uniform").compose(context(micro), np.random.default_rng(0))
    np.testing.assert_allclose(np.exp([s.logprob for s in page.slots]), [1 / left, 1 / (left - 1), 1 / (left - 2)])


def test_the_top_of_popularity_has_propensity_one(micro):
    page = LoggedBy.named(micro, "popular-top").compose(context(micro), np.random.default_rng(0))
    assert [s.logprob for s in page.slots] == [0.0] * 3


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_scores_a_page_as_compose_drew_it(tiny, name):
    policy = LoggedBy.named(tiny, name)
    page = policy.compose(context(tiny), np.random.default_rng(1))
    assert len(set(page.items.tolist())) == tiny.spec.slots
    np.testing.assert_array_equal(policy.log_prob(context(tiny), page), [s.logprob for s in page.slots])


def test_logged_propensities_are_those_of_the_page_policy(tiny, tiny_log):
    for code, name in enumerate(NAMES):
        of = tiny_log.policy == code
        if of.any():
            items, user, time = tiny_log.items[of], tiny_log.visits.user[of], tiny_log.visits.time[of]
            exact = LoggedBy.named(tiny, name).propensities(items, user, time)
            np.testing.assert_allclose(tiny_log.propensity[of], exact, rtol=1e-6)
    assert (tiny_log.propensity > 0).all()


def test_a_page_that_the_policy_never_shows_has_no_chance(tiny):
    policy = LoggedBy.named(tiny, "personal")
    asleep = np.flatnonzero(~tiny.shop.buyable)[:1]
    pages = np.array([[5, 5, *range(6, 12)], [asleep[0] if len(asleep) else 5, *range(10, 17)]], np.int32)
    chance = policy.propensities(pages, np.zeros(2, np.int32), np.full(2, moment(tiny), np.int64))
    assert chance[0, 1] == 0.0
    assert (chance[1, 0] == 0.0) == (len(asleep) > 0)


@pytest.mark.parametrize("name", ["personal", "epsilon"])
def test_extreme_weights_still_fill_the_page_and_sum_to_one(micro, name):
    table = micro.tables[NAMES.index(name)]
    weight = np.where(table.weight > 0, 10.0 ** -(5.0 * np.arange(7)), 0.0)  # rejection alone would draw item 0 for ever
    steep = table._replace(weight=weight, cumulative=np.cumsum(np.ascontiguousarray(weight[:, table.order]), axis=1))
    if name == "epsilon":
        steep = table._replace(epsilon=1.0)
    day, lift, mass = micro.spec.horizon - 1, np.ones(3), np.empty(3)
    items, total = np.empty(3, np.int32), 0.0
    compose_page(steep, day, lift, mass, np.uint64(stream(1, 2, 3, 4)), items)
    assert len(set(items.tolist()) - {NO_ITEM}) == 3
    if name == "personal":
        assert items.tolist() == [0, 1, 2]
    chance = np.empty(3)
    for page in all_pages(micro):
        propensities(steep, day, lift, mass, page, chance)
        total += chance.prod()
    assert total == pytest.approx(1.0, abs=1e-9)


def test_fewer_items_than_slots_give_a_short_page(micro):
    table = micro.tables[0]
    weight = np.zeros_like(table.weight)
    weight[:, 2] = 1.0
    alone = table._replace(
        weight=weight,
        cumulative=np.cumsum(np.ascontiguousarray(weight[:, table.order]), axis=1),
        eligible=np.ones_like(table.eligible),
    )
    items, chance, lift, mass = np.empty(3, np.int32), np.empty(3), np.ones(3), np.empty(3)
    compose_page(alone, 0, lift, mass, np.uint64(9), items)
    propensities(alone, 0, lift, mass, items, chance)
    assert items.tolist() == [2, NO_ITEM, NO_ITEM]
    assert chance.tolist() == [1.0, 1.0, 1.0]


def test_unknown_names_are_told():
    assert all(mixture(name)[-1] == pytest.approx(1.0) for name in MIXTURES)
    with pytest.raises(UsageError, match="not known"):
        mixture("clever")


def test_strangers_are_told(micro):
    with pytest.raises(UsageError, match="needs a user"):
        LoggedBy.named(micro, "uniform").compose(context(micro, user=None), np.random.default_rng(0))
    with pytest.raises(UsageError, match="not known"):
        LoggedBy.named(micro, "clever")
