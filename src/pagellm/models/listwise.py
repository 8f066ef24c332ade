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

from pagellm.models.device import tensor_for
from pagellm.types import F32

BINS = 8
"""Bins of an input of the evidence head at most, with equally many candidates each."""

CONTEXTS_A_BIN = 1_250
"""A head that learns from fewer contexts has no bins, one that learns from twice as many has two: a hundred contexts overfit any."""

_CONSTANT = 1e-6  # widths and deviations below are none
_QUANTILE_ROWS = 200_000  # candidates that quantiles are taken from


class EvidenceHead(nn.Module):
    """logit = scale · base + MLP(evidence, base), each input standardized and, where contexts suffice, as its way through bins.

    `base` is the language model's log-probability over the pool; it also enters the MLP, so that evidence and model may interact. Bins lie
    between quantiles of the candidates: the piecewise linear encoding of Gorishniy, Rubachev and Babenko (2022, equation 1). Counts and
    cosines crowd near zero, where a standardized input moves too little to be bent.
    """

    mean: Tensor
    deviation: Tensor
    edges: Tensor  # [bin + 1, feature + 1], never falling along bins; a bin between equal edges is none

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        inputs = features + 1
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.register_buffer("edges", torch.zeros(BINS + 1, inputs))
        self.scale = nn.Parameter(torch.ones(()))
        self.inner = nn.Linear(inputs, hidden)
        self.bends = nn.Linear(BINS * inputs, hidden, bias=False)
        self.outer = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))
        last = self.outer[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(self.bends.weight)  # bins bend what is first read as it is
        nn.init.zeros_(last.weight)  # an unfitted head leaves the language model's own ranking
        nn.init.zeros_(last.bias)

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything."""
        return bool(self.outer[-1].weight.any())  # type: ignore[operator]

    @property
    def binned(self) -> bool:
        """Whether any input has a bin of some width."""
        return bool((self.edges.diff(dim=0) > _CONSTANT).any())

    def standardize(self, evidence: Float[Tensor, "context candidate feature"], base: Tensor, real: Tensor, bins: int) -> None:
        """Takes mean, deviation and quantiles from these candidates; `real` [context, candidate] leaves padding out, `bins` <= BINS."""
        rows = torch.cat([evidence, base[..., None]], -1)[real]
        self.mean.copy_(rows.mean(0))
        deviation = rows.std(0, correction=0)
        constant = deviation < _CONSTANT  # says nothing here, and must not be blown up where it differs later
        self.deviation.copy_(torch.where(constant, 1.0, deviation.clamp_min(1e-3)))
        drawn = rows[:: -(-len(rows) // _QUANTILE_ROWS)]
        self.edges.copy_(torch.quantile(drawn, torch.linspace(0, 1, bins + 1)[torch.arange(BINS + 1).clamp_max(bins)], dim=0))

    def forward(
        self, evidence: Float[Tensor, "context candidate feature"], base: Float[Tensor, "context candidate"]
    ) -> Float[Tensor, "context candidate"]:
        """Logits; meaningless where the pool is padding."""
        rows = torch.cat([evidence, base[..., None]], -1)
        read = self.inner((rows - self.mean) / self.deviation)
        if self.binned:
            read = read + self.bends(self.encoded(rows).flatten(-2))
        moved: Tensor = self.outer(read)
        return self.scale * base + moved.squeeze(-1)

    def encoded(self, rows: Float[Tensor, "... input"]) -> Float[Tensor, "... bin input"]:
        """How far each input is through each bin, from -1/2 before the bin to 1/2 behind it; 0 for a bin of no width."""
        low, width = self.edges[:-1], self.edges.diff(dim=0)
        wide = width > _CONSTANT
        through = (rows[..., None, :] - low) / torch.where(wide, width, 1.0)
        return (through.clamp(0, 1) - 0.5) * wide


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

    Arrays over [context, candidate]; `evidence` has a feature axis more. One-cycle learning rate (Smith and Topin 2018), AdamW. A head that
    was fitted before goes on: its inputs stay standardized and binned as they were, so that it begins as what it is. The same seed
    gives the same weights for the same number of threads. Without such a context the head stays as it is.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    useful = np.flatnonzero(targets.sum(1) > 0)
    if not len(useful):
        return
    steps = epochs * max(1, -(-len(useful) // batch))
    if not head.fitted:
        first = [torch.from_numpy(a[useful[:5_000]]) for a in (evidence, base, real)]
        head.standardize(first[0], first[1], first[2], min(len(useful) // CONTEXTS_A_BIN, BINS))
    optimizer = torch.optim.AdamW(head.parameters(), lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    step = 0
    for _ in range(epochs):
        order = rng.permutation(useful)
        for begin in range(0, len(order), batch):
            some = np.sort(order[begin : begin + batch])
            e, b, t, r = (tensor_for(head, a[some]) for a in (evidence, base, targets, real))
            loss = listwise_loss(head(e, b), t, r)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            yield step, steps, float(loss.detach()), float(schedule.get_last_lr()[0])
            schedule.step()
