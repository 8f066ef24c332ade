"""Shows a running fit: bars with an estimate on a terminal, one JSON line a second otherwise. Takes steps, knows no stage."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagellm.training.ppo import Stats
    from pagellm.training.sft import Step

TITLES = {
    "lm": "language model",
    "head": "evidence head",
    "refresh": "language model, up to date",
    "reward": "page and item reward",
    "ppo": "pages (PPO)",
    "renewed head": "evidence head, later",
    "renewed refresh": "language model, up to date again",
}


def show(steps: Iterable[Step | Stats]) -> int:
    """Consumes the steps while showing them on standard error; returns how many there were."""
    return _bars(steps) if sys.stderr.isatty() else _lines(steps)


def _bars(steps: Iterable[Step | Stats]) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
    count, tasks = 0, {}
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        for step in steps:
            count += 1
            if step.stage not in tasks:
                tasks[step.stage] = progress.add_task(TITLES.get(step.stage, step.stage), total=step.steps, figures="")
            said = " ".join(f"{name} {value:.3f}" for name, value in step.figures.items())
            progress.update(tasks[step.stage], completed=step.step, figures=said)
    return count


def _lines(steps: Iterable[Step | Stats]) -> int:
    count, said, begun, stage = 0, 0.0, 0.0, ""
    for step in steps:
        count += 1
        now = time.monotonic()
        if step.stage != stage:
            stage, begun, first = step.stage, now, step.step
        if now - said >= 1 or step.step == step.steps:
            done = max(step.step - first, 1)
            eta = (now - begun) / done * (step.steps - step.step)
            line = {
                "stage": step.stage,
                "step": step.step,
                "steps": step.steps,
                **{name: round(value, 4) for name, value in step.figures.items()},
                "eta_s": round(eta, 1),
            }
            print(json.dumps(line), file=sys.stderr, flush=True)
            said = now
    return count
