"""A learner on disk: trained weights, moments, controllers, statistics and the best policy so far, in one file, in one rename.

Because every iteration draws its randomness from its own number, no random state needs saving.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from pagellm.config import PPOConfig
from pagellm.errors import RunError
from pagellm.models.multi_grained import Whitening
from pagellm.models.storage import read_tensors, write_tensors
from pagellm.training.canary import Canary, Sighting
from pagellm.training.checkpoint import moments_of, put_moments
from pagellm.training.learner import Learner
from pagellm.training.watch import Watch

CHECKPOINT = "ppo-checkpoint.safetensors"


@dataclass
class Progress:
    """All that changes while a policy learns."""

    learner: Learner
    whitenings: tuple[Whitening, Whitening]
    canary: Canary
    watch: Watch
    best: dict[str, torch.Tensor] = field(default_factory=dict)  # trained weights of the best sighting
    metrics_bytes: int = 0


def trained_weights(learner: Learner) -> dict[str, torch.Tensor]:
    """Copies of the policy's trained weights, by name."""
    return {name: p.detach().clone() for name, p in learner.net.named_parameters() if p.requires_grad}


def save_progress(path: Path, progress: Progress) -> None:
    """Replaces the checkpoint. Raises RunError where a weight is not finite; the old one stands then."""
    learner = progress.learner
    tensors = {f"net.{name}": value for name, value in trained_weights(learner).items()}
    tensors |= {f"value.{name}": value for name, value in learner.value.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in progress.best.items()}
    tensors |= moments_of(learner.optimizer) | {"canary.first": torch.from_numpy(progress.canary.first)}
    notes = {
        "step": learner.step,
        "kl_coef": learner.kl_coef,
        "bad": learner.bad,
        "whitenings": [asdict(whitening) for whitening in progress.whitenings],
        "unit": progress.canary.unit,
        "curve": [asdict(sighting) for sighting in progress.watch.curve],
        "best": progress.watch.best,
        "skipped": progress.watch.skipped,
        "stopped": progress.watch.stopped,
        "metrics_bytes": progress.metrics_bytes,
    }
    write_tensors(path, tensors, {"progress": json.dumps(notes)})  # JSON writes a float so that it is read back to the bit


def load_progress(path: Path, progress: Progress, config: PPOConfig) -> None:
    """Puts everything back. Raises RunError where the file does not fit."""
    tensors, texts = read_tensors(path)
    learner = progress.learner
    try:
        notes = json.loads(texts["progress"])
        known = dict(learner.net.named_parameters())
        with torch.no_grad():
            for name, value in _part(tensors, "net.").items():
                known[name].copy_(value)
        learner.value.load_state_dict(_part(tensors, "value."))
        put_moments(learner.optimizer, tensors)
        learner.step, learner.kl_coef, learner.bad = int(notes["step"]), float(notes["kl_coef"]), int(notes["bad"])
        for whitening, saved in zip(progress.whitenings, notes["whitenings"], strict=True):
            for name, value in saved.items():
                setattr(whitening, name, float(value))
        progress.canary.unit, progress.canary.first = float(notes["unit"]), tensors["canary.first"].numpy()
        curve = [Sighting(**sighting) for sighting in notes["curve"]]
        progress.watch = Watch(config, curve, int(notes["best"]), int(notes["skipped"]), str(notes["stopped"]))
        progress.best, progress.metrics_bytes = _part(tensors, "best."), int(notes["metrics_bytes"])
    except (KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise RunError(
            f"The checkpoint {path} does not fit this run ({problem!r}). Remove it to begin the ppo stage again, or start a new run."
        ) from problem


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
