"""`pagellm report` on a small run: the file stands alone, its figures are in the JSON beside it, gates decide the exit code."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pagellm import comparing
from pagellm.cli.main import run
from pagellm.errors import DataError
from pagellm.judging import offline
from pagellm.judging.arms import ablation_rows
from pagellm.models.run import load_run


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
    for part in ("Gates", "Six customers", "Figures", "What it takes", "Beside the paper", "How to repeat it"):
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
    assert found["cost"]["sft"].keys() == {"seconds", "cpu_seconds", "peak_mb", "gpu_peak_mb", "threads"}
    assert "training, stage sft" in html
    assert found["places"] is None, "this run has no logged pages"
    assert found["ablation"] == []


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


def test_an_empty_test_part_and_a_log_without_pages_are_told_before_the_long_work(
    tiny_run: Path, tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["report", str(tiny_run), "--against", "popularity", "--out", str(tmp_path / "r.html")]
    with monkeypatch.context() as patch:
        patch.setattr(comparing.Arena, "compare", never)
        assert run([*words, "--log", str(tiny_shop)]) == 3
        assert "pages" in capsys.readouterr().err
    whole = load_run(tiny_run)
    nobody = replace(whole, split=replace(whole.split, test=whole.split.test.take(np.empty(0, np.int64))))
    monkeypatch.setattr(comparing, "load_run", lambda folder: nobody)
    assert run(words) == 3
    assert "has no user with a history and a next basket" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def never(*args: object, **more: object) -> None:
    raise AssertionError("the long work has begun")


def arms_of(dataset: str) -> pl.DataFrame:
    """The long table of an ablation as it is written: one figure of one arm, pooled and of one seed."""
    row = {"dataset": dataset, "part": "test", "arm": "ppo-joint", "base": "start", "metric": "ndcg@10", "mean": 0.1, "lo": 0.0}
    ends = {"hi": 0.2, "paired_diff": 0.01, "paired_lo": 0.0, "paired_hi": 0.02}
    return pl.DataFrame([{**row, **ends, "seed": seed} for seed in (None, 0)], infer_schema_length=None)


def test_an_ablation_of_the_same_data_stands_in_the_report(tiny_run: Path, tmp_path: Path) -> None:
    arms_of("shop").write_parquet(tmp_path / "ablation.parquet")
    out = tmp_path / "r.html"
    claim = {"claim": "paper", "dataset": "shop", "what": "both rewards: a against b", "value": 1.1, "low": 1.0, "high": 1.2}
    (tmp_path / "claims.json").write_text(json.dumps({"claims": [claim, claim | {"dataset": "elsewhere", "value": 7.0}]}))
    assert run(["report", str(tiny_run), "--out", str(out), "--against", "popularity", "--ablation", str(tmp_path)]) in (0, 4)
    assert "+10.0 % [+0.0, +20.0]" in out.read_text()
    assert [row["arm"] for row in json.loads(out.with_suffix(".json").read_text())["ablation"]] == ["ppo-joint"]
    assert "ppo-joint on start" in out.read_text()


def test_an_ablation_of_other_data_is_refused(tmp_path: Path) -> None:
    arms_of("elsewhere").write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"is of elsewhere\. This run is of 'shop'"):
        ablation_rows(tmp_path / "a.csv", "shop")
    arms_of("shop").drop("base", "lo").write_csv(tmp_path / "b.csv")
    with pytest.raises(DataError, match="lacks the columns base, lo"):
        ablation_rows(tmp_path / "b.csv", "shop")
    (tmp_path / "c.parquet").write_text("no table")
    with pytest.raises(DataError, match="No table of an ablation"):
        ablation_rows(tmp_path / "c.parquet", "shop")
    with pytest.raises(DataError, match=r"ablation\.parquet"):
        ablation_rows(tmp_path, "shop")


def test_what_is_shown_is_drawn_by_a_seed(tiny_run: Path) -> None:
    first, again, other = (
        offline.judge_offline(tiny_run, ("popularity",), 1e4, seed=seed, tell=lambda line: None).samples for seed in (1, 1, 2)
    )
    assert [view.rows for view in first] == [view.rows for view in again]
    assert [view.rows for view in first] != [view.rows for view in other]
