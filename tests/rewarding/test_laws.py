"""Each law holds for a reward that knows the truth, and is broken by one that is wrong in just that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagellm.evaluation.reward_checks import Law
from pagellm.models.multi_grained import MultiGrainedReward, RewardModel
from pagellm.models.page_inputs import PageReader
from pagellm.rewarding.judge import judge_of
from pagellm.rewarding.laws import LAWS, laws_of
from rewarding.right_reward import (
    RUN,
    Backwards,
    Comparing,
    CountsSlots,
    LikesBadPlaces,
    LikesCopies,
    LikesTheOwned,
    LooksAtOthers,
    RanksByNumber,
    Right,
    ScoresAnything,
    reward_of,
)

WRONG: dict[str, list[tuple[type[RewardModel], type[PageReader]]]] = {
    "duplicate_lowers": [(LikesCopies, PageReader)],
    "engaged_up_raises": [(LikesBadPlaces, PageReader)],
    "equal_swap": [(CountsSlots, PageReader), (RanksByNumber, PageReader)],
    "order_of_pages": [(LooksAtOthers, PageReader)],
    "consumed_never_raises": [(LikesTheOwned, PageReader)],
    "order_of_candidates": [(Right, Comparing)],
    "impossible_is_an_error": [(ScoresAnything, PageReader)],
    "unseen_defects": [(Backwards, PageReader)],
}


def found(reward: MultiGrainedReward) -> dict[str, Law]:
    judge = judge_of(RUN, reward, "choices", 0)
    return {law.name: law for law in laws_of(judge, judge.unseen())}


@pytest.fixture(scope="module")
def right() -> dict[str, Law]:
    return found(reward_of(Right))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_holds_for_a_right_reward(right: dict[str, Law], name: str) -> None:
    law = right[name]
    assert list(right) == list(LAWS) == list(WRONG)
    assert law.rate.count >= (3 if name == "impossible_is_an_error" else 20)
    assert law.holds
    assert law.rate.value > 0.9
    assert (law.says, law.tolerance) == LAWS[name]


@pytest.mark.parametrize(("name", "kind", "reader"), [(name, *wrong) for name, every in WRONG.items() for wrong in every])
def test_a_law_is_broken_by_a_reward_that_is_wrong_in_just_that(
    name: str, kind: type[RewardModel], reader: type[PageReader]
) -> None:
    laws = found(reward_of(kind, reader))
    assert not laws[name].holds
    if name != "unseen_defects":  # a page reward turned round breaks other laws, too
        assert [law.name for law in laws.values() if not law.holds] == [name]


def test_laws_draw_the_same_whatever_the_chunks() -> None:
    judge = judge_of(RUN, reward_of(Right), "choices", 0)
    (chunk,) = judge.chunks
    parts = [chunk.take(np.arange(at, min(at + 7, len(chunk)))) for at in range(0, len(chunk), 7)]
    whole, split = (laws_of(replace(judge, chunks=chunks), []) for chunks in ([chunk], parts))
    drawn_by_page = ("duplicate_lowers", "engaged_up_raises", "equal_swap", "consumed_never_raises")
    for one, other in zip(whole, split, strict=True):
        if one.name in drawn_by_page:
            assert one.as_json() == other.as_json()


def test_where_users_take_things_again_what_they_have_may_raise_the_reward() -> None:
    judge = judge_of(RUN, reward_of(LikesTheOwned), "choices", 0)
    config = RUN.config.model_copy(update={"split": RUN.config.split.model_copy(update={"repeats": True})})
    laws = {law.name: law for law in laws_of(replace(judge, run=replace(RUN, config=config)), [])}
    assert laws["consumed_never_raises"].rate.count == 0
    assert laws["consumed_never_raises"].holds
