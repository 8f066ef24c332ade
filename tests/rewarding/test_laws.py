"""Each law holds for a reward that knows the truth, and is broken by one that is wrong in just that."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pagellm.evaluation.reward_checks import Law
from pagellm.models.multi_grained import MultiGrainedReward, RewardModel
from pagellm.models.page_inputs import PageReader
from pagellm.rewarding.judge import judge_of
from pagellm.rewarding.laws import LAWS, laws_of
from pagellm.rewarding.trial import Trial, first_of_two, twin_beside
from rewarding.right_reward import (
    RUN,
    Backwards,
    Comparing,
    CountsSlots,
    KnowsNumbers,
    LikesBadPlaces,
    LikesCopies,
    LikesTheOwned,
    LooksAtOthers,
    RanksByNumber,
    ReadsAll,
    Right,
    ScoresAnything,
    reward_of,
)

WRONG: dict[str, list[tuple[type[RewardModel], type[PageReader]]]] = {
    "duplicate_lowers": [(LikesCopies, PageReader)],
    "engaged_up_raises": [(LikesBadPlaces, PageReader)],
    "equal_swap": [(CountsSlots, PageReader), (RanksByNumber, PageReader)],
    "equal_items": [(KnowsNumbers, PageReader)],
    "order_of_pages": [(LooksAtOthers, PageReader)],
    "consumed_never_raises": [(LikesTheOwned, PageReader)],
    "order_of_candidates": [(ReadsAll, Comparing)],
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
    drawn_by_page = ("duplicate_lowers", "engaged_up_raises", "equal_swap", "equal_items", "consumed_never_raises")
    for one, other in zip(whole, split, strict=True):
        if one.name in drawn_by_page:
            assert one.as_json() == other.as_json()


def test_a_reward_may_use_all_that_is_read_and_differ_by_nothing_else() -> None:
    laws = found(reward_of(ReadsAll))
    assert all(law.holds for law in laws.values())


def test_the_law_on_impossible_items_says_which_were_tried() -> None:
    reward = reward_of(Right)
    judge = judge_of(RUN, reward, "choices", 0)
    reader = replace(reward.model.reader, allowed=np.ones(len(RUN.catalog), bool))
    open_ = replace(judge, reward=replace(reward, model=replace(reward.model, reader=reader)))
    (tried,), (fewer,) = ([law for law in laws_of(j, []) if law.name == "impossible_is_an_error"] for j in (judge, open_))
    assert "hidden is an error" in tried.says
    assert tried.rate.count == 3 * len(judge.chunks)
    assert "none of this catalog is hidden" in fewer.says
    assert fewer.rate.count == 2 * len(judge.chunks)
    assert fewer.holds


def test_twins_stand_on_a_page_once_and_are_new_to_the_user() -> None:
    judge = judge_of(RUN, reward_of(Right), "choices", 0)
    trial = Trial.of(judge, judge.chunks[0])
    beside, can = trial.altered(twin_beside, 6)
    other, _ = trial.altered(partial(twin_beside, turned=True), 6)
    for p in np.flatnonzero(can):
        a, b = np.flatnonzero(beside[p] != other[p])
        assert beside[p, a] ^ 1 == beside[p, b] == other[p, a]
        assert not np.isin(beside[p, [a, b]], trial.s.contexts.history(p)).any()
        assert (first_of_two(beside[p]) == first_of_two(beside[p, [a]])).sum() == 2
    assert (beside[~can] == trial.batch.items[~can]).all()


def test_where_users_take_things_again_what_they_have_may_raise_the_reward() -> None:
    judge = judge_of(RUN, reward_of(LikesTheOwned), "choices", 0)
    config = RUN.config.model_copy(update={"split": RUN.config.split.model_copy(update={"repeats": True})})
    laws = {law.name: law for law in laws_of(replace(judge, run=replace(RUN, config=config)), [])}
    assert laws["consumed_never_raises"].rate.count == 0
    assert laws["consumed_never_raises"].holds
