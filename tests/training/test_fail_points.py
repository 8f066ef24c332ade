"""Every write, sync, rename and removal of a training, once: dying there or being refused changes no bit of what is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from models.small_shop import small_log
from pagellm.models.run import METRICS
from pagellm.training.cost import COST
from tiny_run import write_shop

SETTINGS = (
    *("threads=1", "sft.checkpoint_s=0", "sft.epochs=1", "sft.batch=40", "sft.min_steps=0", "sft.head_min_steps=2"),
    *("sft.head_epochs=1", "model.dims=32", "split.reward_at=0.6", "split.valid_at=0.75", "split.held_out=0.5", "pairs.slots=4"),
    *("reward.min_steps=3", "ppo.iterations=2", "ppo.contexts=8", "ppo.group=4", "ppo.candidates=20", "ppo.canary_every=1"),
)
"""Two or three steps a stage, with a checkpoint after each."""

CHECKPOINT, RUN = "ppo-checkpoint.safetensors", "run"

Point = tuple[str, str, str]  # operation, file, SHA-256 of what is renamed or removed


@dataclass(frozen=True)
class Told:
    """What came of one training."""

    code: int
    points: tuple[Point, ...]
    said: str


class Trainings:
    """Trainings in processes of their own."""

    def __init__(self, shop: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fail_points.py")), str(shop), *SETTINGS]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(self, folder: Path, at: int = 0, how: str = "") -> Told:
        """A training into a folder; goes on with what is there."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps({"run": str(folder), "at": at, "how": how}) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return Told(answer["code"], tuple((op, name, digest) for op, name, digest in answer["points"]), answer["said"])

    def close(self) -> None:
        """Ends them."""
        self._server.communicate()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    started = Trainings(write_shop(tmp_path_factory.mktemp("fail") / "shop", log=small_log(80)))
    yield started
    started.close()


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every file that a run folder shows or hides, but for what it took."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run.iterdir() if path.name != COST}


def last_learner(points: tuple[Point, ...]) -> list[str]:
    """What the learner of the end was: weights, moments, controllers, statistics, as the checkpoint that is removed then holds them."""
    return [digest for op, name, digest in points if (op, name) == ("unlink", CHECKPOINT)]


@dataclass(frozen=True)
class Unbroken:
    """A training that was left alone."""

    points: tuple[Point, ...]
    files: dict[str, str]  # all of them, with their digests
    versions: set[tuple[str, str]]  # (name, digest) of every file that was ever put in its place


