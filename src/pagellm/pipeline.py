"""The front of training: what a command asks for, without loading what it takes.

    read log → split → item vectors and evidence → policy (language model, evidence head) → preference pairs → page and item reward
    → reinforcement learning → policy fitted on to today → pages

`training.stages` is the table of contents of that path; the command line only shows what it yields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pagellm.config import RunConfig, resolve

if TYPE_CHECKING:
    from pagellm.training.ppo import Stats
    from pagellm.training.sft import Step

Tell = Callable[[str], None]
"""Takes one line for people to read while something runs."""


def stage_config(until: str, profile: str, settings: Sequence[str], seed: int) -> RunConfig:
    """The configuration of a training that goes until a stage: beyond sft the policy stops earlier, so that later feedback is left."""
    config = resolve(profile, settings, seed=seed)
    if until == "sft" or config.split.reward_at:
        return config
    return resolve(profile, [*settings, f"split.reward_at={config.split.valid_at * 7 / 8:g}"], seed=seed)


def train_run(
    data: Path, folder: Path, config: RunConfig, resume: bool = False, tell: Tell = print, until: str = "sft"
) -> Iterator[Step | Stats]:
    """Trains a policy on a data folder into a run folder. Yields a `Step` a gradient step, `Stats` an iteration of ppo; ends with a
    finished run. See `training.stages.Training.run` for what it raises."""
    from pagellm.training.stages import Training

    yield from Training(data, folder, config, until, resume, tell).run()


def finished(folder: Path) -> bool:
    """Whether the folder holds a run that was trained to its end."""
    from pagellm.models.storage import MANIFEST

    return (folder / MANIFEST).exists()
