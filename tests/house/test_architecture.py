"""The file tree in ARCHITECTURE.md says what the docstrings say, and the script that writes it can tell when it does not."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(root: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("architecture", str(root / "scripts" / "architecture"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("architecture", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def house(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A house of two rooms with a stale document."""
    package = tmp_path / "src" / "pagellm"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text('"""All of it."""')
    (package / "types.py").write_text('"""The records. They know\nno files."""\n\nx = 1')
    (package / "data" / "__init__.py").write_text('"""Rows, e.g. of logs. And more."""')
    (tmp_path / "ARCHITECTURE.md").write_text(f"# House\n{script.BEGIN}\nold\n{script.END}\nend\n")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    return tmp_path


def test_the_tree_in_the_repository_is_fresh(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--check"]) == 0, capsys.readouterr().err


def test_writes_the_first_sentences_between_the_marks(script: ModuleType, house: Path) -> None:
    assert script.main(["--check"]) == 1
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    assert (house / "ARCHITECTURE.md").read_text().splitlines() == [
        "# House",
        script.BEGIN,
        "```text",
        "src/pagellm/  All of it.",
        "  types.py    The records.",
        "  data/       Rows, e.g. of logs.",
        "```",
        script.END,
        "end",
    ]


def test_a_module_without_docstring_is_named(script: ModuleType, house: Path) -> None:
    (house / "src" / "pagellm" / "bare.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"src/pagellm/bare\.py has no docstring"):
        script.main([])


def test_missing_marks_are_named(script: ModuleType, house: Path) -> None:
    (house / "ARCHITECTURE.md").write_text("# House\n")
    with pytest.raises(ValueError, match="must hold the marks"):
        script.main([])
