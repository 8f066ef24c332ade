"""Off-policy estimators: by hand on small arrays, against Open Bandit Pipeline's frozen answers, and in planted worlds."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from pagellm.evaluation.ope.estimators import (
    cascade_dr,
    combined,
    doubly_robust,
    iips,
    ips,
    logging_alone,
    page_weights,
    prefix_weights,
    pseudo_inverse,
    rips,
    slot_weights,
    sniips,
    snips,
)
from pagellm.evaluation.ope.intervals import empirical_bernstein
from pagellm.evaluation.ope.records import Predicted, free_shares
from pagellm.evaluation.ope.reward_model import FOLDS, PRIOR, fit_reward_model

CASES = json.loads((Path(__file__).parent / "obp_0.5.7.json").read_text(encoding="utf-8"))["cases"]

REWARDS = np.array([[1.0, 0.0], [0.0, 2.0]])
LOGGING = np.array([[0.5, 0.5], [0.25, 0.5]])
GIVEN = np.array([[0.25, 0.5], [0.5, 0.25]])
ALONE = np.array([[0.25, 0.25], [0.5, 0.5]])
REAL = np.ones((2, 2), bool)


def test_weights_by_hand() -> None:
    np.testing.assert_allclose(page_weights(GIVEN, LOGGING), [0.5, 1.0])
    np.testing.assert_allclose(prefix_weights(GIVEN, LOGGING), [[0.5, 0.5], [2.0, 1.0]])
    np.testing.assert_allclose(slot_weights(ALONE, LOGGING), [[0.5, 0.5], [2.0, 1.0]])


def test_estimates_by_hand() -> None:
    page, prefix, slot = np.array([0.5, 1.0]), np.array([[0.5, 0.5], [2.0, 1.0]]), np.array([[0.5, 0.5], [2.0, 1.0]])
    total = REWARDS.sum(1)
    assert ips(total, page).value == pytest.approx((0.5 * 1 + 1.0 * 2) / 2)
    assert snips(total, page).value == pytest.approx((0.5 * 1 + 1.0 * 2) / 1.5)
    assert iips(REWARDS, slot, REAL).value == pytest.approx((0.5 + 2.0) / 2)
    assert sniips(REWARDS, slot, REAL).value == pytest.approx(0.5 / 2.5 + 2.0 / 1.5)
    assert pseudo_inverse(total, slot, np.ones((2, 2))).value == pytest.approx((1 * (1 - 0.5 - 0.5) + 2 * (1 + 1.0 + 0.0)) / 2)
    due = np.array([[1.0, 0.75], [1.0, 1.25]])
    assert pseudo_inverse(total, slot, due).value == pytest.approx((1 * (1 - 0.5 - 0.25) + 2 * (1 + 1.0 - 0.25)) / 2)
    assert rips(REWARDS, prefix).value == pytest.approx((0.5 * 1 + 1.0 * 2) / 2)
    q, expected = np.array([[0.2, 0.4], [0.6, 0.8]]), np.array([[0.1, 0.3], [0.5, 0.7]])
    first = 0.5 * (1 - 0.2) + 0.1 + 0.5 * (0 - 0.4) + 0.5 * 0.3
    second = 2.0 * (0 - 0.6) + 0.5 + 1.0 * (2 - 0.8) + 2.0 * 0.7
    assert cascade_dr(REWARDS, prefix, q, expected).value == pytest.approx((first + second) / 2)
    assert doubly_robust(total, page, q.sum(1), expected.sum(1)).value == pytest.approx(
        (0.4 + 0.5 * (1 - 0.6) + 1.2 + 1.0 * (2 - 1.4)) / 2
    )


def test_single_slots_are_averaged_over_the_rows_that_have_them() -> None:
    real = np.array([[True, False], [True, False], [False, True]])
    rewards, weights = np.array([[1.0, 0], [0, 0], [0, 3.0]]), np.array([[2.0, 1], [2, 1], [1, 0.5]])
    assert iips(rewards, weights, real, whole=False).value == pytest.approx(2 / 2 + 1.5)
    assert sniips(rewards, weights, real, whole=False).value == pytest.approx(2 / 4 + 3.0)
    assert iips(rewards, weights, real).value == pytest.approx((2 + 1.5) / 3)
    assert sniips(rewards, weights, real).value == pytest.approx(2 / 3 * (2 / 4) + 1 / 3 * 3.0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_open_bandit_pipeline(case: dict, request: pytest.FixtureRequest) -> None:
    a = {name: np.array(values) for name, values in case["inputs"].items()}
    real, total = np.ones(a["reward"].shape, bool), a["reward"].sum(1)
    page, prefix = page_weights(a["given"], a["logging"]), prefix_weights(a["given"], a["logging"])
    slot = slot_weights(a["alone"], a["logging"])
    chosen, expected = np.take_along_axis(a["q"], a["action"][..., None], 2)[..., 0], (a["target"] * a["q"]).sum(2)
    ours = {
        "ips": ips(total, page),
        "snips": snips(total, page),
        "iips": iips(a["reward"], slot, real),
        "sniips": sniips(a["reward"], slot, real),
        "rips": rips(a["reward"], prefix),
        "cascade-dr": cascade_dr(a["reward"], prefix, chosen, expected),
        "ipw": ips(a["reward"][:, 0], prefix[:, 0]),
        "snipw": snips(a["reward"][:, 0], prefix[:, 0]),
        "dr": doubly_robust(a["reward"][:, 0], prefix[:, 0], chosen[:, 0], expected[:, 0]),
    }
    theirs = dict(case["values"])
    low = theirs.pop("bernstein_low")
    assert {name: terms.value for name, terms in ours.items()} == pytest.approx(theirs, rel=0, abs=1e-10)
    x = page * total
    assert empirical_bernstein(x, float(x.max())).low == pytest.approx(low, abs=1e-10)


SLOTS, ITEMS = 3, 4
PAGES = np.array(list(itertools.permutations(range(ITEMS), SLOTS)))


def chances(weights: np.ndarray) -> np.ndarray:
    """[page, slot] of all ordered pages: Plackett-Luce given the slots before."""
    out = np.empty(PAGES.shape)
    for p, page in enumerate(PAGES):
        left = weights.copy()
        for s, item in enumerate(page):
            out[p, s] = left[item] / left.sum()
            left[item] = 0
    return out


def marginals(given: np.ndarray) -> np.ndarray:
    """[page, slot] chance of the page's item in its slot over all pages."""
    joint = given.prod(1)
    return np.array([[joint[PAGES[:, s] == item].sum() for s, item in enumerate(page)] for page in PAGES])


