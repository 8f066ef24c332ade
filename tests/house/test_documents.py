"""What the documents say exists: the files they link to, the commands and options that they tell people to type."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

from pagellm.cli.main import app
from pagellm.config import known_keys
from pagellm.layout.reading import parse_layout

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """The `pagellm …` lines of all bash and console blocks, as words."""
    blocks = re.findall(r"```(?:bash|console|sh)\n(.*?)```", text, re.S)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("pagellm ")]


def fault(words: list[str]) -> str:
    """What the command line does not know in these words, or nothing."""
    command, rest = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands"):  # a group
        name = rest.pop(0) if rest else ""
        if name not in command.commands:
            return f"no command {name!r} in {' '.join(words)!r}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    settings = [after.partition("=")[0] for word, after in itertools.pairwise(rest) if word == "--set"]
    if strange := set(settings) - set(known_keys()):
        return f"no setting {min(strange)} in {' '.join(words)!r}"
    unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
    return f"no option {unknown[0]} in {' '.join(words)!r}" if unknown else ""


def test_the_reader_finds_commands_and_their_faults() -> None:
    lines = ["pagellm version --loud", "pagellm train shop --set wings=2", "pagellm fly", "pagellm version # said", "ls"]
    text = "\n".join(["```bash", *lines, "```", "pagellm not in a block"])
    assert [fault(words) for words in commands(text)] == [
        "no option --loud in 'pagellm version --loud'",
        "no setting wings in 'pagellm train shop --set wings=2'",
        "no command 'fly' in 'pagellm fly'",
        "",
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(path: Path) -> None:
    faults = list(filter(None, map(fault, commands(path.read_text(encoding="utf-8")))))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing, f"{path.name} links to {missing}"


def test_layouts_in_documents_are_layouts() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "layout.md").read_text(encoding="utf-8"), re.S)
    whole = [block for block in blocks if "[[rows]]" in block]
    assert whole
    assert all(parse_layout(block).rows for block in whole)
