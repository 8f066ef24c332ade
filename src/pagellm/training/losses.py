"""Losses of reinforcement learning on pages: one equation, one function, one reference. Tensors in, a scalar out; knows no model.

`real` marks the slots that count: those in which there was anything to choose.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Slots = Float[Tensor, "*page slot"]
Mask = Bool[Tensor, "*page slot"]


def mean_of(values: Slots, real: Mask) -> Float[Tensor, ""]:
    """Mean over the slots that count, 0 without any."""
    return (values * real).sum() / real.sum().clamp_min(1)


def clipped_policy_loss(
    logprobs: Slots, old_logprobs: Slots, advantages: Slots, real: Mask, clip_coef: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(-mean of min(r A, clip(r, 1 - c, 1 + c) A), share of slots that the clip holds back) with r = exp(logprobs - old_logprobs).

    Schulman et al. 2017, "Proximal policy optimization algorithms", equation 7.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    gain = torch.minimum(ratio * advantages, clipped * advantages)
    held = (ratio * advantages > clipped * advantages).float()
    return -mean_of(gain, real), mean_of(held, real).detach()


def clipped_value_loss(values: Slots, old_values: Slots, returns: Slots, real: Mask, clip_coef: float) -> Float[Tensor, ""]:
    """Half the mean of max((v - R)², (clip(v, v_old - c, v_old + c) - R)²).

    The clipping of Schulman's implementation (Engstrom et al. 2020, "Implementation matters in deep policy gradients", section 3).
    """
    near = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
    return 0.5 * mean_of(torch.maximum((values - returns) ** 2, (near - returns) ** 2), real)


def entropy_of(logprobs: Float[Tensor, "*page slot candidate"]) -> Slots:
    """-sum of p log p over the candidates, in nats."""
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isneginf(), 0.0)).sum(-1)


def exact_kl(logprobs: Float[Tensor, "*page slot candidate"], reference: Float[Tensor, "*page slot candidate"]) -> Slots:
    """KL(policy ‖ reference) of each slot's choice in nats, summed over all candidates: no sampling noise."""
    gap = (logprobs - reference).masked_fill(logprobs.isneginf(), 0.0)
    return (logprobs.exp() * gap).sum(-1)


def dpo_loss(
    chosen: Float[Tensor, " pair"],
    rejected: Float[Tensor, " pair"],
    chosen_reference: Float[Tensor, " pair"],
    rejected_reference: Float[Tensor, " pair"],
    weight: Float[Tensor, " pair"],
    beta: float,
) -> Float[Tensor, ""]:
    """-weighted mean of log sigmoid(beta (log π(chosen)/π_ref(chosen) - log π(rejected)/π_ref(rejected))), of whole pages.

    Rafailov et al. 2023, "Direct preference optimization", equation 7.
    """
    margin = beta * ((chosen - chosen_reference) - (rejected - rejected_reference))
    return -(F.logsigmoid(margin) * weight).sum() / weight.sum()
