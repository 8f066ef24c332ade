"""A log in buckets of users on disk has the records and the quarantine of the same log in memory, however many buckets there are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_shops import ITEMS, T0, Rows, long_rows, page_events, page_rows, write

from pagellm.data import sound_rows, spill
from pagellm.data.bucket_reader import bucket_count, read_buckets
from pagellm.data.contexts import cut_time
from pagellm.data.lots import first_by_lot, id_keys
from pagellm.data.quarantine import Quarantine
from pagellm.data.readers import check_log, read_log
from pagellm.data.spill import Spill, buckets_of
from pagellm.errors import DataError, UsageError
from pagellm.types import Impressions, Interactions


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches, spans and pieces even in a small log."""
    monkeypatch.setattr(sound_rows, "_BATCH_ROWS", 7)
    monkeypatch.setattr(sound_rows, "SPAN_ROWS", 10)
    monkeypatch.setattr("pagellm.data.log_buckets.SPAN_ROWS", 10)
    monkeypatch.setattr(spill, "HELD_BYTES", 2_000)


def faulty(long: bool) -> tuple[Rows, Rows]:
    """Pages and events with every fault that only other rows show, and some that one row shows."""
    pages, events = page_rows(), page_events()
    pages[3]["slots"][4]["item_id"] = "SKU/99"  # type: ignore[index]
    pages[5]["slots"][2]["col"] = 0  # type: ignore[index]
    rows = long_rows(pages) if long else [*pages, pages[2], {**pages[7], "user_id": "u9"}]
    if long:
        rows[8] = {**rows[8], "user_id": "someone else"}
        rows = rows[60:] + rows[:60]  # pages out of order
    click = {"event": "select_item", "user_id": "u1", "timestamp": T0 + 4000}
    again = {**next(e for e in events if e["event_id"] == "b0"), "event_id": "new"}
    more: Rows = [
        *(events[1], events[3], {**events[1], "timestamp": T0 + 6}, again),
        {**click, "page_id": "p1", "item_id": "SKU/2", "timestamp": T0},
        {**click, "page_id": "p1", "slot_id": "r9c9"},
        {**click, "page_id": "nowhere", "slot_id": "r0c1"},
        {**click, "page_id": "nowhere", "item_id": "SKU/1", "user_id": None},
        {**click, "page_id": "p4", "item_id": "SKU/4", "user_id": None},  # its page says who
        {**click, "page_id": "p6", "item_id": "SKU/8", "user_id": "not the user of p6"},
        {**click, "page_id": "nowhere", "item_id": "SKU/1"},
        {**click, "item_id": "SKU/3", "event": "jump"},
        {**click, "item_id": "SKU/3"},
    ]
    return rows, [*events, *more]


def acts(log: Interactions) -> Counter[tuple[object, ...]]:
    columns = (log.user_ids[log.user], log.item, log.time, log.basket, log.event, log.rating, log.value)
    return Counter((*map(str, row),) for row in zip(*(c.tolist() for c in columns), strict=True))


def shown(pages: Impressions, user_ids: np.ndarray) -> dict[str, str]:
    """{page: all that is known of it, as text}."""
    names = ("item", "row", "col", "propensity", "viewed", "clicked", "carted", "purchased", "value")
    out = {}
    for p, page_id in enumerate(pages.page_ids.tolist()):
        slots = slice(pages.offsets[p], pages.offsets[p + 1])
        told = [getattr(pages, name)[slots].tolist() for name in names]
        out[page_id] = f"{user_ids[pages.user[p]]} {pages.time[p]} {pages.policy[p]} {told}"
    return out


@pytest.mark.parametrize("form", ["parquet", "ndjson"])
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("count", [1, 8])
def test_buckets_hold_the_records_and_the_quarantine_of_the_whole_log(form: str, long: bool, count: int, tmp_path: Path) -> None:
    pages, events = faulty(long)
    write(tmp_path / "shop", form, items=ITEMS, impressions=pages, events=events)
    whole = check_log(tmp_path / "shop", max_reject_share=1.0, quarantine=tmp_path / "whole.ndjson")
    (tmp_path / "scratch").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pagellm.data.bucket_reader.MAX_REJECT_SHARE", 1.0)
        with Quarantine(tmp_path / "buckets.ndjson") as store:
            buckets = read_buckets(tmp_path / "shop", tmp_path / "scratch", count, store)
    for file in whole.files:
        mine = store.files[file.file]
        assert (mine.rows, mine.accepted, mine.reasons) == (file.rows, file.accepted, file.reasons)
        assert mine.rows == mine.accepted + mine.quarantined
    told = [sorted((tmp_path / f"{name}.ndjson").read_text().splitlines()) for name in ("whole", "buckets")]
    assert told[0] == told[1]
    assert len({(row["file"], row["row"]) for row in map(json.loads, told[1])}) == len(told[1]) >= 12
    found, seen, users = Counter[tuple[object, ...]](), dict[str, str](), list[np.uint64]()
    for log, part in buckets:
        found += acts(log)
        seen |= shown(part, log.user_ids)
        users += sorted(id_keys(log.user_ids))
        assert (np.diff(part.time) >= 0).all()
    assert found == acts(whole.log.interactions)
    assert whole.log.impressions is not None
    assert seen == shown(whole.log.impressions, whole.log.interactions.user_ids)
    assert users == sorted(set(users)), "each user in one bucket, buckets in order of keys"
    for share in (0, 0.3, 0.5, 0.99, 1):
        assert buckets.cut_time(share) == cut_time(whole.log.interactions, share)
    buckets.close()
    assert not list((tmp_path / "scratch").iterdir()), "nothing stays on disk"


