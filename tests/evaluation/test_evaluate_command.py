"""`pagellm evaluate`: what it prints and writes, with a pipeline that judges two fixed methods."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from evaluation_shop import last_baskets, random_log

from pagellm.cli.main import app, run
from pagellm.evaluation.baselines.popularity import fit_popularity
from pagellm.evaluation.baselines.text import fit_text
from pagellm.evaluation.page_metrics import ItemFacts
from pagellm.evaluation.protocol import Comparison, compare

ITEMS = 30


def judged(asked: tuple[str, ...]) -> Comparison:
    """Popularity under the subject's name against text similarity, on a drawn log."""
    log = random_log(90, ITEMS, seed=21)
    contexts = last_baskets(log)
    known = np.ones(len(log), bool)
    candidates = np.ones(ITEMS, bool)
    vectors = np.eye(ITEMS, dtype=np.float32)
    popular = fit_popularity(log, known, candidates)
    subject = type(popular)("pagellm", log, known, candidates, None)
    others = [fit_text(log, known, candidates, vectors)] if "text" in asked else [popular]
    facts = ItemFacts(vectors, vectors, np.arange(ITEMS, dtype=np.int32) % 4, np.full(ITEMS, 3.0))
    return compare([subject, *others], contexts, candidates, facts, resamples=100, card={"left_out": {"logging": "No pages."}})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, tuple[str, ...]]]:
    calls: list[tuple[Path, tuple[str, ...]]] = []

    def evaluate_runs(folders: list[Path], against: tuple[str, ...], tell: Callable[[str], None]) -> Comparison:
        calls.extend((folder, against) for folder in folders)
        tell("fitting text")
        return judged(against)

    pipeline = ModuleType("pagellm.comparing")
    pipeline.evaluate_runs = evaluate_runs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pagellm.comparing", pipeline)
    monkeypatch.setenv("COLUMNS", "200")
    return calls


def test_prints_tables_and_the_next_command(asked: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "runs/a", "--against", "text,ease"]) == 0
    out, err = capsys.readouterr()
    assert asked == [(Path("runs/a"), ("text", "ease"))]
    assert "fitting text" in err
    assert "fitting text" not in out
    told = (
        "90 warm test users",
        "30 candidates",
        "ndcg@100",
        "near_duplicates@10",
        "pagellm against",
        "Not compared with logging: No pages.",
    )
    for text in told:
        assert text in out
    expected = judged(("text",))
    row = expected.methods["text"]["ndcg@10"]
    assert f"{row.value:.4f} ±{(row.high - row.low) / 2:.4f}*" in out
    ratio = expected.ratio["text"]["ndcg@10"]
    assert f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" in out
    assert out.rstrip().endswith("Next: pagellm compose runs/a --user ID --explain")


def test_json_file_holds_the_comparison(asked: list[object], tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    assert run(["evaluate", "runs/a", "--against", "text", "--json", str(target)]) == 0
    assert json.loads(target.read_text()) == json.loads(json.dumps(judged(("text",)).as_json()))


def test_json_to_standard_output_is_json_alone(asked: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "runs/a", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) >= {"split", "users", "methods", "paired"}


def test_an_unknown_method_is_a_usage_error_that_names_the_nearest(
    asked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", "runs/a", "--against", "poplarity-7d"]) == 2
    assert "Did you mean 'popularity-7d'?" in capsys.readouterr().err.replace("\n", " ")
    assert not asked


def test_a_run_folder_with_markup_in_its_name_is_printed_as_it_is(
    asked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", "runs/[red]x[/red]"]) == 0
    assert "pagellm compose runs/[red]x[/red] " in capsys.readouterr().out


def test_the_command_is_joined() -> None:
    assert any(command.name == "evaluate" or command.callback.__name__ == "evaluate" for command in app.registered_commands)  # type: ignore[union-attr]
