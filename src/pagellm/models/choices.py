"""One choice among candidates under a mask: drawn or greedy, with its exact log-probability. Tensors in, tensors out; knows no page."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

EMPTY = -1
"""A choice that leaves the slot empty."""


def choose(
    logits: Float[Tensor, "*page candidate"], allowed: Bool[Tensor, "*page candidate"], temperature: float, draw: Tensor | None
) -> tuple[Int[Tensor, "*page"], Float[Tensor, "*page"]]:
    """One candidate a page with its log-propensity; EMPTY and 0 where nothing is allowed.

    Without draws the largest logit, the first of equals. With draws in [0, 1) the softmax at `temperature`, by inverse cumulative sums:
    ten times faster than a multinomial, and no draw can reach a candidate of probability zero.
    """
    if draw is None or temperature <= 0:
        pick = torch.where(allowed, logits, -torch.inf).argmax(-1)
        some = allowed.gather(-1, pick[..., None]).squeeze(-1)
        return torch.where(some, pick, EMPTY), torch.zeros(pick.shape, dtype=torch.float64)
    some = allowed.any(-1)
    warmed = torch.where(allowed, logits.double() / temperature, -torch.inf)
    warmed -= torch.where(some, warmed.amax(-1), 0.0)[..., None]
    total = warmed.exp().cumsum(-1)
    pick = torch.searchsorted(total, (draw.double() * total[..., -1])[..., None], right=True).squeeze(-1)
    if int(pick.max()) == total.shape[-1]:  # rounding may carry a draw just below 1 past the end
        pick = torch.minimum(pick, total.shape[-1] - 1 - allowed.flip(-1).int().argmax(-1))
    chance = warmed.gather(-1, pick[..., None]).squeeze(-1) - total[..., -1].log()
    return torch.where(some, pick, EMPTY), torch.where(some, chance, 0.0)


def logprob_of(
    logits: Float[Tensor, "*page candidate"], allowed: Bool[Tensor, "*page candidate"], pick: Int[Tensor, "*page"]
) -> Float[Tensor, "*page"]:
    """Log-probability of the picks under the softmax over the allowed candidates, -inf for a forbidden one.

    An empty slot has log-probability 0 where nothing was allowed, else -inf.
    """
    masked = logits.double().masked_fill(~allowed, -torch.inf)
    some = allowed.any(-1)
    chance = masked.gather(-1, pick.clamp_min(0)[..., None]).squeeze(-1) - masked.logsumexp(-1)
    chance = torch.where(some, chance, -torch.inf)
    empty = torch.where(some, -torch.inf, 0.0).double()
    return torch.where(pick >= 0, chance, empty)


def row_values(
    logits: Float[Tensor, "context page candidate"], fits: Bool[Tensor, "context page layout_row candidate"]
) -> Float[Tensor, "context page layout_row"]:
    """What each row is worth: the sum of the exponentiated logits of what it may hold, as the chance that the next item comes from it."""
    values = logits[:, :, None].masked_fill(~fits, -torch.inf).logsumexp(-1)
    return values.clamp_min(-1e30)  # a row that nothing fits is still a row
