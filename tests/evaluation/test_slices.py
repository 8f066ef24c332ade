"""Groups of users hold whom they name, and say who gains and who loses."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_shop import last_baskets, random_log

from pagellm.evaluation.results import Results
from pagellm.evaluation.slices import LEAST_USERS, groups_of, slices
from pagellm.types import DAY

ITEMS = 30
THEME = (np.arange(ITEMS, dtype=np.int32) % 3).astype(np.int32)


def test_every_user_with_a_history_is_in_one_group_of_each_range():
    contexts = last_baskets(random_log(300, ITEMS, seed=3))
    groups = groups_of(contexts, THEME, ["tea", "cups", "pots"])
    has = contexts.stop > contexts.start
    for kind in ("events before the page", "days since the last event"):
        assert (sum(g.astype(int) for g in groups[kind].values()) == has).all()
    length = contexts.stop - contexts.start
    assert (length[groups["events before the page"]["5 to less than 10 events"]] >= 5).all()
    assert (length[groups["events before the page"]["5 to less than 10 events"]] < 10).all()
    recent = groups["days since the last event"]["0 to less than 7 days"]
    assert (contexts.time[recent] - contexts.log.time[contexts.stop[recent] - 1] < 7 * DAY).all()
    tea = groups["theme of the last item"]["tea"]
    assert (THEME[contexts.log.item[contexts.stop[tea] - 1]] == 0).all()
    assert (sum(g.astype(int) for g in groups["theme of the last item"].values()) == has).all()


def test_the_worst_group_comes_first_and_small_ones_are_left_out():
    rng = np.random.default_rng(0)
    users = 3 * LEAST_USERS
    theirs = rng.random(users)
    loses = np.arange(users) < LEAST_USERS
    ours = theirs * np.where(loses, 0.8, 1.1)
    results = Results(np.arange(users, dtype=np.int32), ("ndcg@10",), {"pagellm": ours[:, None], "other": theirs[:, None]})
    few = np.arange(users) < LEAST_USERS - 1
    found = slices(results, {"half": {"gains": ~loses, "loses": loses}, "small": {"few": few}}, "pagellm", "other", "ndcg@10")
    assert [(s.kind, s.name, s.users) for s in found] == [("half", "loses", LEAST_USERS), ("half", "gains", 2 * LEAST_USERS)]
    assert found[0].ratio is not None
    assert found[0].ratio.value == pytest.approx(0.8)
    assert found[0].ratio.low == pytest.approx(found[0].ratio.high), "a fixed share of the same users has no spread"
    assert found[1].as_json()["ratio"]["ratio"] == pytest.approx(1.1)


def test_a_group_whose_reference_never_hits_has_no_ratio():
    users = LEAST_USERS
    values = {"pagellm": np.ones((users, 1)), "other": np.zeros((users, 1))}
    every = {"all": {"all": np.ones(users, bool)}}
    found = slices(Results(np.arange(users, dtype=np.int32), ("ndcg@10",), values), every, "pagellm", "other", "ndcg@10")
    assert found[0].ratio is None
    assert found[0].as_json()["ratio"] is None
