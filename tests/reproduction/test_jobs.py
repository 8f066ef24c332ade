"""A matrix of jobs: nothing is done twice, what was interrupted is done again, another matrix is not overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pagellm.errors import RunError, UsageError
from pagellm.reproduction.jobs import Job, Matrix, Outcome


def counted(calls: list[str], name: str) -> Callable[[], Outcome]:
    def work() -> Outcome:
        calls.append(name)
        return Outcome({"test/ndcg@10": np.arange(3.0)}, {"method": name, "kl": 1.5})

    return work


def silent(line: str) -> None:
    pass


def test_a_job_that_has_left_its_file_is_not_done_again(tmp_path: Path) -> None:
    calls: list[str] = []
    matrix = Matrix.open(tmp_path / "out", {"profile": "tiny"})
    matrix.run([Job("beauty/0/ppo", counted(calls, "ppo"))], silent)
    again = Matrix.open(tmp_path / "out", {"profile": "tiny"})
    again.run([Job("beauty/0/ppo", counted(calls, "ppo")), Job("beauty/1/mmr.start.0.5", counted(calls, "mmr"))], silent)
    assert calls == ["ppo", "mmr"]
    assert again.finished() == ["beauty/0/ppo", "beauty/1/mmr.start.0.5"]
    found = again.read("beauty/1/mmr.start.0.5")
    assert found.notes | {"seconds": 0.0} == {"method": "mmr", "kl": 1.5, "seconds": 0.0}
    assert found.arrays["test/ndcg@10"].tolist() == [0, 1, 2]


def test_a_job_that_fails_leaves_nothing_and_the_earlier_ones_stay(tmp_path: Path) -> None:
    calls: list[str] = []

    def broken() -> Outcome:
        raise KeyboardInterrupt

    matrix = Matrix.open(tmp_path / "out", {})
    with pytest.raises(KeyboardInterrupt):
        matrix.run([Job("a/0/one", counted(calls, "one")), Job("a/0/two", broken)], silent)
    assert matrix.finished() == ["a/0/one"]
    with pytest.raises(RunError, match=r"a/0/two .* is not done\. Run the same command again"):
        matrix.read("a/0/two")


def test_a_process_that_joins_others_in_a_folder_does_not_write_its_facts_again(tmp_path: Path) -> None:
    Matrix.open(tmp_path / "out", {"profile": "tiny", "data shop": "abc"})
    facts = tmp_path / "out" / "matrix.json"
    written = facts.stat().st_ino
    Matrix.open(tmp_path / "out", {"profile": "tiny"})
    assert facts.stat().st_ino == written


def test_a_figure_that_is_not_finite_is_no_result(tmp_path: Path) -> None:
    matrix = Matrix.open(tmp_path / "out", {})
    with pytest.raises(RunError, match="not finite"):
        matrix.run([Job("a/0/nan", lambda: Outcome({"x": np.array([np.nan])}, {}))], silent)
    assert matrix.finished() == []


def test_a_folder_that_was_begun_otherwise_is_refused(tmp_path: Path) -> None:
    Matrix.open(tmp_path / "out", {"profile": "tiny", "data shop": "abc"})
    with pytest.raises(UsageError, match=r"another profile: profile = 'tiny'; now profile = 'small'"):
        Matrix.open(tmp_path / "out", {"profile": "small"})
    with pytest.raises(UsageError, match="another data shop"):
        Matrix.open(tmp_path / "out", {"data shop": "abd"})
    Matrix.open(tmp_path / "out", {"profile": "tiny", "data other": "x"})  # one more data set is fine
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="is not empty and holds no matrix"):
        Matrix.open(tmp_path / "other", {})
