"""Two slot logs against each other: reading, an answer that is known, the command, and the Open Bandit Dataset's traps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pagellm.cli.main import run as command
from pagellm.data.slot_log import read_slot_log
from pagellm.errors import DataError
from pagellm.offpolicy.judged_slots import item_chances, judge_slots

RATE = np.array([[0.5, 0.1], [0.3, 0.2]])  # [position, item]
TARGET = np.array([[0.25, 0.75], [0.5, 0.5]])


def slot_rows(policy: str, chances: np.ndarray, rows: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    position = rng.integers(2, size=rows)
    item = (rng.random(rows) > chances[position, 0]).astype(int)
    return pl.DataFrame(
        {
            "timestamp": pl.Series(["2019-11-24 00:00:18 UTC"]).new_from_index(0, rows),
            "item_id": item,
            "position": position + 1,
            "click": (rng.random(rows) < RATE[position, item]).astype(int),
            "propensity_score": chances[position, item],
            "policy": [policy] * rows,
            "user-item_affinity_0": np.zeros(rows),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain files of the Open Bandit Dataset: a CSV with an index column, and items beside it."""
    out = tmp_path_factory.mktemp("obd")
    for name, chances, seed in (("random", np.full((2, 2), 0.5), 1), ("bts", TARGET, 2)):
        (out / name).mkdir()
        slot_rows(name, chances, 4_000, seed).with_row_index("").write_csv(out / name / "men.csv")
        pl.DataFrame({"item_id": [0, 1], "item_feature_0": [0.1, 0.2]}).write_csv(out / name / "item_context.csv")
    return out


def test_one_policy_on_the_others_slots(folder: Path) -> None:
    found = judge_slots(folder / "random", folder / "bts", None, None, {})
    figures = {f.name: f for f in (*found.judgement.figures, *found.judgement.slots)}
    truth = (TARGET * RATE).sum(1)
    for name, value in {
        "iips": truth.sum(),
        "sniips": truth.sum(),
        "ips": truth.mean(),
        "snips": truth.mean(),
        "dr": truth.mean(),
    }.items():
        assert figures[name].value == pytest.approx(value, abs=0.03 if value < 0.4 else 0.05)
        assert figures[name].bootstrap.low < value < figures[name].bootstrap.high
    assert figures["slot 1"].value == pytest.approx(truth[0], abs=0.03)
    assert figures["slot 2"].value == pytest.approx(truth[1], abs=0.03)
    assert figures["slot 1"].pages + figures["slot 2"].pages == 4_000
    assert {f.name for f in found.judgement.figures if f.refusal} == {"pi", "rips", "cascade-dr"}
    assert found.truth["a_page"]["value"] == pytest.approx(truth.sum(), abs=0.05)
    assert "fixed propensities" in found.notes[0]


def test_a_policy_that_learns_is_read_by_how_often_it_shows_what(folder: Path) -> None:
    log = read_slot_log(folder / "bts")
    drifting = np.where(np.arange(len(log)) % 2 == 0, log.propensity, log.propensity * 0.9)
    object.__setattr__(log, "propensity", drifting)
    chances, fixed = item_chances(log, log.item.astype(np.int32), log.position - 1, (2, 2))
    assert not fixed
    np.testing.assert_allclose(chances, TARGET, atol=0.03)
    np.testing.assert_allclose(chances.sum(1), 1)


def test_one_file_holds_both_policies(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = pl.concat([pl.read_csv(folder / name / "men.csv") for name in ("random", "bts")])
    both.with_columns(campaign=pl.lit("men")).write_parquet(tmp_path / "impressions.parquet")
    words = ["ope", "--log", str(tmp_path), "--logged-by", "random", "--target-by", "bts", "--only", "campaign=men"]
    assert command([*words, "--json", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    assert "cannot be judged from this log: it holds single slots" in said
    told = json.loads((tmp_path / "out.json").read_text())
    apart = judge_slots(folder / "random", folder / "bts", None, None, {})
    assert told["estimators"]["iips"]["value"] == pytest.approx(apart.judgement.figures[2].value)
    for figure in told["estimators"].values():
        assert {"n", "users"} <= figure.keys()
        assert ("ess" in figure and "bootstrap95" in figure and "empirical_bernstein95" in figure) or figure["value"] is None
    assert command([*words[:-1], "campaign=women"]) == 3
    assert "no row that is left" in capsys.readouterr().err
    assert command([*words[:-1], "shop=men"]) == 3
    assert "has no column shop" in capsys.readouterr().err
    assert command([*words[:-1], "men"]) == 2
    assert command([*words, "--slots", "2"]) == 2
    assert "--slots says how a run is judged on pages" in " ".join(capsys.readouterr().err.split())


def test_missing_propensities_are_refused_or_estimated_and_flagged(folder: Path, tmp_path: Path) -> None:
    gap = pl.read_csv(folder / "random" / "men.csv").with_columns(
        propensity_score=pl.when(pl.col("item_id") == 0).then(None).otherwise(pl.col("propensity_score"))
    )
    gap.write_csv(tmp_path / "log.csv")
    refused = judge_slots(tmp_path, folder / "bts", None, None, {})
    assert {f.refusal.code for f in refused.judgement.figures} == {"propensities_missing"}
    told = judge_slots(tmp_path, folder / "bts", None, None, {}, estimate=True)
    assert told.as_json()["estimated_propensities"] is True
    known = judge_slots(folder / "random", folder / "bts", None, None, {})
    assert told.judgement.figures[2].value == pytest.approx(known.judgement.figures[2].value, rel=0.05)


def test_a_log_that_says_nothing_exits_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = slot_rows("fixed", np.full((2, 2), 0.5), 500, 3).with_columns(propensity_score=pl.lit(1.0))
    fixed.write_csv(tmp_path / "log.csv")
    assert command(["ope", "--log", str(tmp_path / "log.csv"), "--target-log", str(tmp_path / "log.csv")]) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "cannot be judged from this log: the logging policy is deterministic" in said


def test_logs_without_the_columns_explain_themselves(folder: Path, tmp_path: Path) -> None:
    slot_rows("x", TARGET, 10, 0).drop("propensity_score").write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="columns item_id, position, click and propensity"):
        read_slot_log(tmp_path)
    (tmp_path / "log.csv").unlink()
    slot_rows("x", TARGET, 100, 0).with_columns(propensity_score=pl.lit(1.5)).write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="propensity_out_of_range"):
        read_slot_log(tmp_path)
    (tmp_path / "again.csv").write_bytes((tmp_path / "log.csv").read_bytes())
    with pytest.raises(DataError, match="holds 2 slot logs"):
        read_slot_log(tmp_path)


@pytest.mark.data
def test_the_open_bandit_sample(real_data: Path) -> None:
    """Random logs answer for Thompson sampling; the other way round a propensity of 1e-6 leaves two effective rows."""
    log = real_data / "obd_small"
    if not log.is_dir():
        pytest.skip(f"{log} is not there")
    for campaign in ("men", "women"):
        found = judge_slots(log, log, "random", "bts", {"campaign": campaign})
        for figure in found.judgement.slots:
            assert figure.refusal is None
            assert figure.overlap.ess > 900
        ips = found.judgement.figures[0]
        assert ips.bootstrap.low < found.truth["a_row"]["value"] < ips.bootstrap.high
    back = judge_slots(log, log, "bts", "random", {"campaign": "women"}).judgement
    assert back.figures[0].overlap.ess == pytest.approx(2.08, abs=0.01)
    assert "effective sample size is 2.1 of 10,000" in back.figures[0].refusal.verdict
    assert [f.refusal is None for f in back.slots] == [True, False, True]
