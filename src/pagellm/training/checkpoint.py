"""A fit on disk: weights, optimizer and step in one file, written in one rename. Takes and gives a network and its `FitState`.

Because every step draws its randomness from its own number, no random state needs saving.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pagellm.errors import RunError
from pagellm.models.storage import read_tensors, write_tensors
from pagellm.training.sft import FitState

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a fit stood when it was saved."""

    stage: str
    step: int
    metrics_bytes: int  # length of the metrics file then: what a later crash added is cut off


def save_fit(path: Path, net: nn.Module, state: FitState, mark: Mark) -> None:
    """Replaces the checkpoint. Raises RunError where a weight is not finite; the old one stands then."""
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    tensors |= moments_of(state.optimizer)
    write_tensors(path, tensors, {"stage": mark.stage, "step": str(mark.step), "metrics_bytes": str(mark.metrics_bytes)})


def read_mark(path: Path) -> Mark:
    """Where the saved fit stood."""
    return _mark(path, read_tensors(path)[1])


def load_fit(path: Path, net: nn.Module, state: FitState) -> Mark:
    """Puts the saved weights, moments and step back. Raises RunError where the file does not fit the network."""
    tensors, notes = read_tensors(path)
    mark = _mark(path, notes)
    weights = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
    try:
        net.load_state_dict(weights)
    except RuntimeError as problem:
        raise RunError(f"The checkpoint {path} does not fit this configuration. Start a new run in another folder.") from problem
    put_moments(state.optimizer, tensors)
    state.step = mark.step
    return mark


def trained_by(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """What an optimizer moves, in its order."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's moments, named by the place of what it moves."""
    return {
        f"optimizer.{place}.{name}": value
        for place, parameter in enumerate(trained_by(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def put_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Puts back what `moments_of` gave."""
    for place, parameter in enumerate(trained_by(optimizer)):
        saved = {name: tensors[f"optimizer.{place}.{name}"] for name in _MOMENTS if f"optimizer.{place}.{name}" in tensors}
        if saved:  # the count of steps stays on the CPU, as the optimizer keeps it
            optimizer.state[parameter] = {n: a.to(parameter.device) if a.ndim else a for n, a in saved.items()}


def _mark(path: Path, notes: dict[str, str]) -> Mark:
    try:
        return Mark(notes["stage"], int(notes["step"]), int(notes["metrics_bytes"]))
    except (KeyError, ValueError) as problem:
        raise RunError(
            f"The file {path} is no checkpoint of pagellm ({problem!r}). Start a new run in another folder."
        ) from problem
