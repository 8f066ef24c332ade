"""Intervals against formulas and against their promise: 95 of 100 cover the truth."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from pagellm.evaluation import significance
from pagellm.evaluation.significance import (
    flips_for,
    holm,
    interval,
    ratio_interval,
    resampled_means,
    seeded_means,
    sign_flip_p,
)


def test_spread_of_resampled_means_is_the_standard_error() -> None:
    values = np.random.default_rng(0).exponential(1, (500, 3)) * [1, 2, 5]
    draws = resampled_means(values, 20_000)
    np.testing.assert_allclose(draws.mean(0), values.mean(0), rtol=0.005)
    np.testing.assert_allclose(draws.std(0), values.std(0) / np.sqrt(500), rtol=0.03)


def test_equals_a_plain_bootstrap_with_the_same_draws() -> None:
    weights = significance._multinomial(0, 50, 20, 7)
    np.testing.assert_array_equal(weights.sum(1), 20)
    values = np.random.default_rng(1).random((20, 2))
    drawn = [np.repeat(np.arange(20), row.astype(int)) for row in weights]
    np.testing.assert_allclose(resampled_means(values, 50, seed=7), [values[d].mean(0) for d in drawn])


def test_each_user_is_drawn_equally_often() -> None:
    counts = significance._multinomial(0, 40_000, 7, 3).sum(0)
    assert ((counts - 40_000) ** 2 / 40_000).sum() < 30  # chi-square, 6 degrees of freedom: p < 1e-4 beyond


def test_seeds_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random((100, 4))
    whole = resampled_means(values, 200, seed=3)
    assert not np.allclose(whole, resampled_means(values, 200, seed=4))
    monkeypatch.setattr(significance, "_BATCH_BYTES", 8 * 100 * 7)
    np.testing.assert_allclose(resampled_means(values, 200, seed=3), whole, rtol=1e-13)


def test_intervals_cover_the_truth_of_skewed_values() -> None:
    rng, covered = np.random.default_rng(4), 0
    for trial in range(300):
        low, high = interval(resampled_means(rng.exponential(1, (200, 1)), 400, seed=trial))[:, 0]
        covered += low <= 1 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_leaves_as_much_on_either_side() -> None:
    np.testing.assert_allclose(interval(np.arange(1001.0)[:, None]), [[25], [975]])
    np.testing.assert_allclose(interval(np.arange(1001.0)[:, None], level=0.9), [[50], [950]])


def test_paired_differences_are_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(5)
    hard = rng.exponential(1, 800)
    both = np.stack([hard + rng.normal(0, 0.1, 800) + 0.02, hard + rng.normal(0, 0.1, 800)], axis=1)
    draws = resampled_means(both)
    width = np.ptp(interval(draws[:, :1] - draws[:, 1:])[:, 0])
    assert width == pytest.approx(2 * 1.96 * (both[:, 0] - both[:, 1]).std() / np.sqrt(800), rel=0.1)
    assert width < np.ptp(interval(draws)[:, 0]) / 4


def test_ratio_of_a_multiple_is_exact_and_division_by_zero_is_nan() -> None:
    a = np.random.default_rng(6).random((100, 1))
    draws = resampled_means(np.hstack([a, 3 * a, 0 * a]), 200)
    np.testing.assert_allclose(ratio_interval(draws[:, 1:2], draws[:, :1]), 3)
    assert np.isnan(ratio_interval(draws[:, :1], draws[:, 2:])).all()


def test_sign_flips_by_enumeration() -> None:
    # Four users, all better by 1: of the 16 sign patterns 2 are as extreme, so p tends to 1/8.
    assert sign_flip_p(np.ones((4, 1)), 40_000)[0] == pytest.approx(1 / 8, abs=0.006)
    assert sign_flip_p(np.zeros((4, 1)), 100)[0] == 1


def test_sign_flips_are_uniform_without_a_difference_and_small_with_one() -> None:
    rng = np.random.default_rng(7)
    p = sign_flip_p(rng.normal(0, 1, (200, 500)), 500)
    assert 0.03 <= (p <= 0.05).mean() <= 0.075
    assert sign_flip_p(rng.normal(0.5, 1, (200, 1)), 500)[0] == pytest.approx(1 / 501)


def test_ten_thousand_users_two_thousand_resamples_within_two_seconds_and_bounded_memory() -> None:
    values = np.random.default_rng(8).random((10_000, 50))
    resampled_means(values[:10], 2)  # compilation
    tracemalloc.start()
    began = time.process_time()
    draws = resampled_means(values, 2000)
    taken, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert draws.shape == (2000, 50)
    assert taken < 2
    assert peak < 200e6


def test_one_seed_is_the_bootstrap_over_users() -> None:
    values = np.random.default_rng(9).random((1, 40, 2))
    np.testing.assert_allclose(seeded_means(values, 100, seed=3), resampled_means(values[0], 100, seed=3), rtol=1e-13)


def test_equal_seeds_vary_by_their_users_alone() -> None:
    values = np.random.default_rng(10).random((40, 2))
    both = seeded_means(np.stack([values] * 3), 100, seed=3)
    np.testing.assert_allclose(both, resampled_means(values, 100, seed=3), rtol=1e-12)


def test_seeds_that_differ_alone_give_the_standard_error_of_their_mean() -> None:
    # Three seeds of 1, 2 and 6, the same for every user: mean 3, standard deviation sqrt(7), so the error is sqrt(7 / 3).
    values = np.broadcast_to(np.array([1.0, 2.0, 6.0])[:, None, None], (3, 50, 1))
    draws = seeded_means(values, 40_000)
    assert draws.mean() == pytest.approx(3, abs=0.02)
    assert draws.std() == pytest.approx(np.sqrt(7 / 3), rel=0.02)


def test_spread_over_users_and_seeds_adds_up() -> None:
    rng = np.random.default_rng(11)
    stds = []
    for trial in range(60):
        values = 1 + rng.normal(0, 0.1, (5, 1, 1)) + rng.normal(0, 1, (1, 200, 1)) + rng.normal(0, 0.5, (5, 200, 1))
        stds.append(seeded_means(values, 300, seed=trial).var())
    truth = 0.1**2 / 5 + 1 / 200 + 0.5**2 / 1000
    assert np.mean(stds) == pytest.approx(truth, rel=0.15)


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .04 of three tests: .03, .04, .04; a later one is never smaller than one before it.
    assert holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_corrected_tests_rarely_find_what_is_not_there() -> None:
    rng, found = np.random.default_rng(12), 0
    for trial in range(200):
        found += min(holm(sign_flip_p(rng.normal(0, 1, (60, 8)), 400, seed=trial))) <= 0.05
    assert found / 200 <= 0.09  # one by one it would be a third


def test_there_are_flips_enough_for_the_smallest_corrected_p_to_be_small() -> None:
    assert flips_for(1) == 2_000
    assert flips_for(150) == 15_000
    assert flips_for(10_000) == 20_000
    assert 150 / (flips_for(150) + 1) < 0.01
