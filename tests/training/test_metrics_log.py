"""The metrics file: lines are safe before a checkpoint tells of them, and what it tells of must be there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pagellm.errors import RunError
from pagellm.training.metrics_log import MetricsLog, cut, length_of
from pagellm.training.sft import Step


def test_lines_are_on_disk_when_their_length_is_told_and_are_cut_back_to_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(Step("lm", 1, 2, 0.5, 1e-3, None))
        length = log.saved()
        assert length_of(path) == length
        log.write(Step("lm", 2, 2, 0.25, 1e-3, 1.0))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    cut(path, length)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]


def test_a_file_that_lost_lines_is_told_and_not_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(RunError, match=r"holds 3 bytes, and 10 were there"):
        cut(path, 10)
    assert path.read_bytes() == b"{}\n"
    with pytest.raises(RunError, match=r"holds 0 bytes"):
        cut(tmp_path / "none.jsonl", 1)


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be written .*--resume"):
        MetricsLog(tmp_path / "nowhere" / "metrics.jsonl")
