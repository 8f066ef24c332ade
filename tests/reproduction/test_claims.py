"""What an ablation concludes, on planted figures whose right answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from pagellm.errors import UsageError
from pagellm.evaluation.significance import holm
from pagellm.reporting.tables import beside_paper
from pagellm.reproduction.arms import GROUPS, learned_arms
from pagellm.reproduction.claims import REPEATED, at_level, findings
from pagellm.reproduction.tables import Point, Points, tidy

USERS = 400
NOISE = np.random.default_rng(0).normal(size=USERS) * 0.1


def point(arm: str, base: str, method: str, reward: str, ndcg: float, doubles: float, clicks: float | None = None) -> Point:
    """A point whose figures are these means, with the same noise for all: paired differences are exact."""
    values = {}
    for part in ("choices", "test"):
        values[f"{part}/ndcg@10"] = np.tile(ndcg * (1 + NOISE - NOISE.mean()), (2, 1))
        values[f"{part}/ndcg@100"] = values[f"{part}/ndcg@10"] * 2
        values[f"{part}/ild@10"] = 1 - np.tile(doubles * (1 + NOISE - NOISE.mean()), (2, 1)) / 10
        values[f"{part}/near_duplicates@10"] = np.tile(doubles * (1 + NOISE - NOISE.mean()), (2, 1))
        if clicks is not None:
            gap = np.random.default_rng(len(arm)).normal(size=USERS) * 0.01
            values[f"{part}/true_clicks"] = np.tile(clicks + gap - gap.mean(), (2, 1))
    return Point("shop", arm, base, method, reward, "", 5.0 if method == "ppo" else None, (0, 1), values)


def world(joint: float = 0.5, page: float = 0.4, item: float = 0.45) -> Points:
    return Points(
        (
            point("sft.start", "start", "sft", "none", 0.5, 4.0, 2.0),
            point("sft.head", "head", "sft", "none", 0.51, 4.4),
            point("mmr.start.0.7", "start", "mmr", "none", 0.44, 1.0),
            point("mmr.start.0.9", "start", "mmr", "none", 0.48, 3.0),
            point("ppo-joint-r3", "start", "ppo", "joint", joint, 2.0, 2.4),
            point("ppo-joint-r8", "start", "ppo", "joint", joint - 0.02, 1.5, 2.3),
            point("ppo-page-r3", "start", "ppo", "page", page, 1.8, 2.2),
            point("ppo-item", "start", "ppo", "item", item, 4.5, 2.1),
        )
    )


def one(points: Points, claim: str, contains: str, metric: str = "ndcg@10") -> list[float | bool | None]:
    found = [f for f in findings(points) if f.claim == claim and contains in f.what and f.metric == metric]
    assert len(found) == 1, [f.what for f in findings(points)]
    return [round(found[0].value, 6), found[0].holds]


def test_the_best_control_is_chosen_on_choices_and_the_joint_arm_is_measured_against_it() -> None:
    assert one(world(), "kept", "ppo-joint-r3 on start against sft on head") == [round(0.5 / 0.51, 6), False]
    assert one(world(joint=0.507), "kept", "against sft on head") == [round(0.507 / 0.51, 6), True]
    assert one(world(), "kept", "against sft on head", "near_duplicates@10") == [round(2.0 / 4.4, 6), True]


def test_figures_of_the_paper_have_ours_beside_them() -> None:
    assert one(world(), "paper", "without the page reward: ppo-item", "ndcg@100") == [0.9, None]
    assert one(world(), "paper", "without the item reward: ppo-page-r3", "ndcg@100") == [0.8, None]
    assert one(world(), "paper", "both rewards: ppo-joint-r3 against sft.start", "ndcg@100") == [1.0, None]
    rows = beside_paper([f.as_json() for f in findings(world()) if f.claim == "paper"])
    assert rows[0][1] == "paper -17.8 %; here -10.0 % [-10.0, -10.0] (shop: ppo-item against ppo-joint-r3)"
    assert all("here not measured (it takes an experiment" in text for _, text in rows[3:])
    assert all("not measured" in text for _, text in beside_paper([]))


def test_a_reranker_is_compared_at_the_same_repetition() -> None:
    """At two near-duplicates MMR is a coin between .44 and .48."""
    assert one(world(), "frontier", "ppo-joint-r3 on start against mmr on start at as many") == [round(0.5 / 0.46, 6), True]
    assert one(world(joint=0.45), "frontier", "ppo-joint-r3 on start against mmr on start at as many") == [
        round(0.45 / 0.46, 6),
        False,
    ]


def test_on_later_labels_an_arm_is_compared_with_its_own_reranker_and_with_the_one_that_has_all_of_them() -> None:
    more = (
        point("mmr.refreshed.0.7", "refreshed", "mmr", "none", 0.46, 1.0),
        point("mmr.refreshed.0.9", "refreshed", "mmr", "none", 0.52, 3.0),
        point("mmr.both.0.7", "both", "mmr", "none", 0.45, 1.0),
        point("mmr.both.0.9", "both", "mmr", "none", 0.55, 3.0),
        point("ppo-joint-r3", "refreshed", "ppo", "joint", 0.5, 2.0),
    )
    points = Points((*world().every, *more))
    assert one(points, "frontier", "on refreshed against mmr on refreshed at as many") == [round(0.5 / 0.49, 6), True]
    assert one(points, "frontier", "on refreshed against mmr on both at as many") == [1.0, False]


def test_no_reranker_is_invented_beyond_its_range() -> None:
    points = world().of_dataset("shop")
    dial = [p for p in points if p.method == "mmr"]
    assert at_level(dial, REPEATED, 0.5) is None
    mixed = at_level(dial, REPEATED, 3.0)
    assert mixed is not None
    assert mixed.mean() == pytest.approx(0.48)


def test_single_rewards_are_compared_with_the_joint_frontier() -> None:
    found = {f.what: f for f in findings(world()) if f.claim == "rewards"}
    page = found["the joint arms at as many near-duplicates against ppo-page-r3 on start"]
    assert page.value == pytest.approx((0.5 * 0.6 + 0.48 * 0.4) / 0.4)  # 1.8 lies three fifths from 1.5 to 2
    assert found["ppo-joint-r3, the nearest joint arm against ppo-item on start"].value == pytest.approx(0.5 / 0.45)


def test_the_truth_is_tested_with_holms_correction() -> None:
    found = {f.what: f for f in findings(world()) if f.claim == "truth"}
    assert set(found) == {
        "ppo-joint-r3 less ppo-page-r3",
        "ppo-joint-r3 less ppo-item",
        "ppo-page-r3 less sft.start",
        "ppo-item less sft.start",
        "ppo-joint-r3 less sft.start",
    }
    assert all(f.holds for f in found.values())
    assert found["ppo-joint-r3 less ppo-page-r3"].value == pytest.approx(0.2)


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_long_table_has_every_seed_and_the_pooled_rows_paired_with_the_policy_of_the_base() -> None:
    table = tidy(world())
    rows = table.filter((table["arm"] == "ppo-joint-r3") & (table["metric"] == "ndcg@10") & (table["part"] == "test"))
    assert sorted(rows["seed"].to_list(), key=str) == [0, 1, None]
    pooled = rows.filter(rows["seed"].is_null()).row(0, named=True)
    assert pooled["mean"] == pytest.approx(0.5)
    assert pooled["lo"] < 0.5 < pooled["hi"]
    assert pooled["paired_diff"] == pytest.approx(0, abs=1e-9)
    again = table.filter((table["arm"] == "mmr.start.0.7") & table["seed"].is_null() & (table["part"] == "test"))
    assert again.filter(again["metric"] == "ndcg@10")["paired_diff"][0] == pytest.approx(-0.06)


def test_arms_have_names_of_their_own_and_unknown_groups_are_named() -> None:
    arms = learned_arms(GROUPS)
    assert len({arm.name for arm in arms}) == len(arms)
    assert {arm.reward for arm in arms if arm.group == "claim"} == {"joint", "page", "item"}
    with pytest.raises(UsageError, match=r"'contols' is not known\. Groups: controls"):
        learned_arms(["contols"])
