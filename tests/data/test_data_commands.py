"""`pagellm data check` and `pagellm data stats` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_shops import INTERACTIONS, ITEMS, page_events, page_rows, write

from pagellm.cli.main import run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_check_of_a_good_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "shop", "csv", items=ITEMS, interactions=INTERACTIONS)
    assert run(["data", "check", str(folder), "--json", str(tmp_path / "check.json")]) == 0
    told = capsys.readouterr().out
    assert "interactions.csv: 60 rows = 60 accepted + 0 quarantined" in told
    assert told.rstrip().endswith(f"Next: pagellm data stats {folder}")
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["ok"] is True
    assert report["records"] == {"items": 12, "users": 5, "interactions": 60, "pages": None}
    assert list((tmp_path / "here").iterdir()) == []


def test_check_of_a_bad_folder_exits_with_3_and_keeps_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [*INTERACTIONS, {**INTERACTIONS[0], "item_id": "none"}]
    folder = write(tmp_path / "shop", "ndjson", items=ITEMS, interactions=rows)
    assert run(["data", "check", str(folder), "--json", "-"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["files"][1] == {
        "file": "interactions.ndjson",
        "rows": 61,
        "accepted": 60,
        "quarantined": 1,
        "reasons": {"unknown_item": 1},
    }
    kept = json.loads((tmp_path / "here" / "shop.quarantine.ndjson").read_text())
    assert (kept["file"], kept["row"], kept["reason"]) == ("interactions.ndjson", 61, "unknown_item")
    assert run(["data", "check", str(folder), "--max-reject-share", "0.05"]) == 0
    assert "row 61" in capsys.readouterr().out
    assert run(["data", "stats", str(folder)]) == 3
    assert "too_many_rejected" in capsys.readouterr().err


def test_stats_of_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "shop", "parquet", items=ITEMS, impressions=page_rows(), events=page_events())
    assert run(["data", "stats", str(folder), "--json", str(tmp_path / "stats.json")]) == 0
    assert "ctr by column" in capsys.readouterr().out
    stats = json.loads((tmp_path / "stats.json").read_text())
    pages = stats["pages"]
    assert pages["ctr_by_column"]["1"] == {"slots": 40, "ctr": 0.5}
    assert pages["ctr_by_row"]["1"] == {"slots": 60, "ctr": 0.0}
    assert pages["propensity_coverage"] == pytest.approx(13 / 20)
    assert pages["value_sum"] == sum(20 + p for p in range(0, 20, 2))
    assert stats["events_by_kind"] == {"select_item": 20, "add_to_cart": 10, "purchase": 11}


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["data", "check", str(tmp_path / "nowhere")]) == 3
    assert "There is no data folder" in capsys.readouterr().err
    folder = write(tmp_path / "shop", "csv", items=ITEMS, interactions=INTERACTIONS)
    assert run(["data", "check", str(folder), "--position-base", "2"]) == 2
    assert run(["data", "check", str(folder), "--max-reject-share", "7"]) == 2


@pytest.mark.data
@pytest.mark.parametrize("name", ["amazon14_beauty", "amazon18_games", "amazon18_giftcards"])
def test_real_folders_pass(name: str, real_data: Path, tmp_path: Path):
    assert run(["data", "check", str(real_data / name), "--json", str(tmp_path / "check.json")]) == 0
    assert all(file["quarantined"] == 0 for file in json.loads((tmp_path / "check.json").read_text())["files"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("amazon18_office_tail", ["no column timestamp", "seq_index", "clock"]),
        ("obd_small", ["events.*", "page_id", "title", "propensity"]),
        ("completejourney_sample", ["items.*", "transactions.parquet", "household_id"]),
    ],
)
def test_folders_that_do_not_fit_explain_themselves(
    name: str, words: list[str], real_data: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["data", "check", str(real_data / name)]) == 3
    told = capsys.readouterr().err
    assert all(word in told for word in words)
