"""Trainings that die, or are refused by the disk, at one chosen operation on their run folder. Knows no rule of what must come of it.

    python fail_points.py SHOP SETTING ...

Each line on standard input asks for a training of its own, `{"run": FOLDER, "at": 7, "how": "kill"}`; each line on standard output
says what came of it. Everything is imported once, and each training is a fork. An operation is an `open` for writing, a write system
call, an fsync, a rename, a removal, a cut or a new folder; they are counted from 1 within a training. At the one that is named, `how` says:

    kill    the process dies before it                 full   the disk is full from here on: half of a write arrives, removals work
    torn    the process dies when half of it is done   once   this one is refused, the next ones are not
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

HOWS = ("kill", "torn", "full", "once")
_PLAIN_WRITE, _REMOVALS = os.write, ("unlink", "truncate")


class FailPoints:
    """Counts what is done to one folder, tells it, and acts at one of the operations."""

    def __init__(self, folder: Path, at: int, how: str, told: int) -> None:
        self.folder, self.at, self.how, self._told = folder, at, how, told
        self._count, self._full = 0, False

    def inside(self, path: object) -> bool:
        """Whether a path is the folder or in it."""
        return isinstance(path, str | Path) and Path(path).absolute().is_relative_to(self.folder)

    def reach(self, op: str, path: str | Path, half: Callable[[], object] | None = None, of: Path | None = None) -> None:
        """One operation that is about to happen. `half` does a part of it, `of` holds content that is worth telling."""
        self._count += 1
        digest = hashlib.sha256(of.read_bytes()).hexdigest() if of else ""
        _PLAIN_WRITE(self._told, (json.dumps([op, Path(path).name, digest]) + "\n").encode())
        here = self._count == self.at
        if here and half and self.how != "kill":
            half()
        if here and self.how in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        self._full |= here and self.how == "full"
        if (here and self.how == "once") or (self._full and op not in _REMOVALS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self) -> None:
        """Puts itself before every way to change a file that Python has."""
        points = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                view = memoryview(content).cast("B")
                points.reach("write", str(self.name), partial(super().write, view[: len(view) // 2]))
                return super().write(content)

        plain_open, plain_fsync = builtins.open, os.fsync

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not (set(mode) & set("wax+") and points.inside(file)):
                return plain_open(file, mode, *args, **kwargs)
            assert mode in ("wb", "ab"), f"{file} is opened as {mode!r}, and its writes would not be counted"
            points.reach("open", file)
            return io.BufferedWriter(Raw(file, mode[0]))

        def synced(file: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{file}"))
            if points.inside(path):
                points.reach("fsync", path)
            plain_fsync(file)

        builtins.open = io.open = opened
        os.fsync = synced
        for name in ("replace", "rename", "unlink", "remove", "truncate", "mkdir"):
            setattr(os, name, points._counted(name, getattr(os, name)))

    def _counted(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        op = {"replace": "rename", "remove": "unlink"}.get(name, name)

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            there = op == "mkdir" or Path(path).exists()  # nothing happens to what is not there
            if self.inside(path) and there:
                self.reach(op, args[0] if op == "rename" else path, of=Path(path) if op in ("rename", "unlink") else None)
            return plain(path, *args, **kwargs)

        return call


def train(shop: str, settings: list[str], job: dict[str, Any], told: int, said: int) -> None:
    """One training in this process, which ends with it."""
    from pagellm.cli.main import run

    os.dup2(said, 1)
    os.dup2(said, 2)
    folder = Path(job["run"])
    line = [
        "train",
        shop,
        "--run",
        str(folder),
        "--profile",
        "tiny",
        "--until",
        "ppo",
        *(["--resume"] if folder.exists() else []),
    ]
    FailPoints(folder.absolute(), job.get("at", 0), job.get("how", ""), told).install()
    code = run([*line, *(part for setting in settings for part in ("--set", setting))])
    sys.stderr.flush()
    os._exit(code)


def serve(shop: str, settings: list[str]) -> None:
    """Trainings as they are asked for, one after the other, until standard input ends."""
    import sklearn.feature_extraction.text  # noqa: F401  # all that is heavy, once
    import torch

    import pagellm.cli.main
    import pagellm.data.readers
    import pagellm.training.run_ppo  # noqa: F401

    torch.use_deterministic_algorithms(True)  # imports half of torch

    for line in sys.stdin:
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
            child = os.fork()
            if not child:
                train(shop, settings, json.loads(line), told.fileno(), said.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            told.seek(0)
            said.seek(0)
            answer = {"code": code, "points": [json.loads(row) for row in told], "said": said.read().decode(errors="replace")}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
