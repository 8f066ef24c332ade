"""Who is judged: everybody where it fits, else drawn users with all of their pages, and figures that no chunk changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pagellm.errors import DataError
from pagellm.rewarding import judge as judging
from pagellm.rewarding.judge import judge_of, judged_source
from pagellm.rewarding.sampling import draw_users, pages_by_user
from pagellm.training.pair_sources import situations
from pagellm.types import Impressions
from rewarding.right_reward import RUN, Right, reward_of

SOURCE = judged_source(RUN, "choices")


def logged() -> Impressions:
    """Two slots a page; pages at the window's begin and after its end, of users who count and who do not."""
    users = np.arange(40, dtype=np.int32)
    user = np.concatenate([users, users, users[:5]])
    time = np.concatenate([np.full(40, SOURCE.begin), np.full(40, SOURCE.end), np.full(5, SOURCE.begin + 1)])
    slots = 2 * len(user)
    none, one = np.zeros(slots, bool), np.arange(slots) % 4 == 0  # every other page has a click
    spots = np.tile(np.array([0, 1], np.int16), len(user))
    return Impressions(
        page_ids=np.array([f"p{p}" for p in range(len(user))]),
        user=user,
        time=time.astype(np.int64),
        policy=np.full(len(user), "x"),
        offsets=np.arange(0, slots + 1, 2),
        row=np.zeros(slots, np.int16),
        col=spots,
        item=np.arange(slots, dtype=np.int32) % len(RUN.catalog),
        propensity=np.full(slots, np.nan, np.float32),
        viewed=np.full(slots, -1, np.int8),
        clicked=one,
        carted=none,
        purchased=none,
        value=np.zeros(slots, np.float32),
        settled=time.astype(np.int64),
    )


def test_pages_are_counted_as_they_are_judged() -> None:
    counts = pages_by_user(SOURCE)
    users = np.concatenate([s.contexts.user for s in situations(SOURCE, 10, 0).chunks])
    assert counts.tolist() == np.bincount(users, minlength=len(counts)).tolist()
    assert counts.sum() > 50
    shown = replace(SOURCE, impressions=logged())
    users = np.concatenate([s.contexts.user for s in situations(shown, 10, 0).chunks])
    assert pages_by_user(shown).tolist() == np.bincount(users, minlength=len(counts)).tolist()
    assert len(users) > 5


def test_everybody_is_judged_where_it_fits_and_drawn_users_where_not() -> None:
    counts = pages_by_user(SOURCE)
    total = int(counts.sum())
    whole, half = draw_users(SOURCE, total, 0), draw_users(SOURCE, total // 2, 0)
    assert whole.users.tolist() == SOURCE.users.tolist()
    assert whole.as_json() == {"pages": total, "of_pages": total, "users": (counts > 0).sum(), "of_users": (counts > 0).sum()}
    assert total // 2 - counts.max() < half.pages <= total // 2
    assert half.pages == counts[half.users].sum()
    assert half.users.sum() == half.judged < half.of_users
    assert (half.of_pages, half.words) == (total, f"{half.pages} of {total} pages, of {half.judged} of {half.of_users} users")
    assert draw_users(SOURCE, total // 2, 0).users.tolist() == half.users.tolist()
    assert draw_users(SOURCE, total // 2, 1).users.tolist() != half.users.tolist()
    judge = judge_of(RUN, reward_of(Right), "choices", 0, total // 2)
    assert sum(len(s) for s in judge.chunks) <= total // 2
    assert half.users[np.concatenate([s.contexts.user for s in judge.chunks])].all()


def test_a_user_with_too_many_pages_is_left_out_and_nobody_else_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pagellm.rewarding import sampling

    counts = np.zeros(SOURCE.log.users, np.int64)
    counts[[3, 4, 5]] = 2, 90, 3
    monkeypatch.setattr(sampling, "pages_by_user", lambda source: counts)
    for seed in range(8):
        assert np.flatnonzero(draw_users(SOURCE, 10, seed).users).tolist() == [3, 5]
    with pytest.raises(DataError, match=r"3 users to be judged has more than 1 pages \(the fewest: 2\).*--pages"):
        draw_users(SOURCE, 1, 0)


def test_scores_do_not_depend_on_how_many_pairs_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = judge_of(RUN, reward_of(Right), "choices", 0)
    whole = judge.trained()
    monkeypatch.setattr(judging, "_AT_ONCE", 50)
    for one, other in zip(whole, judge.trained(), strict=True):
        assert (one.kind, one.user.tolist()) == (other.kind, other.user.tolist())
        for name in ("own", "whole", "probe"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)
