"""The metrics file of a run: a line a step or iteration, of which a checkpoint knows how long it was.

Takes records; a training that goes on cuts off what was written after its checkpoint. Knows no stage.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pagellm.data.whole_files import refusals, write_bytes
from pagellm.errors import RunError

if TYPE_CHECKING:
    from pagellm.training.ppo import Stats
    from pagellm.training.sft import Step


class MetricsLog:
    """Adds lines to the file. Every method raises RunError where the disk refuses; half a line at the end is cut off by whoever resumes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with refusals(path):
            self._file = open(path, "ab")  # noqa: SIM115  # closed by __exit__

    def write(self, record: Step | Stats) -> None:
        """One more line."""
        with refusals(self._path):
            self._file.write((json.dumps(asdict(record)) + "\n").encode())

    def saved(self) -> int:
        """Bytes so far, every one of them safe on the disk: what a checkpoint may tell of."""
        with refusals(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.saved()
        with contextlib.suppress(OSError) if kind else refusals(self._path):
            self._file.close()


def length_of(path: Path) -> int:
    """Bytes of the file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def drop_stages(path: Path, begin: str) -> None:
    """Takes out the lines of stages whose names begin so, and half a line at the end: what an attempt left that was killed."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and f'"stage": "{begin}'.encode() not in line]
    if kept != lines:
        write_bytes(path, b"".join(kept))


def cut(path: Path, length: int) -> None:
    """Cuts off what is beyond `length` bytes. Raises RunError where the file is shorter, or where the disk refuses."""
    if length_of(path) < length:
        raise RunError(
            f"The file {path} holds {length_of(path):,} bytes, and {length:,} were there when the training was last saved. Put the whole "
            "file back, or start a new run in another folder."
        )
    if path.exists():
        with refusals(path):
            os.truncate(path, length)