@pytest.fixture(scope="module")
def unbroken(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    run = tmp_path_factory.mktemp("unbroken") / RUN
    told = trainings.run(run)
    assert told.code == 0, told.said
    return Unbroken(told.points, digests(run), {(name, digest) for op, name, digest in told.points if op == "rename"})


def check(trainings: Trainings, unbroken: Unbroken, folder: Path, at: int, how: str, again: int = 0) -> Told:
    """Breaks a training at one operation, perhaps its resumption at another, lets it end and compares everything."""
    run = folder / RUN
    folder.mkdir()
    broken = [trainings.run(run, at, how)] + ([trainings.run(run, again, how)] if again else [])
    where = f"{how} at {at}{f', then {again}' if again else ''}: {broken[-1].points[-1]}"
    for one in broken:
        if how in ("kill", "torn"):
            assert one.code == -signal.SIGKILL, where
        else:
            assert one.code == 1, f"{where}: {one.said}"
            error = one.said[one.said.rindex("error: ") :]
            assert "No space left on device" in error, f"{where}: {error}"
            assert str(run) in error, f"{where}: {error}"
            assert "--resume" in error, f"{where}: {error}"
    shown = {name: digest for name, digest in digests(run).items() if not name.startswith(".")} if run.exists() else {}
    half = {name for name, digest in shown.items() if (name, digest) not in unbroken.versions} - {METRICS, "manifest.json"}
    assert not half, f"{where}: {half} are there and were never whole"
    resumed = trainings.run(run)
    assert resumed.code == 0, f"{where}: {resumed.said}"
    assert digests(run) == unbroken.files, where
    learner = last_learner(resumed.points) or last_learner(broken[-1].points)
    assert learner == last_learner(unbroken.points), where
    shutil.rmtree(folder)
    return resumed


def places(unbroken: Unbroken, how: str) -> list[int]:
    """Operations that can break in this way, counted from 1. Half a rename there is not."""
    return [n + 1 for n, (op, _, _) in enumerate(unbroken.points) if how != "torn" or op == "write"]


def test_every_file_of_a_run_is_synced_renamed_and_its_folder_synced(unbroken: Unbroken) -> None:
    assert last_learner(unbroken.points)
    for name in unbroken.files.keys() - {METRICS}:
        at = next(n for n, point in enumerate(unbroken.points) if point[:2] == ("rename", name))
        before = [point[:2] for point in unbroken.points[:at]]
        after = unbroken.points[at + 1 : at + 2]
        assert before[-1] == ("fsync", f".{name}.part"), name
        assert ("open", f".{name}.part") in before, name
        assert after == (("fsync", RUN, ""),), name
    for n, (op, name, _) in enumerate(unbroken.points):
        if op == "rename" and "checkpoint" in name:  # it tells how long the metrics are, so those are safe first
            last = [op for op, name, _ in unbroken.points[:n] if name == METRICS and op in ("write", "fsync")][-1]
            assert last == "fsync", "a checkpoint knows of metrics that a power cut may take"


def place(points: tuple[Point, ...], op: str, name: str) -> int:
    """Which operation, counted from 1, does this first."""
    return next(n + 1 for n, point in enumerate(points) if point[:2] == (op, name))


@pytest.mark.parametrize(("how", "some"), [("kill", 2), ("torn", 1), ("full", 2)])
def test_some_fail_points_change_no_bit(trainings: Trainings, unbroken: Unbroken, tmp_path: Path, how: str, some: int) -> None:
    for at in np.random.default_rng(5).choice(places(unbroken, how), some, replace=False):
        check(trainings, unbroken, tmp_path / f"{how}-{at}", int(at), how)


@pytest.mark.parametrize("name", ["card.json", "policy.safetensors"])
def test_a_death_before_the_run_or_its_policy_is_there(
    trainings: Trainings, unbroken: Unbroken, tmp_path: Path, name: str
) -> None:
    """Before there is anything to go on with, and when all stages are done and only their policy is not."""
    check(trainings, unbroken, tmp_path / "death", place(unbroken.points, "rename", name), "kill")


def test_lines_from_before_the_first_checkpoint_come_once(trainings: Trainings, unbroken: Unbroken, tmp_path: Path) -> None:
    check(trainings, unbroken, tmp_path / "lines", place(unbroken.points, "open", ".checkpoint.safetensors.part"), "full")


def test_a_death_between_a_stage_and_its_checkpoint_and_one_in_the_next_stage(
    trainings: Trainings, unbroken: Unbroken, tmp_path: Path
) -> None:
    """The checkpoint of the stage that is done must not keep the lines of the next one from being cut."""
    at = place(unbroken.points, "unlink", "checkpoint.safetensors")
    resumed = check(trainings, unbroken, tmp_path / "once", at, "kill")
    check(trainings, unbroken, tmp_path / "twice", at, "kill", place(resumed.points, "open", ".stage-head.safetensors.part"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "torn", "full", "once"])
def test_every_fail_point_changes_no_bit(trainings: Trainings, unbroken: Unbroken, tmp_path: Path, how: str) -> None:
    """Those that only a resumption reaches included: it is broken there, too."""
    known = {point[:2] for point in unbroken.points}
    for at in places(unbroken, how):
        resumed = check(trainings, unbroken, tmp_path / f"{how}-{at}", at, how)
        for n, point in enumerate(resumed.points):
            if point[:2] not in known and (how != "torn" or point[0] == "write"):
                known.add(point[:2])
                check(trainings, unbroken, tmp_path / f"{how}-{at}-{n}", at, how, n + 1)
