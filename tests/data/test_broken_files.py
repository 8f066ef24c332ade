"""Files that cannot be read on: each is one clear error that names the file, never a crash and never a short log."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from data_shops import INTERACTIONS, ITEMS, T0, as_csv, page_events, page_rows, write

from pagellm.data.lines import LINE_BYTES
from pagellm.data.readers import check_log, read_log
from pagellm.errors import DataError


def test_a_gzip_that_ends_early(tmp_path: Path):
    write(tmp_path, "csv", items=ITEMS)
    rng = random.Random(1)
    rows = [{"user_id": f"u{rng.random()}", "item_id": "SKU/1", "timestamp": T0} for _ in range(5000)]
    whole = gzip.compress(as_csv(rows).encode())
    for keep in (5, 100, len(whole) // 2, len(whole) - 4):
        (tmp_path / "interactions.csv.gz").write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"interactions\.csv\.gz.*line [\d,]+ \(byte [\d,]+"):
            read_log(tmp_path)


def test_a_gzip_that_is_damaged_or_none(tmp_path: Path):
    write(tmp_path, "csv.gz", items=ITEMS, interactions=INTERACTIONS)
    path = tmp_path / "interactions.csv.gz"
    data = bytearray(path.read_bytes())
    for place in range(30, len(data) - 8, 40):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="truncated or damaged"):
        read_log(tmp_path)
    path.write_bytes(b"user_id,item_id\n")
    with pytest.raises(DataError, match="truncated or damaged"):
        read_log(tmp_path)


def test_a_parquet_that_is_cut_or_damaged(tmp_path: Path):
    write(tmp_path, "parquet", items=ITEMS, interactions=INTERACTIONS)
    path = tmp_path / "interactions.parquet"
    whole = path.read_bytes()
    rng = random.Random(2)
    for keep in (0, 3, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match=r"interactions\.parquet cannot be read as Parquet after row"):
            read_log(tmp_path)
    survived = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            result = check_log(tmp_path)
        except DataError:
            continue
        survived += 1
        assert all(f.rows == f.accepted + f.quarantined for f in result.files)
    assert survived < 60


def test_files_without_rows_or_header(tmp_path: Path):
    write(tmp_path, "csv", items=ITEMS)
    path = tmp_path / "interactions.csv"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"interactions\.csv is empty"):
        read_log(tmp_path)
    path.write_bytes(b"user_id,item_id,timestamp\n")
    with pytest.raises(DataError, match="no_positive_feedback"):
        read_log(tmp_path)
    path.write_bytes(b"\xff\xfeu\x00s\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_log(tmp_path)
    path.unlink()
    (tmp_path / "interactions.ndjson").write_bytes(b"\n \n")
    with pytest.raises(DataError, match="no_positive_feedback"):
        read_log(tmp_path)
    (tmp_path / "items.csv").write_bytes(b"item_id,title\n")
    with pytest.raises(DataError, match=r"items\.csv holds no usable item"):
        read_log(tmp_path)


def test_a_page_log_without_pages(tmp_path: Path):
    broken = [{**page, "slots": "nothing"} for page in page_rows()]
    write(tmp_path, "ndjson", items=ITEMS, impressions=broken, events=page_events())
    with pytest.raises(DataError, match="too_many_rejected"):
        read_log(tmp_path)
    result = check_log(tmp_path)
    assert dict(result.files[1].reasons) == {"bad_slots": 20}
    assert "no_pages" in {f.code for f in result.errors}


def test_a_line_that_never_ends_costs_itself_alone(tmp_path: Path):
    write(tmp_path, "csv", items=ITEMS)
    good = b'{"user_id": "u", "item_id": "SKU/1", "timestamp": 1700000000}\n'
    giant = b'{"user_id": "' + b"x" * (3 * LINE_BYTES) + b'"}\n'
    endless = b'{"user_id": "' + b"x" * (9 * LINE_BYTES) + b'"}\n'
    (tmp_path / "interactions.ndjson.gz").write_bytes(gzip.compress(good + giant + good + endless + good * 2, 1))
    store = tmp_path / "bad.ndjson"
    result = check_log(tmp_path, max_reject_share=1, quarantine=store)
    file = result.files[1]
    assert (file.rows, file.accepted, dict(file.reasons)) == (6, 4, {"line_too_long": 2})
    assert [f'"row": {n},' in text for n, text in zip((2, 4), store.read_text().splitlines(), strict=True)] == [True, True]


def test_a_mark_at_the_beginning_and_windows_lines_are_no_fault(tmp_path: Path):
    write(tmp_path, "csv", items=ITEMS)
    (tmp_path / "interactions.csv").write_bytes(b"\xef\xbb\xbfuser_id;item_id;timestamp\r\nu;SKU/1;1700000000\r\n\r\n")
    assert read_log(tmp_path).interactions.user_ids.tolist() == ["u"]
