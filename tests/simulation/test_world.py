"""The shop, its people and its log: plausible, learnable, the same however it is computed."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from pagellm.errors import UsageError
from pagellm.simulation.shop import make_shop
from pagellm.simulation.shop_log import simulate_log
from pagellm.simulation.spec import PROFILES, profile, spec_from_json
from pagellm.simulation.visits import make_visits
from pagellm.simulation.world import World
from pagellm.types import DAY


def test_logs_do_not_depend_on_chunks_or_threads(tiny, tiny_log):
    for chunk, threads in ((1, 1), (13, 2), (10_000, 1)):
        again = simulate_log(tiny, chunk=chunk, threads=threads)
        for field in ("policy", "items", "propensity", "outcome", "owned"):
            assert np.array_equal(getattr(tiny_log, field), getattr(again, field)), field


def test_logged_outcomes_can_be_drawn_again_from_the_visits(tiny, tiny_log):
    visits = tiny_log.visits
    again = tiny.sample_feedback(tiny_log.items, visits.user, visits.time, np.arange(len(visits)), owned=tiny_log.owned)
    assert np.array_equal(again.outcome, tiny_log.outcome)


def test_purchases_are_remembered_and_then_forgotten(tiny, tiny_log):
    visits, group = tiny_log.visits, tiny.shop.traits["group"]
    memory = tiny.spec.behavior.owned_days * DAY
    checked = 0
    for user in range(tiny.spec.users):
        mine = np.flatnonzero(visits.user == user)
        bought = [(visits.time[p], g) for p in mine for g in group[tiny_log.items[p][tiny_log.feedback.purchased[p]]]]
        for p in mine:
            kept = [g for t, g in bought[:16] if t < visits.time[p] and t >= visits.time[p] - memory]
            if len([t for t, _ in bought if t < visits.time[p]]) <= 16:
                assert sorted(tiny_log.owned[p][tiny_log.owned[p] >= 0]) == sorted(kept)
                checked += bool(kept)
    assert checked > 100


def test_log_means_agree_with_exact_expectations(demo):
    log = simulate_log(demo)
    exact = demo.expected(log.items, log.visits.user, log.visits.time, owned=log.owned)
    for sampled, expected in (
        (log.feedback.clicked.sum(axis=1), exact.clicks),
        (log.feedback.purchased.sum(axis=1), exact.purchases),
    ):
        assert abs(sampled.mean() - expected.mean()) < 4 * (sampled - expected).std() / np.sqrt(len(sampled))


def test_what_a_user_clicked_before_tells_what_comes_next(demo):
    log = simulate_log(demo)
    theme, clicked = demo.shop.traits["theme"], log.feedback.clicked
    page, slot = np.nonzero(clicked)
    user, of = log.visits.user[page], theme[log.items[page, slot]]
    early = log.visits.time[page] < demo.spec.start + 80 * DAY
    taste = np.zeros((demo.spec.users, demo.spec.themes))
    np.add.at(taste, (user[early], of[early]), 1)
    later = ~early & (taste[user].sum(axis=1) >= 3)
    own = (taste[user[later]].argmax(axis=1) == of[later]).mean()
    crowd = (taste.sum(axis=0).argmax() == of[later]).mean()
    assert own > 2.0 * crowd


def test_popularity_moves_so_that_old_counts_go_stale(demo):
    appeal = demo.shop.appeal[:, demo.shop.launch < 0].astype(float)
    near = np.mean([np.corrcoef(appeal[d], appeal[d - 3])[0, 1] for d in range(70, 120, 10)])
    far = np.mean([np.corrcoef(appeal[d], appeal[d - 60])[0, 1] for d in range(70, 120, 10)])
    assert near > 0.9
    assert far < 0.75


def test_users_drift_and_come_with_intents(demo):
    user = np.arange(400, dtype=np.int32)
    start = np.full(400, demo.spec.start + 5, np.int64)

    def likeness(days):
        there = demo.users_at(user, start + days * DAY).lasting
        here = demo.users_at(user, start).lasting
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(here, there, strict=True)])

    assert likeness(1) > 0.95
    assert likeness(60) < 0.9 < likeness(5)
    people = demo.users_at(user, start)
    assert abs((people.intent >= 0).mean() - demo.spec.behavior.intent_share) < 0.1
    came = people.intent >= 0
    lifted = people.interest[came, people.intent[came]] - people.lasting[came, people.intent[came]]
    np.testing.assert_allclose(lifted, demo.spec.behavior.intent)


def test_near_duplicates_have_near_equal_titles_and_others_have_not(demo):
    items, group = demo.shop.items, demo.shop.traits["group"]
    vectors = TfidfVectorizer().fit_transform(items["title"].to_list())
    cosine = (vectors @ vectors.T).toarray()
    np.fill_diagonal(cosine, np.nan)
    same_group = group[:, None] == group[None, :]
    same_theme = demo.shop.traits["theme"][:, None] == demo.shop.traits["theme"][None, :]
    assert np.nanmean(cosine[same_group]) > 0.75
    assert (cosine[same_group & ~np.isnan(cosine)] > 0.6).mean() > 0.97
    assert 0.1 < np.nanmean(cosine[same_theme & ~same_group]) < 0.5
    assert np.nanmean(cosine[~same_theme]) < 0.05
    assert items["title"].n_unique() > 0.99 * len(items)


def test_items_are_a_plausible_shop(demo):
    items = demo.shop.items
    assert items["item_id"].n_unique() == len(items)
    assert items["price"].min() > 1
    assert 0.6 < (demo.shop.launch < 0).mean() < 0.9
    assert 0.01 < items["sponsored"].mean() < 0.1
    sizes = np.bincount(demo.shop.traits["group"])
    assert 0.3 < (sizes > 1).mean() < 0.6
    assert set(np.unique(demo.shop.traits["theme"])) == set(range(demo.spec.themes))


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_equal_seeds_give_equal_shops(seed):
    first, again = make_shop(profile("tiny"), seed), make_shop(profile("tiny"), seed)
    assert first.items.equals(again.items)
    assert np.array_equal(first.traits, again.traits)
    assert not first.items.equals(make_shop(profile("tiny"), seed - 1 if seed else 5).items)


@pytest.mark.parametrize("name", list(PROFILES))
def test_visits_are_as_many_as_asked_and_in_order(name):
    spec = profile(name, pages=min(PROFILES[name].pages, 20_000))
    visits = make_visits(spec, 5)
    assert len(visits) == spec.pages
    assert (np.diff(visits.time) >= 0).all()
    assert visits.time[0] >= spec.start
    assert visits.time[-1] < spec.end
    users_of = {(s, u) for s, u in zip(visits.session.tolist(), visits.user.tolist(), strict=True)}
    assert len(users_of) == visits.session.max() + 1
    assert np.array_equal(
        np.sort(np.unique(visits.session, return_index=True)[1]), np.unique(visits.session, return_index=True)[1]
    )


def test_specs_survive_json(tiny):
    again = spec_from_json(tiny.spec.to_json())
    assert again == tiny.spec
    assert {f.name for f in fields(again)} == set(tiny.spec.to_json())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: profile("huge"), "not a world that we know"),
        (lambda: profile("tiny", pages=0), "at least one of pages"),
        (lambda: profile("tiny", items=10), "needs at least 16 items"),
        (lambda: World.make("tiny", -1), "whole number"),
    ],
)
def test_impossible_worlds_are_told(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_no_model_training_or_evaluation_code_imports_the_world(root: Path):
    allowed = {"simulation", "cli", "experiment", "demo.py", "reproduction"}
    guilty = []
    for path in (root / "src" / "pagellm").rglob("*.py"):
        part = path.relative_to(root / "src" / "pagellm").parts[0]
        imported = re.search(r"^\s*(from|import) pagellm\.simulation", path.read_text(encoding="utf-8"), re.MULTILINE)
        if imported and part not in allowed:
            guilty.append(str(path))
    assert guilty == []
