"""Losses and advantages by hand on two pages of three slots, and their laws."""

from __future__ import annotations

import math

import pytest
import torch

from pagellm.training.advantages import gae, group_relative, leave_one_out, penalized, rewards_to_go, whiten
from pagellm.training.losses import clipped_policy_loss, clipped_value_loss, dpo_loss, entropy_of, exact_kl

approx = pytest.approx

REAL = torch.tensor([[True, True, True], [True, True, False]])


def test_the_clip_holds_back_only_what_would_pay_too_much() -> None:
    old = torch.zeros(2, 3)
    ratio = torch.tensor([[1.0, 1.5, 0.5], [1.5, 0.5, 9.0]])
    advantages = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0]])
    loss, held = clipped_policy_loss(ratio.log(), old, advantages, REAL, 0.2)
    # 1, clipped to 1.2, .5 stays; a bad choice made likelier counts in full (-1.5), one made less likely is clipped at .8
    assert float(loss) == approx(-(1.0 + 1.2 + 0.5 - 1.5 - 0.8) / 5)
    assert float(held) == approx(2 / 5)


def test_at_the_old_policy_the_gradient_is_that_of_reinforce() -> None:
    logprobs = torch.randn(2, 3, requires_grad=True)
    advantages = torch.randn(2, 3)
    loss, _ = clipped_policy_loss(logprobs, logprobs.detach(), advantages, REAL, 0.2)
    loss.backward()
    assert torch.allclose(logprobs.grad, -advantages * REAL / 5)


def test_values_move_no_farther_than_the_clip_pays_for() -> None:
    values, old, returns = torch.tensor([[1.0, 0.1]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.1]])
    loss = clipped_value_loss(values, old, returns, torch.ones(1, 2, dtype=torch.bool), 0.2)
    assert float(loss) == approx(0.5 * ((0.2 - 2.0) ** 2 + 0.0) / 2)  # the first counts as if it stood at .2


def test_gae_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.4, 0.2], [0.0, 1.0, 0.0]])
    advantages, returns = gae(rewards, values, 0.9, 0.5)
    a = [0.9 * 0.4 - 0.5, 0.9 * 0.2 - 0.4, 1 - 0.2]
    by_hand = [a[0] + 0.45 * (a[1] + 0.45 * a[2]), a[1] + 0.45 * a[2], a[2]]
    assert advantages[0].tolist() == approx(by_hand)
    assert torch.allclose(returns, advantages + values)


def test_gae_has_its_two_ends() -> None:
    rewards, values = torch.randn(4, 3), torch.randn(4, 3)
    monte_carlo, returns = gae(rewards, values, 1.0, 1.0)
    assert torch.allclose(returns, rewards_to_go(rewards), atol=1e-6)
    assert torch.allclose(monte_carlo, rewards_to_go(rewards) - values, atol=1e-6)
    one_step, _ = gae(rewards, values, 1.0, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros(4, 1)], 1)
    assert torch.allclose(one_step, rewards + following - values)


def test_baselines_of_groups() -> None:
    returns = torch.tensor([[[3.0], [1.0], [2.0]]])
    assert leave_one_out(returns).flatten().tolist() == approx([3 - 1.5, 1 - 2.5, 2 - 2.0])
    deviation = math.sqrt(2 / 3)
    assert group_relative(returns).flatten().tolist() == approx([1 / deviation, -1 / deviation, 0.0], abs=1e-5)
    assert torch.equal(leave_one_out(returns[:, :1]), returns[:, :1])
    assert group_relative(torch.ones(1, 3, 1)).abs().max() == 0


def test_penalty_and_whitening() -> None:
    penalty = penalized(torch.ones(1, 2), torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -2.0]]), 0.1)
    assert penalty.tolist() == [[approx(0.9), 1.0]]
    white = whiten(torch.tensor([[1.0, 3.0, 0.0], [5.0, 7.0, 99.0]]), REAL)
    assert float(white[REAL].mean()) == approx(0, abs=1e-6)
    assert float(white[REAL].std(correction=0)) == approx(1)
    assert float(white[1, 2]) == 0


def test_entropy_and_exact_kl_of_masked_choices() -> None:
    ours = torch.tensor([[0.5, 0.5, 0.0]]).log()
    theirs = torch.tensor([[0.25, 0.75, 0.0]]).log()
    assert float(entropy_of(ours)) == approx(math.log(2))
    assert float(exact_kl(ours, theirs)) == approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert float(exact_kl(ours, ours)) == 0


def test_dpo_by_hand() -> None:
    loss = dpo_loss(
        torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -1.0]), torch.tensor([-1.5, -3.0]), torch.tensor([-1.0, -1.0]),
        torch.tensor([1.0, 3.0]), 0.5,
    )  # fmt: skip
    first, second = 0.5 * (0.5 + 1.0), 0.0
    assert float(loss) == approx((math.log1p(math.exp(-first)) + 3 * math.log1p(math.exp(-second))) / 4)
