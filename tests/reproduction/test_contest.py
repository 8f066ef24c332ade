"""`pagellm reproduce main` on the small shop: methods by seed, one tidy table, what is done stays done, what does not apply says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pagellm.cli.main import run
from pagellm.data.readers import read_log
from pagellm.errors import DataError
from pagellm.reproduction import contest
from reproduction.test_ablation import FEW

SETTINGS = (*FEW, "ppo.iterations=1", "ppo.canary_every=1")


def command(shop: Path, out: Path, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return ["reproduce", "main", str(shop), "--out", str(out), "--seeds", "2", "--size", "smoke", *settings, *more]


METHODS = ("--methods", "popularity,itemknn,mmr,logging,sft")


@pytest.fixture(scope="module")
def out(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contest") / "out"
    assert run(command(tiny_shop, folder, *METHODS)) == 0
    return folder


def test_every_method_has_its_seeds_in_one_tidy_table(out: Path) -> None:
    table = pl.read_parquet(out / "results.parquet")
    assert set(table.columns) >= {"dataset", "protocol", "method", "seed", "metric", "mean", "lo", "hi"}
    assert table["mean"].is_between(table["lo"] - 1e-9, table["hi"] + 1e-9).all()
    seeds = {m: sorted(rows["seed"].drop_nulls().unique()) for (m,), rows in table.group_by("method")}
    assert seeds["pagellm"] == [0, 1]
    assert seeds["mmr"] == [0, 1]
    assert seeds["popularity"] == seeds["itemknn"] == [0], "what draws nothing is fitted once"
    assert set(table["kind"]) == {"ranking", "page"}
    ten = table.filter((pl.col("metric") == "ndcg@10") & (pl.col("method") == "pagellm"))
    each, pooled = ten.filter(pl.col("seed").is_not_null())["mean"], ten.filter(pl.col("seed").is_null())["mean"]
    assert each.mean() == pytest.approx(pooled[0])
    gaps = table.filter(pl.col("seed").is_null() & (pl.col("metric") == "ndcg@10") & (pl.col("method") == "popularity"))
    own = table.filter(pl.col("seed").is_null() & (pl.col("metric") == "ndcg@10") & (pl.col("method") == "pagellm"))
    assert gaps["paired_diff"][0] == pytest.approx(own["mean"][0] - gaps["mean"][0])
    assert pl.read_csv(out / "results.csv").height == table.height


def test_the_card_says_what_was_done_and_what_was_left_out(out: Path) -> None:
    card = json.loads((out / "protocol.json").read_text())
    assert "There is no logging policy to compare with" in card["left_out"]["shop/0/logging"]
    assert card["re-ranked"] == {"shop/0/mmr": "itemknn", "shop/1/mmr": "itemknn"}
    assert card["searches"]["shop/0/itemknn"]["trials"]
    assert card["searches"]["shop/1/mmr"] == card["searches"]["shop/0/mmr"], "searched with the first seed"
    assert card["command"].startswith("pagellm reproduce main ")
    assert "without the page reward NDCG@100 falls by 17.8 %" in card["paper"]
    assert {"candidates", "ties", "seen items", "relevance", "cut-offs", "search"} <= set(card["rules"])
    assert card["definitions"]["ndcg"]
    assert card["seconds"]["shop/0/popularity"] > 0
    assert card["split"]["shop"]["valid_at"] == 0.8
    html = (out / "shop.html").read_text()
    assert "popularity" in html
    assert "Read this first" in html, "a smoke run says that it is one"
    assert "Accuracy against repetition" in html
    assert "Beside the paper" in html
    assert "https://" not in html


def test_what_is_done_is_not_done_again(out: Path, tiny_shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "jobs").rglob("*.safetensors")}

    def never(*args: object, **more: object) -> None:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(contest, "train_run", never)
    monkeypatch.setattr(contest.Entrant, "judged", never)
    assert run(command(tiny_shop, out, *METHODS)) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "jobs").rglob("*.safetensors")} == before


def test_other_protocols_stop_at_the_supervised_policy(tiny_shop: Path, tmp_path: Path) -> None:
    code = run(command(tiny_shop, tmp_path / "out", "--methods", "popularity", "--protocol", "last-out", "--seeds", "1"))
    assert code == 0
    table = pl.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(table["protocol"]) == {"last-out"}
    assert set(table["method"]) == {"pagellm", "popularity"}


def test_a_set_that_cannot_be_judged_does_not_stop_the_others(
    tiny_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, other = contest.train_run, tmp_path / "a-shop"
    shutil.copytree(tiny_shop, other)

    def broken(data: Path, *args: Any, **more: Any) -> Any:
        if data == other:
            raise DataError("its test part is empty")
        return whole(data, *args, **more)

    monkeypatch.setattr(contest, "train_run", broken)
    first, *rest = command(tiny_shop, tmp_path / "out", "--methods", "popularity", "--seeds", "1", "--protocol", "last-out")
    assert run([first, rest[0], str(other), *rest[1:]]) == 0
    assert "a-shop, seed 0, cannot be judged: its test part is empty" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "out" / "results.parquet")["dataset"].unique().to_list() == ["shop"]


def test_a_smaller_set_has_whole_users(tiny_shop: Path, tmp_path: Path) -> None:
    log = read_log(tiny_shop)
    small = contest._smaller(log, tiny_shop, tmp_path / "small", 50)
    kept = read_log(small).interactions
    assert kept.users == 50
    events = log.interactions
    counts = dict(zip(*np.unique(events.user_ids[events.user], return_counts=True), strict=True))
    for user, count in zip(*np.unique(kept.user_ids[kept.user], return_counts=True), strict=True):
        assert counts[user] == count
    assert contest._smaller(log, tiny_shop, tmp_path / "all", 10_000) == tiny_shop


def test_bad_input_is_named(out: Path, tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(tiny_shop, tmp_path / "a", "--size", "huge")) == 2
    assert "The size 'huge' is not known. Sizes: smoke, full." in capsys.readouterr().err
    assert run(command(tiny_shop, out, "--protocol", "last-out")) == 2
    assert "was begun with another protocol" in capsys.readouterr().err
    assert run(command(tiny_shop, tmp_path / "b", str(tiny_shop))) == 2
    assert "Two data folders are named 'shop'" in capsys.readouterr().err
    assert run(command(tiny_shop, tmp_path / "c", "--methods", "populrity")) == 2
    assert "Did you mean 'popularity'" in capsys.readouterr().err
    assert run(command(tmp_path / "nothing", tmp_path / "d")) == 3
    assert not (tmp_path / "a").exists()


def test_a_run_that_breaks_is_not_taken_for_a_small_one(tiny_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **more: object) -> object:
        raise DataError("the log cannot be read")

    monkeypatch.setattr(contest, "train_run", broken)
    assert run(command(tiny_shop, tmp_path / "out", "--methods", "popularity")) == 3
