"""The evidence head: a small network from a candidate's evidence to an addition to its logit, and its listwise fit.

Takes evidence [context, candidate, feature] and base log-probabilities; knows no items, no text and no language model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pagellm.types import F32


class EvidenceHead(nn.Module):
    """logit = scale · base + MLP(evidence, base), evidence standardized with figures of the training contexts.

    `base` is the language model's log-probability over the pool; it also enters the MLP, so that evidence and model may interact.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features + 1))
        self.register_buffer("deviation", torch.ones(features + 1))
        self.scale = nn.Parameter(torch.ones(()))
        self.layers = nn.Sequential(
            nn.Linear(features + 1, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # an unfitted head leaves the language model's own ranking
        nn.init.zeros_(last.bias)

    def standardize(self, evidence: Float[Tensor, "context candidate feature"], base: Tensor, real: Tensor) -> None:
        """Takes mean and deviation from these candidates; `real` [context, candidate] leaves padding out."""
        rows = torch.cat([evidence, base[..., None]], -1)[real]
        self.mean.copy_(rows.mean(0))
        deviation = rows.std(0, correction=0)
        constant = deviation < 1e-6  # says nothing here, and must not be blown up where it differs later
        self.deviation.copy_(torch.where(constant, 1.0, deviation.clamp_min(1e-3)))

    def forward(
        self, evidence: Float[Tensor, "context candidate feature"], base: Float[Tensor, "context candidate"]
    ) -> Float[Tensor, "context candidate"]:
        """Logits; meaningless where the pool is padding."""
        rows = torch.cat([evidence, base[..., None]], -1)
        moved: Tensor = self.layers((rows - self.mean) / self.deviation)
        return self.scale * base + moved.squeeze(-1)


def listwise_loss(
    logits: Float[Tensor, "context candidate"],
    targets: Float[Tensor, "context candidate"],
    real: Bool[Tensor, "context candidate"],
) -> Float[Tensor, ""]:
    """Mean over contexts of the cross-entropy between the softmax over the pool and the target basket (Cao et al. 2007, top one)."""
    logprobs = F.log_softmax(logits.masked_fill(~real, -torch.inf), -1)
    weight = targets / targets.sum(-1, keepdim=True)
    return -(logprobs.masked_fill(targets == 0, 0.0) * weight).sum(-1).mean()


def fit_listwise(
    head: EvidenceHead,
    evidence: F32,
    base: F32,
    targets: F32,
    real: np.ndarray,
    *,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
) -> Iterator[tuple[int, int, float, float]]:
    """Fits the head on contexts that have a target in their pool; yields (step, steps, loss, lr) after each step.

    Arrays over [context, candidate]; `evidence` has a feature axis more. One-cycle learning rate (Smith and Topin 2018), AdamW.
    The same seed gives the same weights for the same number of threads. Without such a context the head stays as it is.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    useful = np.flatnonzero(targets.sum(1) > 0)
    if not len(useful):
        return
    steps = epochs * max(1, -(-len(useful) // batch))
    head.standardize(*(torch.from_numpy(a[useful[:5_000]]) for a in (evidence, base, real)))
    optimizer = torch.optim.AdamW(head.parameters(), lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(useful)
        for begin in range(0, len(order), batch):
            some = np.sort(order[begin : begin + batch])
            e, b, t, r = (torch.from_numpy(a[some]) for a in (evidence, base, targets, real))
            loss = listwise_loss(head(e, b), t, r)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            yield step, steps, float(loss.detach()), float(schedule.get_last_lr()[0])
            schedule.step()
