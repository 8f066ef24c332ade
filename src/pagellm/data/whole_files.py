"""Files that are whole or not there: written aside, synced, renamed. Takes bytes, or a file that lies aside; knows nothing of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pagellm.errors import RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file in one step: a crash leaves the old content or the new, never a part of either.

    Raises RunError where the disk refuses (full, read-only, broken).
    """
    aside = aside_of(path)
    with refusals(path):
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _rename(aside, path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def put_in_place(aside: Path, path: Path) -> None:
    """Makes a file that was written aside the file itself, in one step and for good. Raises RunError where the disk refuses."""
    with refusals(path):
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        _rename(aside, path)


def aside_of(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(f".{path.name}.part")


def remove(path: Path) -> None:
    """Removes a file where there is one. Raises RunError where the disk refuses."""
    with refusals(path):
        path.unlink(missing_ok=True)


def remove_asides(folder: Path) -> None:
    """Removes what a process that died has left half written. Raises RunError where the disk refuses."""
    for path in folder.glob(".*.part"):
        remove(path)


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Tells what the disk refuses, of which file, and what to do, as RunError."""
    try:
        yield
    except OSError as problem:
        raise RunError(
            f"The file {path} cannot be written ({problem.strerror or problem}). What was there is whole, old or new. Make room or give "
            "write access, then give the same command again, a training with --resume."
        ) from problem


def _rename(aside: Path, path: Path) -> None:
    os.replace(aside, path)
    opened = os.open(path.parent, os.O_RDONLY)  # a rename lasts once its folder is synced
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
