"""Splits against brute force on random logs, against counts known by hand, and on real data against published counts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from pagellm.data.contexts import ALWAYS, contexts_at, contexts_between, cut_time
from pagellm.data.readers import read_log
from pagellm.data.split_card import save_card
from pagellm.data.splits import last_out_split, make_split, multivae_split, split_from_card, temporal_split
from pagellm.errors import RunError, UsageError
from pagellm.types import Contexts, Interactions


def a_log(rows: list[tuple[int, int, int, int]], ratings: list[float] | None = None) -> Interactions:
    """A log from (user, item, time, basket) rows, which must be sorted."""
    user, item, when, basket = np.array(rows, np.int64).reshape(-1, 4).T
    nan = np.full(len(rows), np.nan, np.float32)
    rating = nan if ratings is None else np.array(ratings, np.float32)
    names = np.array([f"u{u}" for u in range(int(user.max(initial=-1)) + 1)])
    kinds = (np.int32, np.int32, np.int64, np.int32)
    columns = [c.astype(k) for c, k in zip((user, item, when, basket), kinds, strict=True)]
    return Interactions(*columns, np.full(len(rows), 5, np.int8), rating, nan, names)


def a_random_log(seed: int, events: int = 400, users: int = 30, items: int = 25, days: int = 60) -> Interactions:
    """Clock times in days, baskets by day: a basket may straddle any cut."""
    rng = np.random.default_rng(seed)
    drawn = {
        (int(u), int(t), int(i))
        for u, t, i in zip(
            rng.integers(0, users, events),
            rng.integers(0, days * 8, events) * 10_800,
            rng.integers(0, items, events),
            strict=True,
        )
    }
    rows, baskets = [], {}
    for u, t, i in sorted(drawn):
        mine = baskets.setdefault(u, {})
        rows.append((u, i, t, mine.setdefault(t // 86_400, len(mine))))
    return a_log(rows)


def brute_contexts(log: Interactions, begin: int, end: int) -> list[tuple]:
    """(user, time, history, target) of every basket that begins in [begin, end), by loops alone."""
    found = []
    for u in range(log.users):
        mine = [i for i in range(len(log)) if log.user[i] == u]
        for b in sorted({int(log.basket[i]) for i in mine}):
            target = [i for i in mine if log.basket[i] == b]
            first = min(int(log.time[i]) for i in target)
            if begin <= first < end:
                history = [int(log.item[i]) for i in mine if log.basket[i] < b]
                found.append((u, first, history, [int(log.item[i]) for i in target if log.time[i] < end]))
    return found


def as_tuples(contexts: Contexts) -> list[tuple]:
    return [
        (int(contexts.user[c]), int(contexts.time[c]), contexts.history(c).tolist(), contexts.target(c).tolist())
        for c in range(len(contexts))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_windows_equal_brute_force(seed):
    log = a_random_log(seed)
    a, b = cut_time(log, 0.6), cut_time(log, 0.85)
    for begin, end in ((-ALWAYS, a), (a, b), (b, ALWAYS), (-ALWAYS, ALWAYS)):
        assert as_tuples(contexts_between(log, begin, end)) == brute_contexts(log, begin, end)


@pytest.mark.parametrize("seed", range(5))
def test_temporal_split_takes_the_first_basket_of_each_window(seed):
    log = a_random_log(seed)
    split = temporal_split(log, 25)
    times = np.sort(log.time)
    t80, t90 = times[int(0.8 * len(log))], times[int(0.9 * len(log))]
    for part, begin, end in ((split.valid, t80, t90), (split.test, t90, ALWAYS)):
        first = {}
        for context in brute_contexts(log, begin, end):
            first.setdefault(context[0], context)
        assert as_tuples(part) == list(first.values())
    assert as_tuples(split.train) == brute_contexts(log, -ALWAYS, t80)
    assert set(np.flatnonzero(split.candidates_test)) == {int(i) for i, t in zip(log.item, log.time, strict=True) if t < t90}
    assert (split.fit_until_valid == (log.time < t80)).all()
    assert split.point_in_time


@pytest.mark.parametrize("seed", range(5))
def test_no_context_knows_its_own_moment_or_later(seed):
    log = a_random_log(seed)
    split = temporal_split(log, 25)
    for part in (split.train, split.valid, split.test):
        for c in range(len(part)):
            known = slice(int(part.start[c]), int(part.stop[c]))
            assert (log.time[known] < part.time[c]).all()
            assert (log.user[known] == part.user[c]).all()
    assert (split.train.target_stop > split.train.stop).all()


def test_targets_never_reach_over_the_cut():
    day = 86_400
    log = a_log([(0, 0, 0, 0), (0, 1, day + 10, 1), (0, 2, day + 50_000, 1), (1, 3, day + 40_000, 0)])
    train = contexts_between(log, -ALWAYS, day + 40_000)
    assert as_tuples(train) == [(0, 0, [], [0]), (0, day + 10, [0], [1])]


def test_baskets_at_the_same_second_make_no_context_of_the_second():
    log = a_log([(0, 0, 100, 0), (0, 1, 200, 1), (0, 2, 200, 2), (0, 3, 300, 3)])
    assert [c[3] for c in as_tuples(contexts_between(log, 0, 1000))] == [[0], [1], [3]]
    assert temporal_split(log, 4).card["baskets_without_order"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_contexts_at_any_moment_know_what_came_before(seed):
    log = a_random_log(seed)
    rng = np.random.default_rng(seed)
    user, when = rng.integers(0, log.users, 200).astype(np.int32), rng.integers(-5, 61 * 86_400, 200)
    contexts = contexts_at(log, user, when)
    for c in range(200):
        expected = [int(i) for u, t, i in zip(log.user, log.time, log.item, strict=True) if u == user[c] and t < when[c]]
        assert contexts.history(c).tolist() == expected
        assert len(contexts.target(c)) == 0


def test_last_out_by_hand():
    log = a_log(
        [(0, 5, 10, 0), (0, 6, 20, 1), (0, 7, 20, 1), (1, 5, 1, 0), (1, 6, 2, 1), (2, 1, 1, 0), (2, 2, 2, 1), (2, 3, 9, 2)]
    )
    split = last_out_split(log, 8)
    assert as_tuples(split.test) == [(0, 20, [5, 6], [7]), (2, 9, [1, 2], [3])]
    assert as_tuples(split.valid) == [(0, 20, [5], [6]), (2, 2, [1], [2])]
    assert as_tuples(split.train) == [(0, 10, [], [5]), (1, 1, [], [5]), (1, 2, [5], [6]), (2, 1, [], [1])]
    assert split.card["users_too_short"] == 1
    assert split.card["users_whose_last_item_is_an_arbitrary_tie"] == 0.5
    assert split.card["train_rows_later_than_first_test_event"] == 0.25  # (0, 5, 10) of four is later than time 9
    assert "leaks the future" in str(split.card["warning"])
    assert not split.point_in_time


def brute_core(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    while True:
        kept = {(u, i) for u, i in pairs if sum(x == u for x, _ in pairs) >= 5 and sum(y == i for _, y in pairs) >= 5}
        if kept == pairs:
            return kept
        pairs = kept


@pytest.mark.parametrize("seed", range(3))
def test_multivae_keeps_the_core_and_shares_it_out(seed):
    rng = np.random.default_rng(seed)
    rows = sorted(
        {(int(u), int(i), int(t)) for u, i, t in rng.integers(0, (20, 14, 50), (600, 3))}, key=lambda r: (r[0], r[2], r[1])
    )
    ratings = rng.integers(1, 6, len(rows)).astype(float).tolist()
    log = a_log([(u, i, t, n) for n, (u, i, t) in enumerate(rows)], ratings)
    split = multivae_split(log, 14)
    core = brute_core({(u, i) for (u, i, _), r in zip(rows, ratings, strict=True) if r > 3})
    assert core, "the test needs a core"
    kept = split.log
    assert {(int(u), int(i)) for u, i in zip(kept.user, kept.item, strict=True)} == core
    assert len(kept) == len(core)
    for c, user in enumerate(split.test.user):
        mine = sorted(i for u, i in core if u == user)
        held = max(1, len(mine) // 10)
        assert len(split.test.target(c)) == held
        assert len(split.valid.target(c)) == held
        assert sorted([*split.test.history(c), *split.test.target(c)]) == mine
        assert len(split.valid.history(c)) == len(mine) - 2 * held
    assert int(split.fit_until_valid.sum()) == len(split.train)


def test_multivae_draws_by_its_seed_alone():
    rows = [(u, i, i, i) for u in range(8) for i in range(8)]
    one, two, other = (multivae_split(a_log(rows), 8, seed) for seed in (1, 1, 2))
    assert one.log.item.tolist() == two.log.item.tolist() != other.log.item.tolist()


def test_an_empty_log_splits_into_nothing():
    split = temporal_split(a_log([]), 3)
    assert (len(split.train), len(split.valid), len(split.test)) == (0, 0, 0)
    assert not split.candidates_test.any()


@pytest.mark.parametrize("protocol", ["temporal", "last-out", "multivae"])
def test_a_saved_card_makes_the_same_split_and_refuses_other_data(protocol, tmp_path: Path):
    rows = [(u, i, 86_400 * (i + u % 3), i) for u in range(9) for i in range(9)]
    split = make_split(a_log(rows), 9, protocol)
    save_card(split.card, tmp_path / "split.json")
    again = split_from_card(a_log(rows), 9, tmp_path / "split.json")
    assert as_tuples(again.test) == as_tuples(split.test)
    with pytest.raises(RunError, match="other data"):
        split_from_card(a_log(rows[:-9]), 9, tmp_path / "split.json")


def test_wrong_arguments_say_so():
    with pytest.raises(UsageError, match="temporal, last-out, multivae"):
        make_split(a_log([(0, 0, 0, 0)]), 1, "random")
    with pytest.raises(UsageError, match="0 < valid_at < test_at < 1"):
        temporal_split(a_log([(0, 0, 0, 0)]), 1, 0.9, 0.8)


@pytest.mark.data
def test_beauty_has_the_published_counts(real_data: Path):
    log = read_log(real_data / "amazon14_beauty")
    assert (log.interactions.users, len(log.catalog), len(log.interactions)) == (22_332, 12_086, 198_215)
    split = temporal_split(log.interactions, len(log.catalog))
    assert (split.card["valid_cut"], split.card["test_cut"]) == (1_394_150_400, 1_399_939_200)  # 2014-03-07, 2014-05-13
    assert (int(split.test.warm.sum()), len(split.test)) == (5_576, 6_179)
    core = split.card["core"]
    assert isinstance(core, dict)
    assert core["filtered"]
    leak = last_out_split(log.interactions, len(log.catalog)).card
    assert 0.38 < float(str(leak["users_whose_last_item_is_an_arbitrary_tie"])) < 0.49


@pytest.mark.data
def test_games_loads_and_splits_quickly(real_data: Path):
    begin = time.perf_counter()
    log = read_log(real_data / "amazon18_games")
    loaded = time.perf_counter()
    assert len(log.interactions) == 453_637
    temporal_split(log.interactions, len(log.catalog))
    assert loaded - begin < 3
    assert time.perf_counter() - loaded < 1
