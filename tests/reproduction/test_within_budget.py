"""An arm is the last of its policies within the budget of distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from pagellm.reproduction.ablation import within_budget


@dataclass(frozen=True)
class Found:
    kl: float


@dataclass(frozen=True)
class NoDistance:
    loss: float


class Weight(nn.Module):
    """One trained number, which is what a step has made of it, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Parameter(torch.zeros(()), requires_grad=False)


def learned(net: Weight, distances: list[float]) -> Iterator[Found]:
    """Step i writes pages at the weight i, finds their distance, and moves the weight to i + 1."""
    for at, kl in enumerate(distances):
        net.trained.data.fill_(at + 1.0)
        yield Found(kl)


@pytest.mark.parametrize(
    ("distances", "weight", "steps"),
    [
        ([0.0, 2.0, 5.0], 3.0, 3),  # never too far: what the last step made
        ([0.0, 2.0, 7.0], 1.0, 2),  # pages at weight 2 were too far, those at 1 were not
        ([0.0, 7.0, 9.0, 8.0], 0.0, 1),  # the first update went too far: the start
        ([0.0, 7.0, 5.0, 9.0], 2.0, 3),  # it came back in between
        ([0.0, 6.0], 2.0, 2),  # the budget itself is within
    ],
)
def test_the_last_policy_within_the_budget_is_taken(distances: list[float], weight: float, steps: int) -> None:
    net = Weight()
    done = within_budget(learned(net, distances), net, 6.0)  # type: ignore[arg-type]
    assert net.trained.item() == weight
    assert [step.kl for step in done] == distances[:steps]


def test_what_has_no_distance_is_left_as_it_is_learned() -> None:
    net = Weight()

    def steps() -> Iterator[NoDistance]:
        for at in range(3):
            net.trained.data.fill_(at + 1.0)
            yield NoDistance(0.1)

    assert len(within_budget(steps(), net, 6.0)) == 3  # type: ignore[arg-type]
    assert net.trained.item() == 3.0
