"""The scripts are what README, contributors and the build machine share: the promises that need no installation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def bash(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
    )


def shell_scripts(root: Path) -> list[Path]:
    files = [path for path in sorted((root / "scripts").iterdir()) if path.is_file()] + [root / ".ci" / "run"]
    return [path for path in files if path.read_bytes().startswith(b"#!/usr/bin/env bash")]


def test_scripts_are_executable_strict_and_parse(root: Path) -> None:
    scripts = shell_scripts(root)
    assert {"setup", "demo", "test", "check", "docs", "bench", "run"} <= {path.name for path in scripts}
    for path in scripts:
        assert os.access(path, os.X_OK), path
        assert "\nset -euo pipefail\n" in path.read_text(encoding="utf-8"), path
        assert bash(["-n", str(path)]).returncode == 0, path


def test_the_first_two_blocks_of_the_readme_are_the_two_commands(root: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)
    assert blocks[:2] == ["scripts/demo\n", "scripts/test\n"]


def test_setup_refuses_an_unknown_kind(root: Path) -> None:
    done = bash([str(root / "scripts" / "setup"), "everything"])
    assert done.returncode == 2
    assert "must be base or dev. Got 'everything'" in done.stderr


def test_setup_names_the_python_it_needs(root: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$1" in -V) echo Python 3.9.1;; *) exit 1;; esac\n')
    old.chmod(0o755)
    done = bash([str(root / "scripts" / "setup")], PYTHON=str(old), PAGELLM_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert "Python must be 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_setup_deletes_nothing_but_environments(root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all my work")
    done = bash([str(root / "scripts" / "setup")], PAGELLM_VENV=str(tmp_path), PYTHON=sys.executable)
    assert done.returncode == 1
    assert "must be a virtual environment or not exist" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


def test_setup_without_venv_module_says_what_to_install(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text(f'#!/bin/sh\n[ "$2" = venv ] && mkdir -p "$3" && exit 1\nexec {sys.executable} "$@"\n')
    broken.chmod(0o755)
    done = bash([str(root / "scripts" / "setup")], PAGELLM_VENV=str(tmp_path / "venv"), PYTHON=str(broken))
    assert done.returncode == 1
    assert "install python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A checkout with the real setup script and an environment whose pip only notes what it is asked for."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "src" / "pagellm").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "src/pagellm/__init__.py", "scripts/setup"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    python = binaries / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$2" = pip ]; then echo "$@" >>"{tmp_path}/pip.log"; else exec {sys.executable} "$@"; fi\n'
    )
    python.chmod(0o755)
    return tmp_path


def installs(checkout: Path) -> int:
    log = checkout / "pip.log"
    return log.read_text().count(" -e ") if log.exists() else 0


def test_setup_installs_once_and_again_only_when_something_changed(checkout: Path) -> None:
    setup = [str(checkout / "scripts" / "setup")]
    for _ in range(2):
        assert bash(setup, PAGELLM_VENV="").returncode == 0
        assert installs(checkout) == 1
    assert bash([*setup, "dev"], PAGELLM_VENV="").returncode == 0
    assert installs(checkout) == 2
    (checkout / "constraints.txt").write_text("torch==2.13.1\n")
    assert bash([*setup, "dev"], PAGELLM_VENV="").returncode == 0
    assert bash(setup, PAGELLM_VENV="").returncode == 0  # whoever has dev has base
    assert installs(checkout) == 3
    assert all("-c " in line for line in (checkout / "pip.log").read_text().splitlines())


def test_setup_that_failed_is_done_again(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    works = python.read_text()
    python.write_text(works.replace("then echo", "then exit 1; echo"))
    assert bash([str(checkout / "scripts" / "setup")], PAGELLM_VENV="").returncode == 1
    python.write_text(works)
    assert bash([str(checkout / "scripts" / "setup")], PAGELLM_VENV="").returncode == 0
    assert installs(checkout) == 1
