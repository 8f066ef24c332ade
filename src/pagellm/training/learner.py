"""What reinforcement learning changes, and one guarded step of it: weights, value head, optimizer, the price of distance.

Takes networks and a loss, moves weights; a step that is not finite is left out and counted. Knows no pages and no rewards.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pagellm.config import PPOConfig
from pagellm.errors import TrainingError
from pagellm.models.device import device_of
from pagellm.models.policy import PolicyNet
from pagellm.training.checkpoint import trained_by

_PARTS = {
    "repetition": ("page_evidence.",),
    "evidence": ("page_evidence.", "evidence."),
    "page": ("page_evidence.", "page_head.", "rows."),
    "all": ("",),
}
_BESIDE = ("page_evidence.", "evidence.")  # add to logits without reading or changing a hidden vector
_HEADS = ("page_evidence.", "evidence.", "page_head.", "rows.")  # may move faster than a language model
_MOST_SKIPPED = 3  # steps in a row that may be skipped for values that are not finite


class NotFiniteError(TrainingError):
    """Updates that are not finite, several in a row."""


class ValueHead(nn.Module):
    """Expected reward to go, read from the vectors that slots are chosen from. Starts at 0."""

    def __init__(self, dims: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(dims), nn.Linear(dims, hidden), nn.GELU(), nn.Linear(hidden, 1))
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, hidden: Float[Tensor, "context page slot dim"]) -> Float[Tensor, "context page slot"]:
        """Shape [context, page, slot]."""
        out: Tensor = self.layers(hidden)
        return out.squeeze(-1)


@dataclass
class Learner:
    """All that learning changes, and the reference that it stays near to."""

    net: PolicyNet
    reference: PolicyNet  # frozen
    value: ValueHead
    optimizer: torch.optim.AdamW
    kl_coef: float
    step: int = 0  # iterations done
    bad: int = 0  # updates in a row that were skipped

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in the optimizer's order."""
        return trained_by(self.optimizer)

    @property
    def rests(self) -> bool:
        """Whether the language model's hidden vectors, of contexts and of pages, stay as they are."""
        return not any(p.requires_grad for name, p in self.net.named_parameters() if not name.startswith(_BESIDE))

    @classmethod
    def start(cls, net: PolicyNet, reference: PolicyNet, config: PPOConfig, seed: int) -> Learner:
        """A fresh learner: what `config.learn` names is trained, all else is frozen.

        Raises TrainingError for a reference over other items.
        """
        items, others = (len(n.bias) for n in (net, reference))
        if items != others:
            raise TrainingError(
                f"The policy writes pages of {items:,} items and its reference of {others:,}. Take both from runs on one catalog."
            )
        torch.manual_seed(seed)
        value = ValueHead(net.dims).to(device_of(net))
        reference = copy.deepcopy(reference).eval().requires_grad_(False)
        heads: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(_PARTS[config.learn]))
            if parameter.requires_grad:
                (heads if name.startswith(_HEADS) else rest).append(parameter)
        groups = [{"params": [*heads, *value.parameters()], "lr": config.lr}]
        if rest:
            groups.append({"params": rest, "lr": config.context_lr})
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99), foreach=False)
        return cls(net, reference, value, optimizer, config.kl_coef)


def set_rates(learner: Learner, config: PPOConfig) -> None:
    """Learning rates of this iteration: up to full in `warmup` iterations, and along a straight line down to a tenth over all of them.

    An optimizer's first steps are as long as its rate allows, whatever the gradient, and late pages are to move the policy less than early
    ones.
    """
    left = min(1.0, (learner.step + 1) / max(config.warmup, 1)) * (1 - 0.9 * learner.step / config.iterations)
    for group, rate in zip(learner.optimizer.param_groups, (config.lr, config.context_lr), strict=False):
        group["lr"] = rate * left


@dataclass
class Update:
    """Sums over the updates of one iteration."""

    count: int = 0
    skipped: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Counts one update."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str) -> float:
        """Over the updates; 0 without any."""
        return self.sums.get(name, 0.0) / max(self.count, 1)


def descend(learner: Learner, loss: Tensor, config: PPOConfig, update: Update) -> float | None:
    """One step down the loss. Returns the gradient's norm before clipping; None for a step that is not finite, left out and counted.

    Raises NotFiniteError at the third of those in a row.
    """
    learner.optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters, config.clip)
    if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
        learner.bad += 1
        update.skipped += 1
        if learner.bad >= _MOST_SKIPPED:
            raise NotFiniteError(
                f"{_MOST_SKIPPED} updates in a row were not finite, at iteration {learner.step + 1}; no weight was changed by them. "
                "Look at the rewards for values that are not finite, or train with a smaller ppo.lr."
            )
        return None
    learner.optimizer.step()
    learner.bad = 0
    return float(norm)
