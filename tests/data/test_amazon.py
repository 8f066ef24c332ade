"""Amazon Reviews of both releases, in their own format, read from small files written here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pagellm.data.readers import check_log, read_log
from pagellm.errors import DataError

META_2018 = [
    {
        "category": ["All Beauty", "Hair"],
        "description": ["First part.", "Second part."],
        "title": "Hair &amp; Care",
        "brand": "ACME",
        "price": "$12.99",
        "main_cat": "All Beauty",
        "asin": "B0001",
        "also_buy": ["B0002"],
    },
    {"category": [], "title": "Soap", "price": "", "asin": "B0002", "details": {"weight": "1 lb"}},
    {"title": "Never reviewed", "asin": "B0003"},
]
REVIEWS_2018 = [
    {
        "overall": float(n % 5 + 1),
        "verified": True,
        "reviewTime": "09 1, 2016",
        "reviewerID": f"A{n % 3}",
        "asin": f"B000{n % 2 + 1}",
        "reviewText": "x" * 500,
        "unixReviewTime": 1_472_688_000 + 86_400 * n,
    }
    for n in range(10)
]
META_2023 = [
    {
        "main_category": "All Beauty",
        "title": "Howard LC0008",
        "average_rating": 4.8,
        "price": 12.5,
        "store": "Howard Products",
        "categories": ["Beauty", "Wax"],
        "description": [],
        "parent_asin": "B01CUPMQZE",
        "images": [{"thumb": "https://example.com/x.jpg"}],
    },
    {"title": "Comb", "price": None, "store": None, "parent_asin": "B02"},
]
REVIEWS_2023 = [
    {
        "rating": 5.0,
        "title": "Such a lovely scent",
        "asin": "B00YQ6X8EO",
        "parent_asin": "B01CUPMQZE" if n % 2 else "B02",
        "user_id": "AGKHLEW2",
        "timestamp": 1_588_687_728_923 + n,
        "verified_purchase": True,
    }
    for n in range(4)
]


def write_gz(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_2018_files(tmp_path: Path):
    write_gz(tmp_path / "All_Beauty_5.json.gz", REVIEWS_2018)
    write_gz(tmp_path / "meta_All_Beauty.json.gz", META_2018)
    log = read_log(tmp_path)
    assert log.release == "Amazon Reviews 2018 (5-core), All Beauty"
    assert log.catalog.item_ids.tolist() == ["B0001", "B0002"]  # the item that nobody reviewed is not there
    first = log.catalog.frame.row(0, named=True)
    assert (first["price"], first["brand"], first["main_category"]) == (12.99, "ACME", "All Beauty")
    assert first["categories"] == ["All Beauty", "Hair"]
    assert first["description"] == "First part. Second part."
    assert len(log.interactions) == 10
    assert log.interactions.user_ids.tolist() == ["A0", "A1", "A2"]
    assert log.interactions.time.min() == 1_472_688_000
    assert sorted(log.interactions.rating.tolist()) == sorted(r["overall"] for r in REVIEWS_2018)


def test_2023_files(tmp_path: Path):
    write_gz(tmp_path / "All_Beauty.jsonl.gz", REVIEWS_2023)
    write_gz(tmp_path / "meta_All_Beauty.jsonl.gz", META_2023)
    log = read_log(tmp_path)
    assert log.release == "Amazon Reviews 2023, All Beauty"
    assert log.catalog.item_ids.tolist() == ["B01CUPMQZE", "B02"]
    assert log.catalog.titles == ["Howard LC0008", "Comb"]
    assert log.catalog.frame["brand"].to_list() == ["Howard Products", None]
    assert log.interactions.time.tolist() == [1_588_687_728] * 4
    assert log.interactions.users == 1


def test_reviews_of_unknown_items_are_counted(tmp_path: Path):
    write_gz(tmp_path / "X.json.gz", [*REVIEWS_2018, {**REVIEWS_2018[0], "asin": "B9"}])
    write_gz(tmp_path / "meta_X.json.gz", [*META_2018, META_2018[0]])
    result = check_log(tmp_path)
    assert result.log.release == "Amazon Reviews 2018, X"
    assert {f.file: dict(f.reasons) for f in result.files} == {
        "meta_X.json.gz": {"repeated_item": 1},
        "X.json.gz": {"unknown_item": 1},
    }


def test_what_is_no_release_says_so(tmp_path: Path):
    write_gz(tmp_path / "meta_X.json.gz", META_2018)
    with pytest.raises(DataError, match="no reviews of X"):
        read_log(tmp_path)
    write_gz(tmp_path / "X.json.gz", [{"stars": 5}])
    with pytest.raises(DataError, match="2018 has reviewerID"):
        read_log(tmp_path)
    write_gz(tmp_path / "X.json.gz", REVIEWS_2018)
    (tmp_path / "meta_X.json.gz").write_bytes(gzip.compress(b"{'asin': 'B0001', 'title': 'x'}\n"))
    with pytest.raises(DataError, match="Python literals"):
        read_log(tmp_path)
    write_gz(tmp_path / "meta_Y.json.gz", META_2018)
    with pytest.raises(DataError, match="2 Amazon categories"):
        read_log(tmp_path)