def test_what_read_log_refuses_is_refused(tmp_path: Path) -> None:
    pages, events = faulty(long=False)
    cases = {
        "too_many_rejected": (pages, events),
        "no_positive_feedback": (page_rows(), [e for e in page_events() if e["event"] == "page_view"]),
        "no_pages": ([], page_events()),
        "no_feedback_on_pages": (
            page_rows(),
            [{**e, "page_id": None if n % 2 else "another"} for n, e in enumerate(page_events())],
        ),
        "several_currencies": (
            page_rows(),
            [{**e, "currency": "USD"} if e.get("event_id") == "b2" else e for e in page_events()],
        ),
    }
    for code, (rows, happened) in cases.items():
        folder, scratch = write(tmp_path / code, "ndjson", items=ITEMS, impressions=rows, events=happened), tmp_path / f"{code}-s"
        scratch.mkdir()
        with pytest.raises(DataError, match=code) as whole:
            read_log(folder)
        with pytest.raises(DataError, match=code) as parted, Quarantine(None) as store:
            read_buckets(folder, scratch, 2, store)
        assert str(whole.value).partition(" (errors beside it")[0] == str(parted.value), "in the same words"


def test_buckets_grow_in_number_with_the_log(tmp_path: Path) -> None:
    assert bucket_count(write(tmp_path, "parquet", impressions=page_rows())) == 1
    with (tmp_path / "impressions.parquet").open("ab") as file:
        file.truncate(100 * 2**20)
    assert bucket_count(tmp_path) == 128
    (tmp_path / "events.csv").write_bytes(b"")
    with (tmp_path / "events.csv").open("ab") as file:
        file.truncate(900 * 2**20)
    assert bucket_count(tmp_path) == 1024


def test_a_spill_gives_back_what_came_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spilled, came = Spill(tmp_path / "rows", {"n": pl.Int64(), "text": pl.String()}), {0: [], 3: [], 9: []}
    for begin in range(0, 500, 10):
        where = rng.choice(list(came), 10)
        spilled.add(pl.DataFrame({"n": np.arange(begin, begin + 10), "text": ["x"] * 10}), where)
        for n, bucket in enumerate(where.tolist(), begin):
            came[bucket].append(n)
    assert (tmp_path / "rows").stat().st_size > 0
    assert spilled.buckets == [0, 3, 9]
    assert all(spilled.read(bucket)["n"].to_list() == numbers for bucket, numbers in came.items())
    assert spilled.read(5).height == 0
    spilled.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--scratch"):
        Spill(tmp_path / "nowhere" / "rows", {"n": pl.Int64()})

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    spilled = Spill(tmp_path / "rows", {"n": pl.Int64()})
    monkeypatch.setattr(spilled, "_file", type("Full", (), {"seek": full, "close": lambda self: None})())
    with pytest.raises(UsageError, match=r"No space left on device.*--scratch"):
        spilled.add(pl.DataFrame({"n": range(1000)}), [0] * 1000)
    spilled.close()


def test_keys_of_ids_follow_the_text_alone_and_buckets_follow_keys() -> None:
    ids = np.array(["a", "b", "ab", "ba", "", "ä", "user 17"])
    keys = id_keys(ids)
    assert len(set(keys.tolist())) == len(ids)
    np.testing.assert_array_equal(keys, id_keys(ids.astype("<U40")), "the array's width says nothing")
    many = np.sort(id_keys(np.array([f"u{n}" for n in range(20_000)])))
    for count in (1, 2, 64):
        where = buckets_of(many, count)
        assert (np.diff(where) >= 0).all()
        sizes = np.bincount(where, minlength=count)
        assert len(sizes) == count
        assert sizes.min() > 0.7 * sizes.mean()


def test_the_lowest_lots_of_each_key_stay() -> None:
    key, lot = np.array([5, 5, 7, 5, 7, 5]), np.array([9, 2, 4, 2, 1, 8], np.uint64)
    np.testing.assert_array_equal(first_by_lot(key, lot, 1), [False, True, False, False, True, False])
    np.testing.assert_array_equal(first_by_lot(key, lot, 2), [False, True, True, True, True, False])
    assert first_by_lot(key[:0], lot[:0], 1).size == 0
