"""From rewards of slots to advantages: KL penalty, generalized advantage estimation, baselines of groups. Pure functions on tensors.

Slots are in reading order; `real` marks those in which there was anything to choose. A page ends with its last slot.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Slots = Float[Tensor, "*page slot"]
Mask = Bool[Tensor, "*page slot"]


def penalized(rewards: Slots, logprobs: Slots, reference: Slots, kl_coef: float) -> Slots:
    """Rewards minus kl_coef · log(π / π_ref) of each slot's choice (Ziegler et al. 2019, "Fine-tuning language models from human
    preferences", equation 2)."""
    return rewards - kl_coef * (logprobs - reference)


def gae(rewards: Slots, values: Slots, gamma: float, gae_lambda: float) -> tuple[Slots, Slots]:
    """(advantages, returns): A_t = δ_t + γ λ A_(t+1) with δ_t = r_t + γ V_(t+1) - V_t and V = 0 after the last slot; returns A + V.

    Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation", equation 16.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[..., 0])
    later = torch.zeros_like(following)
    for slot in reversed(range(rewards.shape[-1])):
        delta = rewards[..., slot] + gamma * later - values[..., slot]
        following = delta + gamma * gae_lambda * following
        advantages[..., slot] = following
        later = values[..., slot]
    return advantages, advantages + values


def rewards_to_go(rewards: Slots) -> Slots:
    """Sum of the rewards of a slot and of all after it."""
    return rewards.flip(-1).cumsum(-1).flip(-1)


def leave_one_out(returns: Float[Tensor, "context page slot"]) -> Float[Tensor, "context page slot"]:
    """Returns minus the mean of the context's other pages at the same slot (Kool et al. 2019; RLOO, Ahmadian et al. 2024, equation 7).

    A context with one page keeps its returns.
    """
    pages = returns.shape[1]
    if pages == 1:
        return returns
    return (returns - returns.mean(1, keepdim=True)) * pages / (pages - 1)


def group_relative(returns: Float[Tensor, "context page slot"], eps: float = 1e-6) -> Float[Tensor, "context page slot"]:
    """Returns standardized among the pages of their context at the same slot (Shao et al. 2024, "DeepSeekMath", section 4.1.2)."""
    centered = returns - returns.mean(1, keepdim=True)
    return centered / (returns.std(1, keepdim=True, correction=0) + eps)


def whiten(values: Slots, real: Mask, eps: float = 1e-8) -> Slots:
    """Mean 0 and deviation 1 over the slots that count, 0 elsewhere."""
    count = real.sum().clamp_min(1)
    mean = (values * real).sum() / count
    deviation = (((values - mean) ** 2 * real).sum() / count).sqrt()
    return (values - mean) / (deviation + eps) * real