LOG, TARGET = chances(np.array([4.0, 3.0, 2.0, 1.0])), chances(np.array([1.0, 2.0, 2.0, 4.0]))
SHARES = (LOG.prod(1) * 1_000_000).round().astype(int)  # so often each page stands in a log without chance


def repeated(values: np.ndarray) -> np.ndarray:
    """One row a logged page, as often as the logging policy would show it."""
    return np.repeat(values, SHARES, axis=0)


def cascade(page: np.ndarray) -> list[float]:
    """Rewards of a page whose slots depend on everything above them."""
    return [0.1 + 0.2 * item - (0.07 * sum(page[:s] > item)) + 0.03 * (page[0] == 2) for s, item in enumerate(page)]


def test_what_reads_downwards_is_exact_in_a_cascade() -> None:
    rewards = np.array([cascade(page) for page in PAGES])
    truth = float((TARGET.prod(1) * rewards.sum(1)).sum())
    prefix, page = repeated(prefix_weights(TARGET, LOG)), repeated(page_weights(TARGET, LOG))
    r = repeated(rewards)
    wrong = np.random.default_rng(0).random((SLOTS, ITEMS))  # whatever a model says of slot and item
    chosen = np.array([[wrong[s, item] for s, item in enumerate(p)] for p in PAGES])
    given = np.array([[sum(c * wrong[s, i] for i, c in next_chances(p[:s])) for s in range(SLOTS)] for p in PAGES])
    alone = np.tile((TARGET.prod(1)[:, None] * chosen).sum(0), (len(PAGES), 1))
    to_go = Predicted(chosen, given, alone).to_go
    assert to_go[0][0] == pytest.approx([chosen[0, s] + alone[0, s + 1 :].sum() for s in range(SLOTS)])
    for estimate in (
        ips(r.sum(1), page),
        snips(r.sum(1), page),
        rips(r, prefix),
        cascade_dr(r, prefix, *map(repeated, to_go)),
        doubly_robust(r.sum(1), page, repeated(chosen.sum(1)), repeated(alone.sum(1))),
    ):
        assert estimate.value == pytest.approx(truth, abs=1e-4)  # shares are rounded to a millionth


