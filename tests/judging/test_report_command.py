"""`pagellm report` on a small run: the file stands alone, its figures are in the JSON beside it, gates decide the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pagellm.cli.main import run
from pagellm.judging import offline


@pytest.fixture(scope="module")
def reported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    out = tmp_path_factory.mktemp("report") / "report.html"
    return run(["report", str(tiny_run), "--out", str(out), "--against", "popularity,text", "--max-ms", "5000"]), out


def test_the_report_stands_alone_and_says_all_that_is_known(reported: tuple[int, Path]) -> None:
    code, out = reported
    html, found = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    failed = [gate["name"] for gate in found["gates"] if gate["passed"] is False]
    assert code == (4 if failed else 0)
    assert out.stat().st_size < 2_000_000
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    for part in ("Gates", "before and after", "Figures", "Pages as a service would write them", "How to repeat it"):
        assert part in html
    assert [gate["name"] for gate in found["gates"]] == ["accuracy", "groups", "rules", "speed", "distance", "rewards"]
    assert {gate["name"]: gate["passed"] for gate in found["gates"]}["rules"] is True
    assert found["served"]["violations"] == []
    assert found["served"]["foreign"] == found["served"]["repeats"] == 0
    assert found["reference"] in ("popularity", "text")
    assert found["evaluation"]["methods"].keys() == {"pagellm", "popularity", "text"}
    assert sum(found["exposure"]["pagellm"]) > 0
    assert found["rewards"] is None
    assert "pagellm report" in html


def test_a_page_that_is_too_slow_fails_a_gate(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["report", str(tiny_run), "--out", str(tmp_path / "r.html"), "--against", "popularity", "--max-ms", "0.1"])
    assert code == 4
    assert "Gates that were not passed: " in capsys.readouterr().out
    assert (tmp_path / "r.html").exists(), "a report of what failed is what its reader needs"


def test_bad_input_is_named(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "r.html")]) == 1
    assert "nothing" in capsys.readouterr().err
    assert run(["report", str(tiny_run), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert run(["report", str(tiny_run), "--against", "populrity", "--out", str(tmp_path / "r.html")]) == 2
    assert "Did you mean 'popularity'" in capsys.readouterr().err
    unfinished = tmp_path / "unfinished"
    shutil.copytree(tiny_run, unfinished)
    (unfinished / "manifest.json").unlink()
    assert run(["report", str(unfinished), "--out", str(tmp_path / "r.html")]) == 1
    assert "unfinished" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_what_is_shown_is_drawn_by_a_seed(tiny_run: Path) -> None:
    first, again, other = (
        offline.judge_offline(tiny_run, ("popularity",), 1e4, seed=seed, tell=lambda line: None).samples for seed in (1, 1, 2)
    )
    assert [view.rows for view in first] == [view.rows for view in again]
    assert [view.rows for view in first] != [view.rows for view in other]
