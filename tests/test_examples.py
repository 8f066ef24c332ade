"""The programs in examples/ run, in-process, and do what their text says."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"


def run(name: str, **arguments: Any) -> Any:
    """What the program's `main` returns."""
    return runpy.run_path(str(FOLDER / f"{name}.py"))["main"](**arguments)


def test_rules_on_any_scores(capsys: pytest.CaptureFixture[str]) -> None:
    # By hand: oats are pinned; the two best are tea and mate (the second tea is a duplicate), then Leaf is used up, so
    # the drinks row has juice and water left and one slot stays empty.
    assert run("rules_on_any_scores") == ["oats-own", "tea-20", "mate", "juice", "water"]
    shown = capsys.readouterr().out
    assert "Rolled oats" in shown
    assert "Pinned" in shown
    assert "max_per brand" in shown


def test_relevance_is_not_enough(capsys: pytest.CaptureFixture[str]) -> None:
    by_relevance, grown = run("relevance_is_not_enough", users=4)
    assert grown > 1.05 * by_relevance > 0
    assert f"{grown:.3f}" in capsys.readouterr().out


def test_every_example_is_tested_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    programs = {path.stem for path in FOLDER.glob("*.py")}
    assert len(programs) >= 2
    assert programs <= tested, f"no test calls {sorted(programs - tested)}"