def next_chances(before: np.ndarray) -> list[tuple[int, float]]:
    """(item, chance) of the evaluation policy after these items."""
    weights = np.array([1.0, 2.0, 2.0, 4.0])
    left = [i for i in range(ITEMS) if i not in before]
    return [(i, weights[i] / weights[left].sum()) for i in left]


def test_what_reads_slots_alone_is_exact_where_policies_choose_slots_alone() -> None:
    rng = np.random.default_rng(3)
    pages = np.array(list(itertools.product(range(ITEMS), repeat=SLOTS)))
    log, target = rng.dirichlet(np.ones(ITEMS) * 5, (2, SLOTS))
    worth = rng.random((SLOTS, ITEMS))
    slot, at = np.arange(SLOTS), pages
    logging, alone, rewards = log[slot, at], target[slot, at], worth[slot, at]
    share = logging.prod(1) * len(pages)  # a mean over pages with these weights is the expectation
    truth, weights = float((target * worth).sum()), slot_weights(alone, logging)
    real, due = np.ones(pages.shape, bool), np.ones(pages.shape)
    assert iips(rewards * share[:, None], weights, real).value == pytest.approx(truth)
    assert pseudo_inverse(rewards.sum(1) * share, weights, due).value == pytest.approx(truth)
    assert (combined(weights, due) * share).mean() == pytest.approx(1)


def test_items_that_stand_already_are_made_up_for() -> None:
    """A uniform draw without replacement, where a slot's item earns alone: the slot-wise estimate is exact though a logged page leaves no
    item free that stands above, and the pseudo-inverse's weights average what is due."""
    real = np.ones(PAGES.shape, bool)
    worth, slot = np.random.default_rng(4).random((SLOTS, ITEMS)), np.arange(SLOTS)
    alone, free = marginals(TARGET), free_shares(PAGES.astype(np.int32), real, ITEMS)
    assert free[2] == pytest.approx(np.full(ITEMS, 0.5))
    uniform = np.tile(1 / (ITEMS - slot), (len(PAGES), 1))
    both = logging_alone(uniform, free[slot, PAGES])
    assert both == pytest.approx(np.full(PAGES.shape, 1 / ITEMS))
    rewards, weights = worth[slot, PAGES], slot_weights(alone, both)
    assert iips(rewards, weights, real).value == pytest.approx(float((TARGET.prod(1) * rewards.sum(1)).sum()))
    for above in itertools.permutations(range(ITEMS), 2):
        same = (PAGES[:, :2] == above).all(1)
        ratio = {item: alone[PAGES[:, 2] == item][0, 2] / free[2, item] for item in range(ITEMS)}
        assert weights[same, 2].mean() == pytest.approx(sum(r for item, r in ratio.items() if item not in above))


def test_rewards_below_do_not_disturb_an_estimate_of_the_first_slots() -> None:
    rewards = np.array([cascade(page) for page in PAGES])
    truth = float((TARGET.prod(1) * rewards[:, 0]).sum())
    first = rips(repeated(rewards)[:, :1], repeated(prefix_weights(TARGET[:, :1], LOG[:, :1])))
    assert first.value == pytest.approx(truth, abs=1e-4)


def test_reward_model_never_reads_the_user_that_it_predicts() -> None:
    unit = np.arange(50).repeat(2)
    items = np.tile(np.array([[0, 1], [1, 0]], np.int32), (50, 1))
    rewards = np.zeros((100, 2))
    rewards[unit == 7] = 1.0  # one user alone earns anything
    model = fit_reward_model(rewards, items, np.ones((100, 2), bool), unit, 3)
    own = model.fold[unit == 7][0]
    assert np.unique(model.fold).tolist() == list(range(FOLDS))
    assert model.rate[own].tolist() == [0.0, 0.0]
    assert model.factor[own].tolist() == [1.0, 1.0, 1.0]
    other = (own + 1) % FOLDS
    seen = (model.fold != other).sum()
    assert model.rate[other] == pytest.approx([2 / seen, 2 / seen])
    assert model.factor[other] == pytest.approx([(PRIOR + 2) / (PRIOR + 2), (PRIOR + 2) / (PRIOR + 2), 1.0])
