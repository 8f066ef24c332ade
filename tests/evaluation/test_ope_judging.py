"""When a log answers and when it refuses; intervals over users; what a figure says beside its number."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pagellm.evaluation.ope.diagnostics import LEAST_ESS, effective_sample_size, overlap
from pagellm.evaluation.ope.intervals import bootstrap, bootstrap_interval, empirical_bernstein, normal, unit_values
from pagellm.evaluation.ope.judging import METHODS, judge
from pagellm.evaluation.ope.records import Logged, Predicted, Terms

RNG = np.random.default_rng(5)


def easy(pages: int = 1_500, slots: int = 3, users: int = 300) -> Logged:
    """Two policies that choose among four items alike; one of them half as likely to take items 0 and 1."""
    rng = np.random.default_rng(1)
    logging, target = np.full((slots, 4), 0.25), np.tile([0.125, 0.125, 0.375, 0.375], (slots, 1))
    item = rng.integers(4, size=(pages, slots))
    slot = np.arange(slots)
    rewards = (rng.random((pages, slots)) < 0.1 + 0.1 * item).astype(float)
    predicted = Predicted(0.1 + 0.1 * item, *(np.full((pages, slots), 0.25 * 0.1 + 0.75 * 0.35),) * 2)
    chance = target[slot, item]
    every, one = np.ones((pages, slots), bool), np.ones((pages, slots))
    sides = (logging[slot, item], chance, chance, logging[slot, item], one)
    return Logged(rewards, *sides, every, rng.integers(users, size=pages), True, predicted)


TRUTH = 3 * (0.125 * 0.1 + 0.125 * 0.2 + 0.375 * 0.3 + 0.375 * 0.4)


def test_every_estimator_finds_a_planted_value() -> None:
    found = judge(easy(), resamples=500)
    assert [f.name for f in found.figures] == ["ips", "snips", "iips", "sniips", "pi", "rips", "cascade-dr", "dr"]
    for figure in (*found.figures, *found.slots):
        assert figure.refusal is None
        assert figure.bootstrap is not None
        assert figure.bernstein is not None
        assert figure.bernstein.low < figure.bootstrap.low < figure.bootstrap.high < figure.bernstein.high
        truth = TRUTH if not figure.name.startswith("slot") else TRUTH / 3
        assert figure.bootstrap.low - 0.05 < truth < figure.bootstrap.high + 0.05
        assert figure.overlap is not None
        assert figure.overlap.support == pytest.approx(1, abs=0.1)
        assert figure.pages == 1_500
    assert found.judged == 3


def test_doubly_robust_with_a_right_model_is_the_surest() -> None:
    figures = {f.name: f for f in judge(easy(), resamples=500).figures}
    width = {name: f.bootstrap.high - f.bootstrap.low for name, f in figures.items() if f.bootstrap is not None}
    assert width["cascade-dr"] < width["rips"]
    assert width["dr"] < width["ips"]


def test_weights_of_a_hand_made_log() -> None:
    assert effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0])) == 2
    assert effective_sample_size(np.zeros(3)) == 0
    found = overlap(np.array([[1.0, 4.0], [3.0, 9.0]]), np.array([[True, False], [True, True]]))
    assert found.ess_by_column == pytest.approx([16 / 10, 1.0])
    assert (found.ess, found.max_weight, found.support, found.weighted) == (1.0, 9.0, 2.0, 1.0)


def refusals(logged: Logged) -> dict[str, str]:
    found = judge(logged, resamples=50)
    for figure in (*found.figures, *found.slots):
        assert (figure.value is None) == (figure.refusal is not None), "a refused estimate prints no number"
        told = json.loads(json.dumps(figure.as_json(), allow_nan=False))
        assert (told["value"] is None) == (figure.refusal is not None)
    return {f.name: f.refusal.code for f in found.figures if f.refusal is not None}


def test_a_deterministic_log_is_refused() -> None:
    log = easy()
    codes = refusals(replace(log, logging=np.ones(log.logging.shape)))
    assert set(codes.values()) == {"deterministic"}
    assert len(codes) == len(METHODS)
    assert judge(replace(log, logging=np.ones(log.logging.shape))).slots == ()


def test_missing_propensities_are_refused_and_counted() -> None:
    log = easy()
    logging = log.logging.copy()
    logging[3, 1] = np.nan
    found = judge(replace(log, logging=logging))
    assert not found.answered
    assert found.figures[0].refusal is not None
    assert found.figures[0].refusal.verdict.startswith("cannot be judged from this log: 1 of 4,500 slots have no propensity")


def test_no_common_support_is_refused() -> None:
    log = easy()
    assert set(refusals(replace(log, given=np.zeros((1_500, 3)), alone=np.zeros((1_500, 3)))).values()) == {"no_support"}
    half = log.given * (log.given < 0.2)  # the log shows nothing of three quarters of what the policy shows
    codes = refusals(replace(log, given=half, alone=half))
    assert codes["iips"] == "no_support"


def test_few_effective_pages_are_refused_and_the_first_slots_are_not() -> None:
    log = easy(slots=14)
    found = judge(log, resamples=50)
    refused = {f.name: f.refusal for f in found.figures if f.refusal is not None}
    assert refused["ips"].code == "ess"
    assert f"below {LEAST_ESS:g}" in refused["ips"].verdict
    assert "iips" not in refused, "no single slot is scarce"
    assert 3 <= found.judged < 14
    again = judge(log.first(found.judged), resamples=50)
    assert all(f.refusal is None for f in again.figures if f.name == "rips")


def test_propensities_that_pages_were_not_drawn_with_are_refused() -> None:
    log = easy()
    assert refusals(replace(log, logging_alone=log.logging / 2))["iips"] == "wrong_propensities"


def test_single_slots_are_no_pages() -> None:
    log = easy()
    keep = np.arange(3) == (np.arange(1_500) % 3)[:, None]
    one = replace(
        log,
        rewards=log.rewards * keep,
        logging=np.where(keep, log.logging, 1.0),
        logging_alone=np.where(keep, log.logging, 1.0),
        given=np.where(keep, log.given, 1.0),
        alone=np.where(keep, log.alone, 1.0),
        real=keep,
        whole=False,
        predicted=None,
    )
    codes = refusals(one)
    assert {name: codes[name] for name in ("pi", "rips", "cascade-dr")} == dict.fromkeys(
        ("pi", "rips", "cascade-dr"), "single_slots"
    )
    assert codes["dr"] == "no_reward_model"
    assert "iips" not in codes
    values = {f.name: f.value for f in judge(one, resamples=50).figures}
    assert values["iips"] == pytest.approx(TRUTH, abs=0.15)
    assert values["ips"] == pytest.approx(TRUTH / 3, abs=0.05)


def test_a_users_pages_are_drawn_together() -> None:
    values = RNG.normal(size=400)
    doubled, unit = np.repeat(values, 2), np.repeat(np.arange(400), 2)
    once, twice = (Terms(v[:, None], np.ones((len(v), 1))) for v in (values, doubled))
    assert twice.value == pytest.approx(once.value)
    np.testing.assert_allclose(unit_values(twice.contributions, unit), values)
    np.testing.assert_allclose(bootstrap([once], np.arange(400), 100), bootstrap([twice], unit, 100))


def test_users_with_more_pages_count_for_more() -> None:
    terms = Terms(np.array([[1.0], [2.0], [6.0]]), np.ones((3, 1)))
    values = unit_values(terms.contributions, np.array([0, 0, 5]))
    assert values.mean() == pytest.approx(3.0)
    assert values == pytest.approx([3 + (3 - 6) * 2 / 3, 3 + (6 - 3) * 2 / 3])


def test_intervals_by_hand() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0])
    found = empirical_bernstein(values, span=1.0)
    tail = np.log(80)
    assert found.high - 0.5 == pytest.approx(np.sqrt(2 * (1 / 3) * tail / 4) + 7 * tail / 9)
    assert 0.5 - found.low == pytest.approx(found.high - 0.5)
    assert normal(values).high - 0.5 == pytest.approx(1.959964 * np.sqrt(1 / 3 / 4), abs=1e-6)
    assert empirical_bernstein(values[:1]).as_json() == [None, None]
    assert bootstrap_interval(np.array([0.1, np.nan])).as_json() == [None, None]


def test_the_linear_form_of_a_ratio_has_its_value_as_mean_and_its_spread() -> None:
    weights, rewards = RNG.exponential(size=3_000), RNG.random(3_000)
    terms = Terms((weights * rewards)[:, None], weights[:, None])
    assert terms.contributions.mean() == pytest.approx(terms.value)
    draws = bootstrap([terms], np.arange(3_000), 2_000)[:, 0]
    assert np.sqrt(terms.contributions.var() / 3_000) == pytest.approx(draws.std(), rel=0.06)
