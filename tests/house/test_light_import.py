"""`import pagellm` and `pagellm --help` stay light: they load nothing that takes a second to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numba", "polars", "sklearn", "scipy", "numpy", "transformers", "peft", "pandas", "matplotlib", "jinja2"}

SHOW = "import json, sys; sys.stderr.write('MODULES' + json.dumps(sorted(m.partition('.')[0] for m in sys.modules)))"
HELP = f"""
import atexit, sys
def show():
    {SHOW}
atexit.register(show)
sys.argv = ["pagellm", *ARGUMENTS]
from pagellm.__main__ import main
main()
"""


def loaded(program: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Top-level modules that are loaded when the program ends."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "MODULES" in done.stderr, done.stderr
    return set(json.loads(done.stderr.rpartition("MODULES")[2])), done


def test_the_probe_sees_a_heavy_import() -> None:
    modules, _ = loaded(f"import numpy; {SHOW}")
    assert "numpy" in modules


def test_import_pagellm_loads_nothing_heavy() -> None:
    modules, _ = loaded(f"import pagellm; {SHOW}")
    assert "pagellm" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    modules, done = loaded(HELP.replace("ARGUMENTS", repr(arguments)))
    assert done.returncode == 0
    assert "pagellm" in done.stdout.lower()
    assert not modules & HEAVY


def test_help_of_every_command_loads_nothing_heavy() -> None:
    program = f"""
import typer
from typer.testing import CliRunner
from pagellm.cli.main import app
def walk(command, path):
    yield path
    for name, child in getattr(command, "commands", {{}}).items():
        yield from walk(child, [*path, name])
for path in walk(typer.main.get_command(app), []):
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0 and "Usage" in done.stdout, (path, done.stdout)
{SHOW}
"""
    modules, _ = loaded(program)
    assert not modules & HEAVY
