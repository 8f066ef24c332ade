"""No row is lost without a trace: 100,000 malformed rows of many kinds, and the sums are exact to the row."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from data_shops import INTERACTIONS, ITEMS, T0, as_csv, long_rows, page_events, page_rows, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagellm.data.readers import Checked, check_log, read_log
from pagellm.errors import DataError

Row = dict[str, object]
GOOD: Row = {
    "user_id": "u1",
    "item_id": "SKU/1",
    "timestamp": T0,
    "event": "purchase",
    "rating": 4,
    "value": 2.5,
    "currency": "EUR",
}


def line(row: object) -> bytes:
    return json.dumps(row).encode()


def put(name: str, value: object) -> Callable[[random.Random], bytes]:
    return lambda rng: line({**GOOD, name: value})


def raw(text: bytes, name: str) -> Callable[[random.Random], bytes]:
    """The good row with this JSON text in place of a value."""
    return lambda rng: line({**GOOD, name: "@@"}).replace(b'"@@"', text)


def drop(name: str) -> Callable[[random.Random], bytes]:
    return lambda rng: line({k: v for k, v in GOOD.items() if k != name})


def cut(rng: random.Random) -> bytes:
    whole = line(GOOD)
    return whole[: rng.randrange(1, len(whole) - 1)]


def swap(rng: random.Random) -> bytes:
    return line({**GOOD, "user_id": GOOD["timestamp"], "timestamp": GOOD["user_id"]})


def noise(rng: random.Random) -> bytes:
    return bytes(b for b in rng.randbytes(40) if b not in b"\n\r\t\v\f \x1c\x1d\x1e\x1f\x85") or b"?"


MUTATORS: dict[str, tuple[Callable[[random.Random], bytes], str]] = {
    "nan time": (raw(b"NaN", "timestamp"), "bad_timestamp"),
    "infinite time": (raw(b"1e400", "timestamp"), "bad_timestamp"),
    "infinite rating": (raw(b"1e400", "rating"), "bad_rating"),
    "minus infinite value": (raw(b"-Infinity", "value"), "bad_value"),
    "value beyond 32 bits": (put("value", 1e300), "bad_value"),
    "rating in words": (put("rating", "four"), "bad_rating"),
    "rating as a list": (put("rating", [4]), "bad_rating"),
    "bad utf-8": (raw(b'"\xff\xfe"', "item_id"), "bad_utf8"),
    "cut utf-8": (raw(b'"\xe2\x82"', "user_id"), "bad_utf8"),
    "lone surrogate": (raw(b'"\\ud800"', "user_id"), "bad_user_id"),
    "nul byte": (raw(b'"u\\u0000"', "user_id"), "bad_user_id"),
    "escape sequence": (raw(b'"\\u001b[2J"', "user_id"), "bad_user_id"),
    "id of a kilobyte": (put("user_id", "u" * 1024), "bad_user_id"),
    "id as an object": (put("user_id", {"id": 1}), "bad_user_id"),
    "empty id": (put("user_id", ""), "missing_user_id"),
    "null id": (put("user_id", None), "missing_user_id"),
    "no user": (drop("user_id"), "missing_user_id"),
    "no item": (drop("item_id"), "missing_item_id"),
    "no time": (drop("timestamp"), "missing_timestamp"),
    "unknown item": (put("item_id", "SKU/404"), "unknown_item"),
    "item as a list": (put("item_id", ["SKU/1"]), "bad_item_id"),
    "negative time": (put("timestamp", -T0), "time_out_of_range"),
    "zero time": (put("timestamp", 0), "time_out_of_range"),
    "future time": (put("timestamp", 4_102_444_800), "time_out_of_range"),
    "far future": (put("timestamp", "9999-12-31T23:59:59Z"), "time_out_of_range"),
    "no such day": (put("timestamp", "2023-02-30"), "bad_timestamp"),
    "time in words": (put("timestamp", "yesterday"), "bad_timestamp"),
    "time as truth": (put("timestamp", True), "bad_timestamp"),
    "huge integer": (raw(b"1" * 400, "timestamp"), "bad_timestamp"),
    "integer of 5,000 digits": (raw(b"1" * 5000, "timestamp"), "bad_json"),
    "swapped columns": (swap, "bad_timestamp"),
    "unknown event": (put("event", "jump"), "unknown_event"),
    "event as a number": (put("event", 7), "unknown_event"),
    "a page view": (put("event", "page_view"), "not_an_engagement"),
    "negative basket": (put("basket_index", -1), "bad_basket_index"),
    "broken basket": (put("basket_index", 1.5), "bad_basket_index"),
    "huge basket": (put("basket_index", 2**40), "bad_basket_index"),
    "an array": (lambda rng: b"[1, 2, 3]", "not_an_object"),
    "a number": (lambda rng: b"17", "not_an_object"),
    "a null": (lambda rng: b"null", "not_an_object"),
    "nested bomb": (lambda rng: b"[" * 20_000 + b"]" * 20_000, "nested_too_deep"),
    "nested value": (lambda rng: b'{"user_id":' * 20_000 + b"1" + b"}" * 20_000, "nested_too_deep"),
    "cut line": (cut, "bad_json"),
    "two objects": (lambda rng: line(GOOD) + line(GOOD), "bad_json"),
    "not json": (lambda rng: b"user_id=1", "bad_json"),
    "single quotes": (lambda rng: b"{'user_id': 'u1'}", "bad_json"),
}
HEAVY = {"nested bomb", "nested value", "integer of 5,000 digits"}


def assert_exact(result: Checked, store: Path, rows: dict[str, int]) -> None:
    for file in result.files:
        assert file.rows == file.accepted + file.quarantined == rows[file.file]
    told = [json.loads(text) for text in store.read_text().splitlines()] if store.exists() else []
    assert len(told) == sum(f.quarantined for f in result.files)
    assert len({(t["file"], t["row"]) for t in told}) == len(told)


def test_a_hundred_thousand_malformed_rows(tmp_path: Path):
    rng = random.Random(11)
    light = [name for name in MUTATORS if name not in HEAVY]
    names = [rng.choice(light) for _ in range(100_000)] + [name for name in HEAVY for _ in range(20)]
    rng.shuffle(names)
    lines, expected = [], {}
    for name in names:
        if rng.randrange(2):
            lines.append(line({**GOOD, "user_id": f"u{rng.randrange(1000)}"}))
        mutate, reason = MUTATORS[name]
        lines.append(mutate(rng))
        expected[len(lines)] = (reason, hashlib.sha256(lines[-1]).hexdigest())
    assert len(MUTATORS) >= 40
    assert set(names) == set(MUTATORS)
    write(tmp_path, "csv", items=ITEMS)
    (tmp_path / "interactions.ndjson.gz").write_bytes(gzip.compress(b"\n".join(lines) + b"\n", 1))
    store = tmp_path / "bad.ndjson"
    result = check_log(tmp_path, quarantine=store)
    assert_exact(result, store, {"items.csv": 12, "interactions.ndjson.gz": len(lines)})
    assert len(result.log.interactions) == len(lines) - len(expected)
    told = {t["row"]: (t["reason"], t["sha256"]) for t in map(json.loads, store.read_text().splitlines())}
    assert told == expected
    assert [f.code for f in result.errors] == ["too_many_rejected"]
    assert str(store) in result.errors[0].message


CSV_MUTATORS: list[Callable[[str, random.Random], bytes]] = [
    lambda row, rng: (row + ",extra").encode(),
    lambda row, rng: row.rpartition(",")[0].encode(),
    lambda row, rng: b"".join(row.encode().partition(b",")[:1]),
    lambda row, rng: row.replace("SKU", '"SKU').encode(),
    lambda row, rng: row.replace("SKU", 'S"KU').encode(),
    lambda row, rng: row.encode() + b"\x00",
    lambda row, rng: row.encode().replace(b"SKU", b"\xff\xfe"),
    lambda row, rng: row.replace(str(T0), "1e400").encode(),
    lambda row, rng: row.replace(str(T0), "nan").encode(),
    lambda row, rng: row.replace(str(T0), "-5").encode(),
    lambda row, rng: row.replace("u1", "").encode(),
    lambda row, rng: noise(rng),
    lambda row, rng: ",".join(reversed(row.split(","))).encode(),
]


def test_malformed_csv_rows_keep_the_sum(tmp_path: Path):
    rng = random.Random(5)
    head, good, _ = as_csv([GOOD]).split("\r\n")
    lines = []
    good_rows = 0
    for _ in range(20_000):
        if rng.random() < 0.3:
            lines.append(good.encode())
            good_rows += 1
        else:
            lines.append(rng.choice(CSV_MUTATORS)(good, rng))
    write(tmp_path, "csv", items=ITEMS)
    (tmp_path / "interactions.csv").write_bytes(head.encode() + b"\r\n" + b"\r\n".join(lines))
    store = tmp_path / "bad.ndjson"
    result = check_log(tmp_path, quarantine=store)
    assert_exact(result, store, {"items.csv": 12, "interactions.csv": len(lines)})
    assert len(result.log.interactions) == good_rows
    known = {
        "bad_currency",
        "wrong_number_of_fields",
        "bad_quotes",
        "bad_utf8",
        "bad_timestamp",
        "time_out_of_range",
        "missing_user_id",
    }
    assert known <= set(result.files[1].reasons)


def test_items_may_run_over_lines_and_broken_quotes_cost_one_line(tmp_path: Path):
    text = 'item_id,title\na,"two\nlines"\nb,"open\nc,plain\nd,"x ""y"" z"\ne,"three\nlong\nlines"\n'
    (tmp_path / "items.csv").write_text(text)
    write(tmp_path, "csv", interactions=[{"user_id": "u", "item_id": "a", "timestamp": T0}])
    result = check_log(tmp_path, max_reject_share=1)
    assert result.log.catalog.item_ids.tolist() == ["a", "c", "d", "e"]
    assert result.log.catalog.frame["title"].to_list()[0] == "two\nlines"
    assert (result.files[0].rows, result.files[0].accepted) == (5, 4)


def test_items_that_come_twice(tmp_path: Path):
    items = [*ITEMS, ITEMS[0], {**ITEMS[1], "title": "another"}]
    result = check_log(write(tmp_path, "ndjson", items=items, interactions=INTERACTIONS), max_reject_share=1)
    assert dict(result.files[0].reasons) == {"repeated_item": 1, "duplicate_item": 1}
    assert result.files[0].reject_share == pytest.approx(1 / 14)
    assert len(result.log.catalog) == 12


def test_a_damaged_optional_field_leaves_the_item(tmp_path: Path):
    items = [{**ITEMS[0], "price": "cheap", "hidden": "perhaps"}, {**ITEMS[1], "price": "$1,299.50"}, *ITEMS[2:]]
    write(tmp_path, "csv", items=items, interactions=INTERACTIONS)
    result = check_log(tmp_path)
    assert {"damaged_price", "damaged_hidden"} <= {f.code for f in result.findings}
    assert result.log.catalog.frame["price"].to_list()[:2] == [None, 1299.5]


def test_the_share_that_stops_a_run_can_be_set(tmp_path: Path):
    rows = [*INTERACTIONS, {**INTERACTIONS[0], "item_id": "none"}]
    write(tmp_path, "csv", items=ITEMS, interactions=rows)
    with pytest.raises(DataError, match=r"1 of 61 rows \(1\.6%\).*more than 1\.0%.*unknown_item 1"):
        read_log(tmp_path)
    with pytest.raises(DataError, match=r"Top reasons.*bad\.ndjson"):
        read_log(tmp_path, quarantine=tmp_path / "bad.ndjson")
    (tmp_path / "bad.ndjson").unlink()
    assert len(read_log(tmp_path, max_reject_share=0.02).interactions) == 60
    assert not (tmp_path / "bad.ndjson").exists()


def test_excerpts_are_safe_to_print(tmp_path: Path):
    (tmp_path / "interactions.ndjson").write_bytes(line(GOOD) + b"\n\x1b[2J\xe2\x80\xae<script>\x07\n")
    write(tmp_path, "csv", items=ITEMS)
    check_log(tmp_path, quarantine=tmp_path / "bad.ndjson")
    told = json.loads((tmp_path / "bad.ndjson").read_text())
    assert told["excerpt"].isascii()
    assert told["excerpt"].isprintable()
    assert "<script>" in told["excerpt"]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([T0, "u1", "SKU/1", math.nan]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
rows = st.dictionaries(st.sampled_from([*GOOD, "basket_index", "slots", "x"]), values, max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows | values, max_size=12))
def test_no_json_crashes_it(tmp_path: Path, drawn):
    write(tmp_path, "csv", items=ITEMS)
    told = [line(GOOD), *(json.dumps(row).encode() for row in drawn)]
    (tmp_path / "interactions.ndjson").write_bytes(b"\n".join(told))
    store = tmp_path / "bad.ndjson"
    assert_exact(check_log(tmp_path, quarantine=store), store, {"items.csv": 12, "interactions.ndjson": len(told)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=60), max_size=12), st.sampled_from(["csv", "ndjson"]), st.sampled_from(["items", "interactions"])
)
def test_no_bytes_crash_it(tmp_path: Path, drawn, form, table):
    for old in tmp_path.iterdir():
        old.unlink()
    write(tmp_path, "csv", items=ITEMS, interactions=INTERACTIONS)
    (tmp_path / f"{table}.csv").unlink()
    head = {"items": b"item_id,title,price\n", "interactions": b"user_id,item_id,timestamp\n"}[table] if form == "csv" else b""
    (tmp_path / f"{table}.{form}").write_bytes(head + b"\n".join(drawn))
    try:
        result = check_log(tmp_path)
    except DataError:
        return
    assert all(f.rows == f.accepted + f.quarantined for f in result.files)


names = [*("page_id", "timestamp", "user_id", "slots", "item_id", "row", "col", "propensity", "viewed", "slot_id")]
names += [*("event", "event_id", "value", "currency", "order_id", "rating")]
few = values | st.sampled_from(["p1", "p2", "r0c1", "select_item", "purchase", 0, 1, 0.5, [{"item_id": "SKU/1", "col": 0}]])
loose_rows = st.lists(st.dictionaries(st.sampled_from(names), few, max_size=12), max_size=10)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loose_rows, loose_rows, st.booleans())
def test_no_page_log_crashes_it(tmp_path: Path, shown, happened, long):
    write(tmp_path, "csv", items=ITEMS)
    pages, events = (long_rows(page_rows(3)) if long else page_rows(3)), page_events(3)
    for name, table in (("impressions", [*pages, *shown]), ("events", [*events, *happened])):
        (tmp_path / f"{name}.ndjson").write_text("".join(json.dumps(row) + "\n" for row in table))
    store = tmp_path / "bad.ndjson"
    counts = {"items.csv": 12, "impressions.ndjson": len(pages) + len(shown), "events.ndjson": len(events) + len(happened)}
    assert_exact(check_log(tmp_path, quarantine=store), store, counts)


KINDS = {
    "text": ["a"] * 3,
    "empty": [None] * 3,
    "integers": [1, 2, 2**62],
    "floats": [1.5, float("nan"), float("inf")],
    "truth": [True, False, None],
    "dates": [datetime(2020, 1, 1), datetime(1, 1, 1), None],
    "lists": [[1], [], None],
    "records": [{"a": 1}, {"a": None}, None],
    "lists of records": [[{"item_id": "SKU/1", "col": 0}], [], None],
    "bytes": [b"\xff", b"u", None],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", ["items", "users", "interactions", "impressions", "events"])
def test_no_type_of_a_parquet_column_crashes_it(kind: str, table: str, tmp_path: Path):
    pages = table in ("impressions", "events")
    tables = {"impressions": page_rows(3), "events": page_events(3)} if pages else {"interactions": INTERACTIONS}
    tables |= {"items": ITEMS, "users": [{"user_id": f"u{n}", "country": "DE"} for n in range(3)]}
    write(tmp_path, "parquet", **tables)
    whole = pl.read_parquet(tmp_path / f"{table}.parquet").head(3)
    for column in whole.columns:
        whole.with_columns(pl.Series(column, KINDS[kind])).write_parquet(tmp_path / f"{table}.parquet")
        try:
            result = check_log(tmp_path, quarantine=tmp_path / "bad.ndjson")
        except DataError as error:
            told = str(error)
            assert table in told, told
            continue
        assert all(f.rows == f.accepted + f.quarantined for f in result.files)
