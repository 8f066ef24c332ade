"""A matrix of jobs that goes on where it stopped: each job leaves one file, and one that has it is not run again.

    OUT/matrix.json      what all jobs were made with: settings and fingerprints
    OUT/jobs/KEY.safetensors   the arrays of a finished job, with notes

Takes work as callables that return arrays. Knows no method and no metric.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagellm.errors import RunError, UsageError
from pagellm.models.storage import read_json, read_tensors, write_json, write_tensors
from pagellm.types import F64

Arrays = dict[str, F64]
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._+=-]*")


@dataclass(frozen=True)
class Outcome:
    """What a job found."""

    arrays: Arrays
    notes: dict[str, Any]  # JSON-able


@dataclass(frozen=True)
class Job:
    """One piece of work. Its key is a path of plain names, as in `beauty/0/ppo-joint`."""

    key: str
    work: Callable[[], Outcome]


@dataclass(frozen=True)
class Matrix:
    """A folder of finished jobs."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, made_with: dict[str, Any]) -> Matrix:
        """The matrix of this folder. Raises UsageError where it was begun with other settings or data."""
        path, saved = folder / "matrix.json", {}
        if path.exists():
            saved = read_json(path)
            differing = [name for name in made_with if name in saved and saved[name] != made_with[name]]
            if differing:
                raise UsageError(
                    f"The folder {folder} was begun with another {', '.join(differing)}: {_few(saved, differing)}; now "
                    f"{_few(made_with, differing)}. Go on as it was begun, or name another folder with --out."
                )
        elif folder.exists() and any(folder.iterdir()):
            raise UsageError(f"The folder {folder} is not empty and holds no matrix of jobs. Name another with --out.")
        (folder / "jobs").mkdir(parents=True, exist_ok=True)
        if not path.exists() or saved | made_with != saved:  # what stands is left alone: others may work in this folder, too
            write_json(path, saved | made_with)
        return cls(folder)

    def run(self, jobs: Iterable[Job], tell: Callable[[str], None]) -> None:
        """Does what is not done yet, in order."""
        for job in jobs:
            path = self._path(job.key)
            if path.exists():
                continue
            began = time.monotonic()
            found = job.work()
            path.parent.mkdir(parents=True, exist_ok=True)
            notes = {"notes": json.dumps(found.notes), "seconds": f"{time.monotonic() - began:.3f}"}
            write_tensors(path, {name: torch.from_numpy(np.asarray(a, np.float64)) for name, a in found.arrays.items()}, notes)
            tell(f"{job.key}: {notes['seconds']} s")

    def done(self, key: str) -> bool:
        """Whether a job has left its file."""
        return self._path(key).exists()

    def read(self, key: str) -> Outcome:
        """What a finished job found. Raises RunError where it is not done."""
        if not self.done(key):
            raise RunError(
                f"The job {key} of {self.folder} is not done. Run the same command again: it goes on where it stopped."
            )
        tensors, notes = read_tensors(self._path(key))
        told = json.loads(notes["notes"]) | {"seconds": float(notes["seconds"])}
        return Outcome({name: a.numpy() for name, a in tensors.items()}, told)

    def finished(self) -> list[str]:
        """All finished jobs, sorted."""
        root = self.folder / "jobs"
        return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.safetensors"))

    def _path(self, key: str) -> Path:
        assert all(_PLAIN.fullmatch(part) for part in key.split("/")), key
        return self.folder / "jobs" / f"{key}.safetensors"


def plain_name(folder: Path) -> str:
    """The name of a data folder as jobs and files have it: lower case, with a dash for all that is no letter, digit, dot or underscore."""
    return re.sub(r"[^a-z0-9._]+", "-", folder.resolve().name.lower()).strip("-._") or "data"


def plain_names(folders: Sequence[Path]) -> list[str]:
    """The plain names of data folders. Raises UsageError where two have one name."""
    names = [plain_name(folder) for folder in folders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(
            f"Two data folders are named {twice!r}, and the matrix knows them by name. Rename one, or give each its own --out."
        )
    return names


def _few(settings: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} = {settings.get(name)!r}" for name in names)
