"""Gates pass what is surely not worse, fail what is, and stay open where nothing could be counted."""

from __future__ import annotations

import pytest

from pagellm.evaluation.results import Estimate
from pagellm.evaluation.slices import Slice
from pagellm.judging.gates import clean_pages, fast_enough, lawful, near_reference, no_losing_slice, not_worse


def paired(low: float, high: float) -> dict[str, object]:
    return {"paired": {"popularity": {"ndcg@10": {"diff": (low + high) / 2, "ci95": [low, high]}}}}


@pytest.mark.parametrize(("low", "high", "passed"), [(0.01, 0.02, True), (-0.01, 0.01, True), (-0.02, -0.01, False)])
def test_accuracy_fails_only_where_it_surely_fell(low, high, passed):
    assert not_worse(paired(low, high), "pagellm", "popularity", "ndcg@10").passed is passed


def test_without_anything_to_compare_with_accuracy_is_open():
    gate = not_worse({"paired": {}}, "pagellm", None, "ndcg@10")
    assert gate.passed is None
    assert "--against" in gate.found


def group(name: str, low: float, high: float) -> Slice:
    return Slice("theme", name, 400, 0.05, 0.05, Estimate((low + high) / 2, low, high))


def test_one_surely_losing_group_fails_all():
    assert no_losing_slice([group("tea", 0.94, 0.96), group("cups", 1.0, 1.2)]).passed is True
    failed = no_losing_slice([group("tea", 0.80, 0.94), group("cups", 1.0, 1.2)])
    assert failed.passed is False
    assert "theme, tea" in failed.found
    assert "1 of 2 fail" in failed.found
    assert no_losing_slice([Slice("theme", "tea", 400, 0.05, 0.0, None)]).passed is None


def test_one_broken_rule_or_unknown_item_fails_the_pages():
    assert clean_pages(100, 0, 0, "").passed is True
    assert clean_pages(100, 1, 0, "repeat at r0c1: twice").passed is False
    assert "repeat at r0c1: twice" in clean_pages(100, 1, 0, "repeat at r0c1: twice").found
    assert clean_pages(100, 0, 1, "").passed is False
    assert clean_pages(0, 0, 0, "").passed is None


def test_speed_is_that_of_95_of_100_pages():
    assert fast_enough([10.0] * 95 + [900.0] * 5, 300).passed is False
    assert fast_enough([10.0] * 96 + [900.0] * 4, 300).passed is True
    assert fast_enough([], 300).passed is None


def test_the_kept_policy_is_judged_and_not_the_last():
    curve = [{"step": 0, "kl": 0.0, "value": 1.0}, {"step": 5, "kl": 3.0, "value": 1.1}, {"step": 10, "kl": 40.0, "value": 0.5}]
    assert near_reference({"curve": curve, "best": 5, "health": "watch"}, 20).passed is True
    assert near_reference({"curve": curve, "best": 10, "health": "sick"}, 20).passed is False
    assert near_reference({"curve": curve, "best": 5, "health": "watch"}, 2).passed is False
    assert near_reference(None, 20).passed is None


def test_broken_laws_are_named():
    laws = {"duplicate_lowers": {"holds": True}, "equal_swap": {"holds": False}}
    gate = lawful({"laws": laws})
    assert gate.passed is False
    assert "broken: equal_swap" in gate.found
    assert lawful({"laws": {"duplicate_lowers": {"holds": True}}}).passed is True
    assert lawful(None).passed is None
