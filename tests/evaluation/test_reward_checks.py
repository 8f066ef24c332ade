"""Figures on rewards: rates with intervals over users, ties, calibration of known answers."""

from __future__ import annotations

import numpy as np
import pytest

from pagellm.evaluation.calibration import calibration, calibration_by_place
from pagellm.evaluation.reward_checks import Cases, Law, margins, pair_accuracy, pool_cases, rate, told_apart


def test_a_rate_is_resampled_by_user() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(100), 20).astype(np.int32)
    same = np.repeat((rng.random(100) < 0.7).astype(float), 20)  # all pairs of a user agree: 100 facts, not 2,000
    alone = (rng.random(2_000) < 0.7).astype(float)
    one, other = rate(same, user), rate(alone, user)
    assert one.high - one.low > 3 * (other.high - other.low)
    assert (one.count, one.users) == (2_000, 100)
    assert one.low < one.value < one.high
    assert np.isnan(rate(np.empty(0), np.empty(0, np.int32)).value)
    with pytest.raises(ValueError, match="needs its user"):
        rate(same, user[1:])


def test_a_tie_is_half_told_apart() -> None:
    assert told_apart(np.array([1.0, 0.0, 0.5]), np.array([0.0, 1.0, 0.5])).tolist() == [1, 0, 0.5]


def test_the_lead_over_the_probe_is_paired_and_seeds_pool_by_user() -> None:
    rng = np.random.default_rng(1)
    user = np.arange(400, dtype=np.int32)

    def cases() -> Cases:
        probe = np.stack([rng.random(400), rng.random(400)], 1)
        better = probe + np.array([0.05, 0.0])
        return Cases("policy", "relevance", user, better, better, probe)

    found = pair_accuracy(cases())
    assert found.lead.value == pytest.approx(found.reward.value - found.probe.value)
    assert found.lead.low > 0
    pooled = pair_accuracy(pool_cases([cases(), cases(), cases()]))
    assert (pooled.reward.count, pooled.reward.users) == (1_200, 400)
    assert pooled.as_json()["family"] == "relevance"


def test_a_law_holds_at_its_tolerance_or_where_nothing_can_be_counted() -> None:
    few = rate(np.array([1.0, 0.0]), np.arange(2, dtype=np.int32))
    many = rate(np.tile([1.0, 0.0], 1_000), np.arange(2_000, dtype=np.int32))
    assert Law("a", "", many, 0.5).holds
    assert Law("a", "", few, 0.6).holds, "two cases say too little to break it"
    assert not Law("a", "", many, 0.6).holds
    assert not Law("a", "", few, 1.0).holds, "one exception breaks a law that has none"
    nothing = Law("a", "", rate(np.empty(0), np.empty(0, np.int32)), 1.0)
    assert nothing.holds
    assert nothing.as_json()["n"] == 0


def test_calibration_of_true_chances_is_small_and_of_doubled_ones_is_not() -> None:
    rng = np.random.default_rng(2)
    chance = rng.uniform(0, 0.5, 20_000)
    happened = (rng.random(20_000) < chance).astype(float)
    good, bad = calibration(chance, happened), calibration(2 * chance, happened)
    assert good.error < 0.02
    assert bad.error == pytest.approx(0.25, abs=0.02)
    assert bad.relative_error == pytest.approx(1, abs=0.1)
    assert (np.diff(good.predicted) > 0).all()
    assert good.pages.sum() == 20_000
    assert ((good.low <= good.realised) & (good.realised <= good.high)).all()


def test_the_isotonic_fit_rises_and_mends_what_a_scale_broke() -> None:
    rng = np.random.default_rng(3)
    chance = rng.uniform(0, 0.5, 20_000)
    happened = (rng.random(20_000) < chance).astype(float)
    found = calibration(2 * chance, happened)
    assert found.isotonic is not None
    assert (np.diff(found.isotonic) >= 0).all()
    np.testing.assert_allclose(found.isotonic, found.predicted / 2, atol=0.03)
    assert len(found.as_json()["isotonic"]) == 10


def test_calibration_by_place_counts_what_stands_there() -> None:
    predicted = np.array([[0.5, 0.2, 9.0], [0.3, 9.0, 9.0]])
    realised = np.array([[1.0, 0.0, 9.0], [0.0, 9.0, 9.0]])
    filled = np.array([[True, True, False], [True, False, False]])
    found = calibration_by_place(predicted, realised, filled)
    np.testing.assert_allclose(found.predicted, [0.4, 0.2])
    np.testing.assert_allclose(found.realised, [0.5, 0.0])
    assert found.pages.tolist() == [2, 1]
    assert "isotonic" not in found.as_json()
    assert calibration_by_place(predicted[:, :0], realised[:, :0], filled[:, :0]).as_json()["predicted"] == []


def test_margins_count_every_pair_once() -> None:
    own = np.array([[0.0, 9.0], [1.0, 1.0], [1.2, 1.0], [3.0, 2.5], [9.0, 0.0]])
    cases = Cases("k", "f", np.arange(5, dtype=np.int32), own, own, own)
    counts = margins([cases, cases])
    assert sum(counts) == 10
    assert (counts[0], counts[-1]) == (2, 2)  # beyond the ends
    assert (counts[9], counts[10]) == (4, 2)  # from 0 to below .5, and from .5 on
