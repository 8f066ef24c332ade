"""Prompts by hand: ASK tokens with gaps, items in order, truncation, and spans that train on every basket once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small_shop import small_log
from pagellm.data.contexts import basket_starts, contexts_of
from pagellm.models.codec import ASK, GAPS, encode, gap_bucket, reading_spans, shuffled_baskets
from pagellm.types import DAY, Context, Contexts, Interactions

T0 = 1_500_000_000


def log_of(events: list[tuple[int, int, int, int]]) -> Interactions:
    """From (user, basket, day, item), sorted as given; the event code is the item's number."""
    user, basket, day, item = (np.array(column) for column in zip(*events, strict=True))
    missing = np.full(len(user), np.nan, np.float32)
    return Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        (T0 + day * DAY).astype(np.int64),
        basket.astype(np.int32),
        (item % 5).astype(np.int8),
        missing,
        missing,
        np.array([f"u{u}" for u in range(user.max() + 1)]),
    )


LOG = log_of(
    [
        (0, 0, 0, 10),
        (0, 0, 0, 11),
        (0, 1, 3, 12),
        (0, 2, 100, 13),
        (0, 2, 100, 14),
        (1, 0, 50, 15),
        (1, 1, 50, 16),
    ]
)


def context(start: int, stop: int, target_stop: int, user: int, day: float) -> Contexts:
    whole = (np.array([value], np.int64) for value in (start, stop, target_stop))
    return Contexts(LOG, *whole, np.array([user], np.int32), np.array([T0 + int(day * DAY)], np.int64))


def test_a_prompt_reads_ask_items_ask_items_ask() -> None:
    prompts = encode(context(0, 3, 5, 0, 100), 50)
    assert prompts.items.tolist() == [[ASK, 10, 11, ASK, 12, ASK]]
    assert prompts.lengths.tolist() == [6]
    # no basket before, 3 days, 97 days: floor(log2 3) = 1, floor(log2 97) = 6, and two buckets below a day's
    assert prompts.codes.tolist() == [[0, 0, 1, 2 + 1, 2, 2 + 6]]
    assert prompts.places.tolist() == [0, 3, 5]
    assert prompts.begin.tolist() == [0, 2, 3]
    assert prompts.end.tolist() == [2, 3, 5]


def test_truncation_keeps_the_newest_and_the_gap_of_what_is_left() -> None:
    prompts = encode(context(0, 5, 5, 0, 101), 3)
    assert prompts.items.tolist() == [[ASK, 12, ASK, 13, 14, ASK]]
    assert prompts.codes[0, [0, 2, 5]].tolist() == [3, 8, 2]  # the first gap still counts from the basket that was cut off


def test_a_new_user_is_one_ask_of_unknown_gap() -> None:
    prompts = encode(context(5, 5, 6, 1, 50), 50)
    assert prompts.items.tolist() == [[ASK]]
    assert prompts.codes.tolist() == [[0]]
    assert (prompts.begin.tolist(), prompts.end.tolist()) == ([5], [6])
    nobody = contexts_of([Context(T0, *(np.empty(0, kind) for kind in (np.int32, np.int8, np.int64)))])
    assert encode(nobody, 50).items.tolist() == [[ASK]]


def test_padding_on_the_right_is_ask_and_no_place_points_there() -> None:
    both = Contexts(
        LOG, np.array([0, 5]), np.array([3, 6]), np.array([5, 7]), np.array([0, 1], np.int32), T0 + np.array([100, 50]) * DAY
    )
    prompts = encode(both, 50)
    assert prompts.items.tolist() == [[ASK, 10, 11, ASK, 12, ASK], [ASK, 15, ASK, ASK, ASK, ASK]]
    assert prompts.lengths.tolist() == [6, 3]
    assert prompts.places.tolist() == [0, 3, 5, 6, 8]


def test_a_replacement_stands_in_for_the_logs_items_and_events() -> None:
    prompts = encode(context(0, 3, 3, 0, 4), 50, LOG.item + 100, np.full(len(LOG), 7, np.int8))
    assert prompts.items[0, [1, 2, 4]].tolist() == [110, 111, 112]
    assert prompts.codes[0, [1, 2, 4]].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("days", "bucket"), [(-1, 1), (0, 1), (0.99, 1), (1, 2), (1.9, 2), (2, 3), (4, 4), (8191, 14), (8192, 15), (1e6, 15)]
)
def test_gap_buckets_double(days: float, bucket: int) -> None:
    assert gap_bucket(np.array([int(days * DAY)])).tolist() == [bucket]
    assert bucket < GAPS


@given(seed=st.integers(0, 50), longest=st.integers(1, 12), share=st.floats(0.1, 1))
@settings(max_examples=60, deadline=None)
def test_spans_cover_every_known_event_once_and_make_every_basket_a_target_once(seed: int, longest: int, share: float) -> None:
    log = small_log(20, seed=seed)
    known = log.time < np.quantile(log.time, share)
    spans = reading_spans(log, known, longest)
    covered = np.concatenate([np.arange(a, b) for a, b in zip(spans.start, spans.target_stop, strict=True)])
    assert covered.tolist() == list(range(int(known.sum())))
    prompts = encode(spans, longest)
    events = spans.log
    firsts = basket_starts(events)
    assert prompts.begin.tolist() == firsts.tolist()
    assert prompts.end.tolist() == [*firsts[1:].tolist(), len(events)]
    assert (prompts.items.ravel()[prompts.places] == ASK).all()
    sizes = np.diff([*firsts, len(events)])
    lengths = spans.target_stop - spans.start
    assert (lengths <= np.maximum(longest, sizes.max())).all()
    assert (prompts.lengths - 1 <= 2 * longest).all()


def test_spans_of_nothing_are_none() -> None:
    assert len(reading_spans(LOG, np.zeros(len(LOG), bool), 10)) == 0


def test_a_basket_longer_than_a_span_stays_whole() -> None:
    log = log_of([(0, 0, 0, i) for i in range(5)] + [(0, 1, 1, 9)])
    spans = reading_spans(log, np.ones(6, bool), 3)
    assert list(zip(spans.start.tolist(), spans.stop.tolist(), spans.target_stop.tolist(), strict=True)) == [(0, 0, 5), (5, 5, 6)]


def test_the_target_never_stands_in_its_own_prompt() -> None:
    spans = reading_spans(small_log(30), np.ones(len(small_log(30)), bool), 8)
    log = Interactions(spans.log.user, np.arange(len(spans.log), dtype=np.int32), *(
        getattr(spans.log, name) for name in ("time", "basket", "event", "rating", "value", "user_ids")
    ))  # fmt: skip
    numbered = Contexts(log, spans.start, spans.stop, spans.target_stop, spans.user, spans.time)
    prompts = encode(numbered, 8)
    flat = prompts.items.ravel()
    width = prompts.items.shape[1]
    for place, begin in zip(prompts.places, prompts.begin, strict=True):
        before = flat[place // width * width : place]
        assert (before < begin).all()


def test_shuffling_mixes_baskets_and_nothing_else() -> None:
    log = small_log(40)
    order = shuffled_baskets(log, np.random.default_rng(3))
    assert sorted(order.tolist()) == list(range(len(log)))
    assert (log.user[order] == log.user).all()
    assert (log.basket[order] == log.basket).all()
    assert (order != np.arange(len(log))).any()
    assert (order == shuffled_baskets(log, np.random.default_rng(3))).all()
