"""Feedback: expectations against enumeration by hand, samples against expectations, kernels against two twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagellm.errors import UsageError
from pagellm.simulation.world import World
from pagellm.types import DAY, NO_ITEM

LOOK = 0.9


def contexts(world, count, seed=0):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, world.spec.users, count).astype(np.int32)
    time = (world.spec.start + rng.integers(0, world.spec.days * DAY, count)).astype(np.int64)
    pages = np.argsort(rng.random((count, world.spec.items)), axis=1)[:, : world.spec.slots].astype(np.int32)
    return pages, user, time


def with_behavior(world, **changes):
    return World(replace(world.spec, behavior=world.spec.behavior._replace(**changes)), world.seed, world.shop)


def with_attention(world, row, first_col, next_col):
    attention = world.spec.attention._replace(row=(row, row), first_col=(first_col,) * 2, next_col=(next_col,) * 2)
    return World(replace(world.spec, attention=attention), world.seed, world.shop)


def enumerate_clicks(chance, row, gaze, distraction):
    """Expected looks and clicks per slot by running through every possible course of events."""
    view, click = np.zeros(len(row)), np.zeros(len(row))

    def walk(s, probability, seeing, clicked, seen, hit):
        if probability == 0.0:
            return
        if s == len(row):
            view[seen] += probability
            click[hit] += probability
            return
        new_row = s > 0 and row[s] != row[s - 1]
        if new_row:
            on = gaze[0] * (1 - distraction if clicked else 1)
            settle(s, probability * on, True, False, seen, hit)
            walk(len(row), probability * (1 - on), False, False, seen, hit)
        elif s == 0 or not seeing:
            settle(s, probability, seeing, clicked, seen, hit)
        else:
            place = s - list(row).index(row[s])
            on = gaze[1] if place == 1 else gaze[2]
            settle(s, probability * on, True, clicked, seen, hit)
            settle(s, probability * (1 - on), False, clicked, seen, hit)

    def settle(s, probability, seeing, clicked, seen, hit):
        if not seeing:
            walk(s + 1, probability, False, clicked, seen, hit)
            return
        walk(s + 1, probability * chance[s], True, True, [*seen, s], [*hit, s])
        walk(s + 1, probability * (1 - chance[s]), True, clicked, [*seen, s], hit)

    walk(0, 1.0, True, False, [], [])
    return view, click


def test_expectations_equal_the_sum_over_all_courses_of_events(tiny):
    row = np.array([0, 0, 0, 1, 1, 2], np.int32)
    strong = with_behavior(with_attention(tiny, 0.8, 0.7, 0.6), base=-1.0, distraction=0.5)
    bare = with_behavior(with_attention(tiny, 1.0, 1.0, 1.0), base=-1.0, distraction=0.0)
    pages, user, time = contexts(tiny, 5)
    pages = pages[:, : len(row)].copy()
    exact, chance = strong.expected(pages, user, time, row=row), bare.expected(pages, user, time, row=row).click
    for p in range(len(pages)):
        view, click = enumerate_clicks(chance[p], row, (0.8, 0.7, 0.6), 0.5)
        np.testing.assert_allclose(exact.view[p], view, rtol=1e-12)
        np.testing.assert_allclose(exact.click[p], click, rtol=1e-12)


def test_attention_alone_is_what_a_page_without_clicks_gets(tiny):
    silent = with_behavior(tiny, base=-60.0)
    pages, user, time = contexts(tiny, 20)
    device = tiny.users_at(user, time).device
    seen = silent.expected(pages, user, time).view
    for p in range(len(pages)):
        np.testing.assert_allclose(seen[p], tiny.attention(int(device[p])), rtol=1e-12)
    assert (np.diff(tiny.attention(0).reshape(2, 4), axis=1) < 0).all()
    assert (np.diff(tiny.attention(0).reshape(2, 4), axis=0) < 0).all()


def test_samples_agree_with_expectations(tiny):
    pages, user, time = contexts(tiny, 20, seed=4)
    lively = with_behavior(tiny, base=-2.0)
    times = 4_000
    exact = lively.expected(pages, user, time)
    many = [np.repeat(a, times, axis=0) for a in (pages, user, time)]
    seen = lively.sample_feedback(*many, np.arange(20 * times))
    for sampled, chance in (
        (seen.viewed, exact.view),
        (seen.clicked, exact.click),
        (seen.carted, exact.cart),
        (seen.purchased, exact.buy),
    ):
        mean = sampled.reshape(20, times, -1).mean(axis=1)
        z = (mean - chance) / np.sqrt(chance * (1 - chance) / times + 1e-12)
        assert np.abs(z).max() < 5.0
    money = (seen.purchased * tiny.shop.price[many[0]]).sum(axis=1)
    assert abs(money.mean() - exact.gmv.mean()) < 5 * money.std() / np.sqrt(len(money))


def test_outcomes_do_not_depend_on_chunks_threads_or_order(tiny):
    pages, user, time = contexts(tiny, 3_000, seed=1)
    visit = np.arange(3_000)
    whole = tiny.sample_feedback(pages, user, time, visit).outcome
    for chunk, threads in ((1, 1), (7, 2), (64, 2), (1_000, 1)):
        assert np.array_equal(whole, tiny.sample_feedback(pages, user, time, visit, chunk=chunk, threads=threads).outcome)
    shuffled = np.random.default_rng(0).permutation(3_000)
    again = tiny.sample_feedback(pages[shuffled], user[shuffled], time[shuffled], visit[shuffled]).outcome
    assert np.array_equal(whole[shuffled], again)


def test_other_seeds_and_visits_draw_other_outcomes(tiny):
    pages, user, time = contexts(tiny, 2_000)
    first = tiny.sample_feedback(pages, user, time, np.arange(2_000)).outcome
    assert not np.array_equal(first, tiny.sample_feedback(pages, user, time, np.arange(2_000) + 10_000).outcome)
    other = World(tiny.spec, tiny.seed + 1, tiny.shop)
    assert not np.array_equal(first, other.sample_feedback(pages, user, time, np.arange(2_000)).outcome)


def test_kernels_equal_the_numpy_twin(demo, twin):
    job = twin.job(demo, 5_000)
    assert np.array_equal(demo.sample_feedback(*job).outcome, twin.np_feedback(demo, *job))


def test_kernels_equal_the_python_twin(demo, twin):
    job = twin.job(demo, 60)
    assert np.array_equal(demo.sample_feedback(*job).outcome, twin.py_feedback(demo, *job))


def duplicates_of(world):
    group = world.shop.traits["group"]
    twice = next(g for g in range(group.max() + 1) if (group == g).sum() >= 2)
    first, second = np.flatnonzero(group == twice)[:2]
    return int(first), int(second), int(np.flatnonzero(world.shop.traits["theme"] != world.shop.traits["theme"][first])[0])


def test_a_near_duplicate_before_lowers_clicks_and_purchases_by_the_stated_factors(tiny):
    first, second, other = duplicates_of(tiny)
    b, row = tiny.spec.behavior, np.zeros(2, np.int32)
    pages = np.array([[first, second], [other, second]], np.int32)
    user, time = np.zeros(2, np.int32), np.full(2, tiny.spec.start, np.int64)
    exact = tiny.expected(pages, user, time, row=row)
    click, buy = exact.click / exact.view, exact.buy / exact.cart
    assert click[0, 1] == pytest.approx(click[1, 1] * b.duplicate, rel=1e-12)
    assert buy[0, 1] == pytest.approx(buy[1, 1] * b.duplicate_buy, rel=1e-12)


def test_what_was_bought_lately_is_clicked_less(tiny):
    pages, user, time = contexts(tiny, 4)
    owned = tiny.shop.traits["group"][pages[:, :1]]
    free, had = tiny.expected(pages, user, time), tiny.expected(pages, user, time, owned=owned)
    np.testing.assert_allclose(had.click[:, 0], free.click[:, 0] * tiny.spec.behavior.owned, rtol=1e-12)


def test_an_empty_slot_takes_a_look_and_nothing_else(tiny):
    pages, user, time = contexts(tiny, 4)
    pages[:, 2] = NO_ITEM
    exact = tiny.expected(pages, user, time)
    assert (exact.click[:, 2] == 0).all()
    assert (exact.money[:, 2] == 0).all()
    assert not tiny.sample_feedback(pages, user, time, np.arange(4)).viewed[:, 2].any()


def test_relevance_is_the_value_of_an_item_alone(tiny):
    pages, user, time = contexts(tiny, 6)
    for metric in ("clicks", "carts", "purchases", "gmv"):
        alone = tiny.relevance(user, time, pages, metric)
        single = tiny.expected(pages[:, :1].copy(), user, time, row=np.zeros(1, np.int32)).total(metric)
        np.testing.assert_allclose(alone[:, 0], single, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, u, t: (p[:, :3], u, t), "one row a user"),
        (lambda p, u, t: (p + 1_000, u, t), "Items are 0 to"),
        (lambda p, u, t: (p, u, t + 10**9), "This world lives from"),
        (lambda p, u, t: (p, u - 500, t), "numbers from 0"),
        (lambda p, u, t: (p, u, t[:1]), "needs a user and a time"),
    ],
)
def test_impossible_pages_are_told(tiny, change, message):
    with pytest.raises(UsageError, match=message):
        tiny.expected(*change(*contexts(tiny, 3)))
