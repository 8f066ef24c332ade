"""What stands on a page or stands in for others was known before the page's own context: neither later, nor only before the window."""

from __future__ import annotations

import numpy as np
import pytest

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.config import PairConfig
from pagellm.data.contexts import ALWAYS
from pagellm.data.likeness import Likeness, likeness_of
from pagellm.data.preferences.held_out import Shelf, held_out_pairs
from pagellm.data.preferences.pairs import HeldOut, Operator, Pairs
from pagellm.data.preferences.situations import keys_of
from pagellm.models.run import Run
from pagellm.rewarding.judge import judged_source
from pagellm.training.pair_sources import PairSource, known_since, mine_source, situations
from pagellm.training.run_rewards import reward_source
from pagellm.types import Impressions, Interactions
from tiny_run import fresh_run

YOUNG = np.arange(24, 40)
"""Items that nobody takes before one moment inside the window that is mined."""


def young_log(at: float) -> tuple[Interactions, int]:
    """The small shop, where the young items appear at this share of the events, and that moment."""
    log = small_log(240)
    moment = int(np.quantile(log.time, at))
    return log.where(~np.isin(log.item, YOUNG) | (log.time >= moment)), moment


def run_of(at: float) -> tuple[Run, int]:
    log, moment = young_log(at)
    return fresh_run(small_catalog(), log, "split.reward_at=0.6", "split.held_out=0.3"), moment


def likeness(run: Run) -> Likeness:
    return likeness_of(run.catalog, run.content, 0.1)


def newcomers(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """(pair, item) of everything that a rejected page holds and its chosen one does not."""
    new = [(p, j) for p in range(len(pairs)) for j in np.setdiff1d(pairs.rejected[p], pairs.chosen[p]) if j >= 0]
    pair, item = np.array(new).T
    return pair, item


def check(pairs: Pairs, since: np.ndarray, moment: int) -> None:
    """Nothing from the future, and the young ones are there once they are known."""
    pair, item = newcomers(pairs)
    assert (since[item] < pairs.time[pair]).all()
    assert (pairs.time[pair] <= moment).any(), "the window must begin before the young items appear, or nothing is tested"
    assert np.isin(item[pairs.time[pair] > moment], YOUNG).any()


def mined(source: PairSource, like: Likeness) -> Pairs:
    return mine_source(source, like, PairConfig(slots=6), 0, repeats=False)[0]


def test_an_item_is_known_from_its_first_event_or_showing_on() -> None:
    frame = small_catalog(5).frame
    catalog = Catalog(frame.with_columns(hidden=np.arange(5) == 3))
    log = small_log().where(np.zeros(len(small_log()), bool))
    times = np.array([70, 50, 60], np.int64)
    kind, none = np.zeros(3, np.int8), np.full(3, np.nan, np.float32)
    log = Interactions(np.zeros(3, np.int32), np.array([0, 0, 3]), times, np.zeros(3, np.int32), kind, none, none, log.user_ids)
    no, zero = np.zeros(3, bool), np.zeros(3, np.int16)
    shown = Impressions(
        np.array(["a", "b"]), np.zeros(2, np.int32), np.array([40, 90], np.int64), np.array(["p", "p"]), np.array([0, 2, 3]),
        np.array([1, 0, 2], np.int32), zero, zero, none, zero.astype(np.int8) - 1, no, no, no, none,
        np.array([40, 90], np.int64),
    )  # fmt: skip
    assert known_since(log, None, catalog).tolist() == [50, ALWAYS, ALWAYS, ALWAYS, ALWAYS]
    assert known_since(log, shown, catalog).tolist() == [40, 40, 90, ALWAYS, ALWAYS]


def test_pairs_that_are_learned_from_know_what_their_context_knows() -> None:
    run, moment = run_of(0.82)
    source = reward_source(run)
    pairs = mined(source, likeness(run))
    check(pairs, source.since, moment)
    for operator in (Operator.POLICY, Operator.CHANNEL, Operator.NEAR_DUPLICATE):
        check(pairs.take(np.flatnonzero(pairs.operator == operator)), source.since, moment)


def test_candidates_are_known_strictly_before_their_context() -> None:
    run, moment = run_of(0.82)
    source = reward_source(run)
    chunks = list(situations(source, 6, 0).chunks)
    pool, time = (np.concatenate([a.ravel() for a in arrays]) for arrays in zip(
        *((s.pool, np.repeat(s.contexts.time, s.pool.shape[1])) for s in chunks), strict=True
    ))  # fmt: skip
    real = pool >= 0
    assert (source.since[pool[real]] < time[real]).all()
    assert (time == moment).any(), "a context at the very moment must be there: it knows none of the young"
    assert np.isin(pool[time > moment], YOUNG).any()


def test_held_out_defects_know_what_their_context_knows() -> None:
    run, moment = run_of(0.9)
    source = judged_source(run, "choices")
    like = likeness(run)
    log = source.log
    shelf = Shelf.of(like, source.since, log.item[log.time < source.begin])
    assert not np.isin(shelf.best_sellers, YOUNG).any()
    made = [held_out_pairs(s, keys_of(s, 0), shelf) for s in situations(source, 6, 0).chunks]
    (pairs,) = made
    check(pairs, source.since, moment)
    for operator in (HeldOut.FOREIGN_BLOCK, HeldOut.BRAND_WALL):
        check(pairs.take(np.flatnonzero(pairs.operator == operator)), source.since, moment)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.7, 0.9])
def test_the_future_of_the_log_changes_nothing_that_is_known(at: float) -> None:
    log, _ = young_log(0.7)
    catalog, now = small_catalog(), int(np.quantile(log.time, at))
    past = log.where(log.time < now)
    known = known_since(log, None, catalog) < now
    np.testing.assert_array_equal(known, known_since(past, None, catalog) < now)
    assert 0 < known.sum() <= len(catalog)
