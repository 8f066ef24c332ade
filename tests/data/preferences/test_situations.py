"""Pages that pairs are made from: put together from baskets, or taken from a log with what is known of each slot."""

from __future__ import annotations

import numpy as np
import pytest

from models.small_shop import small_log
from pagellm.data.contexts import ALWAYS, contexts_between
from pagellm.data.examination import Examination
from pagellm.data.preferences.situations import event_gain, from_baskets, from_pages, keys_of, logged_contexts
from pagellm.types import DAY, NO_ITEM, Event, Impressions

LOG = small_log()
CONTEXTS = contexts_between(LOG, -ALWAYS, ALWAYS)
CONTEXTS = CONTEXTS.take(CONTEXTS.warm & (CONTEXTS.target_stop > CONTEXTS.stop))
RNG = np.random.default_rng(0)
POOL = np.sort(np.argsort(RNG.random((len(CONTEXTS), 40)), 1)[:, :25], 1).astype(np.int32)
LOGITS = RNG.normal(size=POOL.shape).astype(np.float32)


def test_half_a_page_at_most_is_engaged_and_all_of_it_comes_from_the_pool() -> None:
    s = from_baskets(CONTEXTS, POOL, LOGITS, 6, 0)
    assert s.items.shape == (len(CONTEXTS), 6)
    for c in range(len(s)):
        items, target = s.items[c], CONTEXTS.target(c)
        assert np.isin(items, POOL[c]).all()
        assert len(set(items.tolist())) == 6
        engaged = s.gain[c] > 0
        assert engaged.sum() == min(np.isin(POOL[c], target).sum(), 3)
        assert np.isin(items[engaged], target).all()
        assert not np.isin(items[~engaged], target).any(), "what was taken never stands as not taken"
    assert (s.seen == 1).all()
    assert (np.diff(s.look, axis=1) < 0).all()
    places = np.nonzero(s.gain > 0)[1]
    assert len(set(places.tolist())) == 6, "engaged items stand anywhere, so that their place tells nothing"


def test_pages_of_a_context_are_the_same_in_any_batch_and_differ_by_seed() -> None:
    whole, some = from_baskets(CONTEXTS, POOL, LOGITS, 6, 0), np.arange(5, 40)
    part = from_baskets(CONTEXTS.take(some), POOL[some], LOGITS[some], 6, 0)
    np.testing.assert_array_equal(whole.items[some], part.items)
    np.testing.assert_array_equal(keys_of(whole, 1)[some], keys_of(part, 1))
    assert (from_baskets(CONTEXTS, POOL, LOGITS, 6, 1).items != whole.items).any()


def test_a_pool_smaller_than_the_page_makes_a_short_page_without_gaps() -> None:
    pool = np.where(np.arange(25) < 3, POOL, NO_ITEM)
    logits = np.where(pool == NO_ITEM, -np.inf, LOGITS).astype(np.float32)
    s = from_baskets(CONTEXTS, pool, logits, 6, 0)
    assert ((s.items >= 0).sum(1) <= 3).all()
    assert (np.diff((s.items >= 0).astype(int), axis=1) <= 0).all()
    assert (s.gain[s.items < 0] == 0).all()
    none = from_baskets(CONTEXTS, np.full_like(pool, NO_ITEM), np.full_like(logits, -np.inf), 6, 0)
    assert (none.items == NO_ITEM).all()


def test_what_the_policy_likes_fills_the_page_more_often() -> None:
    liked = LOGITS.copy()
    liked[:, 0] = 4.0
    s = from_baskets(CONTEXTS, POOL, liked, 6, 0)
    first = POOL[:, 0]
    free = ~np.array([np.isin(first[c], CONTEXTS.target(c)) for c in range(len(s))])
    assert (s.items[free] == first[free, None]).any(1).mean() > 0.9


def test_engagement_grows_with_commitment_and_rating() -> None:
    events = [Event.VIEW_ITEM, Event.SELECT_ITEM, Event.ADD_TO_CART, Event.PURCHASE, Event.PAGE_VIEW, Event.RATE]
    log = LOG.where(np.arange(len(LOG)) < len(events))
    rating = np.array([np.nan] * 5 + [2.5], np.float32)
    changed = type(log)(log.user, log.item, log.time, log.basket, np.array(events, np.int8), rating, log.value, log.user_ids)
    assert event_gain(changed).tolist() == [0.5, 1.0, 2.0, 4.0, 0.0, 0.5]


def test_logged_slots_are_seen_as_far_as_the_log_knows() -> None:
    now = int(LOG.time.max()) + DAY
    item = np.array([1, 2, 3, 4, 5], np.int32)
    shown = Impressions(
        np.array(["a", "b"]),
        np.array([3, 4], np.int32),
        np.array([now, now], np.int64),
        np.array(["p", "p"]),
        np.array([0, 3, 5], np.int64),
        item,
        np.array([0, 0, 1, 0, 0], np.int16),
        np.array([0, 1, 0, 0, 1], np.int16),
        np.full(5, np.nan, np.float32),
        np.array([1, 0, -1, -1, 0], np.int8),
        np.array([False, False, False, False, True]),
        np.array([False, False, False, False, True]),
        np.zeros(5, bool),
        np.zeros(5, np.float32),
        np.array([now, now], np.int64),
    )
    look = np.array([[0.9, 0.5], [0.3, 0.2]])
    examination = Examination(look, "viewed", np.ones((2, 2), np.int64), np.ones((2, 2)), "")
    pages = np.array([0, 1])
    contexts = logged_contexts(shown, LOG, pages)
    s = from_pages(shown, contexts, pages, POOL[:2], LOGITS[:2], examination)
    assert s.items.tolist() == [[1, 2, 3], [4, 5, NO_ITEM]]
    assert s.seen == pytest.approx(np.array([[1, 0, 0.3], [0.9, 1, 0]])), "a click was seen, whatever the log says of views"
    assert s.gain.tolist() == [[0, 0, 0], [0, 2, 0]]
    assert s.event[1, 1] == Event.ADD_TO_CART
    assert (s.contexts.stop - s.contexts.start).tolist() == [(LOG.user == u).sum() for u in (3, 4)]
