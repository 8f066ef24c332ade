"""`pagellm pairs` as people type it: on a review-type log, on logged pages, on a run, and on what cannot be mined."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from pagellm.cli.main import run
from tiny_run import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated shop with logged pages."""
    folder = tmp_path_factory.mktemp("world") / "shop"
    assert run(["simulate", "world", str(folder), "--profile", "tiny", "--seed", "7"]) == 0
    return folder


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


def mined(source: Path, out: Path, *more: str) -> pl.DataFrame:
    assert run(["pairs", "mine", str(source), "--out", str(out), *more]) == 0
    return pl.read_parquet(out)


def test_baskets_give_all_families_and_the_same_file_every_time(
    tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = mined(tiny_shop, tmp_path / "a.parquet", "--from", "0.3")
    said = capsys.readouterr().out
    assert set(first["family"]) == {"relevance", "ranking", "diversity", "redundancy", "swap"}
    assert first["page_id"].is_null().all()
    assert "nobody knows what was seen" in said
    assert f"Next: pagellm pairs show {tmp_path / 'a.parquet'}" in said
    assert first.equals(mined(tiny_shop, tmp_path / "b.parquet", "--from", "0.3"))
    assert not first.equals(mined(tiny_shop, tmp_path / "c.parquet", "--from", "0.3", "--seed", "1"))
    small = mined(tiny_shop, tmp_path / "d.parquet", "--from", "0.3", "--set", "pairs.slots=4", "--set", "pairs.per_user=2")
    assert small["chosen"].list.len().max() == 4
    assert small.group_by("family", "user_id").len()["len"].max() == 2


def test_logged_pages_are_compared_as_they_were_shown(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = mined(world, tmp_path / "pairs.parquet", "--from", "0.5")
    assert "viewed:" in capsys.readouterr().out
    shown = pl.read_parquet(world / "impressions.parquet")
    pages = {name: page.sort("row", "col")["item_id"].to_list() for (name,), page in _slots(shown).group_by("page_id")}
    whole = pairs.filter(pl.col("family") != "swap")
    as_shown = whole.filter(pl.col("operator") != "alike")  # which stands beside a page that nobody saw
    assert all(row["chosen"] == pages[row["page_id"]] for row in as_shown.iter_rows(named=True))
    assert set(whole["event"]) <= {"select_item", "add_to_cart", "purchase"}
    assert whole["weight"].min() >= 1 > pairs.filter(pl.col("family") == "swap")["weight"].min()
    assert whole.filter(pl.col("gain") == 4)["event"].unique().to_list() == ["purchase"]


def _slots(shown: pl.DataFrame) -> pl.DataFrame:
    """One row a slot, whether the log nests them or not."""
    if "slots" not in shown.columns:
        return shown
    return shown.explode("slots").unnest("slots")


def test_a_run_brings_its_policys_own_negatives_from_what_it_has_not_read(
    tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = train(tiny_shop, tmp_path / "run", "split.valid_at=0.6", "split.test_at=0.7")
    pairs = mined(early, tmp_path / "pairs.parquet")
    assert "between 70% and 80%" in capsys.readouterr().err
    assert {"policy", "matched", "channel", "foreign"} <= set(pairs["operator"])
    assert run(["pairs", "mine", str(early), "--out", str(tmp_path / "no.parquet"), "--from", "0.65"]) == 2
    assert "knows the answers" in capsys.readouterr().err
    assert not (tmp_path / "no.parquet").exists()


def test_show_prints_both_pages_and_the_feedback(tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pairs.parquet"
    mined(tiny_shop, file, "--from", "0.3")
    capsys.readouterr()
    assert run(["pairs", "show", str(file), "--family", "redundancy", "--n", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("redundancy ·") == 2
    assert "chosen" in out
    assert "★" in out
    assert "≠" in out
    assert "interaction of “" in out
    assert run(["pairs", "show", str(file), "--family", "fun"]) == 2
    assert "The family must be one of relevance, ranking" in capsys.readouterr().err
    elsewhere = tmp_path / "moved.parquet"
    pl.read_parquet(file).write_parquet(elsewhere)  # the note of where it was mined is gone
    assert run(["pairs", "show", str(elsewhere)]) == 3
    assert "--source" in capsys.readouterr().err
    assert run(["pairs", "show", str(elsewhere), "--source", str(tiny_shop)]) == 0


def test_export_writes_what_preference_trainers_read(tiny_shop: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "pairs.parquet", tmp_path / "pairs.jsonl"
    frame = mined(tiny_shop, file, "--from", "0.5")
    assert run(["pairs", "export", str(file), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len(frame)
    assert all(set(row) == {"prompt", "chosen", "rejected", "margin"} for row in rows)
    assert all(row["prompt"].startswith("History:\n- ") and row["chosen"] != row["rejected"] for row in rows)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--from", "0.9", "--to", "0.5"], 2, "0 <= from < to <= 1"),
        (["--set", "pairs.slots=1"], 2, "pairs.slots"),
        (["--from", "0", "--to", "0.000001"], 3, "nothing to mine"),
    ],
)
def test_what_cannot_be_mined_is_said(
    tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    assert run(["pairs", "mine", str(tiny_shop), "--out", str(tmp_path / "p.parquet"), *options]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()


def test_a_log_without_positive_feedback_is_said(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "quiet"
    folder.mkdir()
    for path in world.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    events = pl.read_parquet(folder / "events.parquet")
    events.filter(~pl.col("event").is_in(["select_item", "add_to_cart", "purchase"])).write_parquet(folder / "events.parquet")
    assert run(["pairs", "mine", str(folder), "--out", str(tmp_path / "p.parquet")]) == 3
    assert "no_positive_feedback" in capsys.readouterr().err


def test_hidden_items_stand_in_for_nothing(tiny_shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "interactions.parquet").write_bytes((tiny_shop / "interactions.parquet").read_bytes())
    items = pl.read_parquet(tiny_shop / "items.parquet").with_row_index("n")
    items.with_columns(hidden=pl.col("n") % 2 == 0).drop("n").write_parquet(folder / "items.parquet")
    hidden = set(items.filter(pl.col("n") % 2 == 0)["item_id"])
    pairs = mined(folder, tmp_path / "pairs.parquet", "--from", "0.3").filter(pl.col("operator") != "consumed")
    assert len(pairs) > 100
    for row in pairs.iter_rows(named=True):
        assert not hidden & (set(row["rejected"]) - set(row["chosen"]))
