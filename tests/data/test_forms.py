"""The forms of the contract mean the same records: equal arrays, equal fingerprint."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_shops import INTERACTIONS, ITEMS, T0, Rows, long_rows, page_events, page_rows, write

from pagellm.data.log import Log
from pagellm.data.readers import read_log
from pagellm.errors import DataError
from pagellm.types import Event

FORMS = ("parquet", "csv", "csv.gz", "ndjson", "ndjson.gz", "jsonl", "jsonl.gz")


def assert_same(one: Log, two: Log) -> None:
    assert one.catalog.frame.equals(two.catalog.frame)
    for a, b in ((one.interactions, two.interactions), (one.impressions, two.impressions)):
        assert (a is None) == (b is None)
        for spec in fields(a) if a is not None else ():
            np.testing.assert_array_equal(getattr(a, spec.name), getattr(b, spec.name), err_msg=spec.name)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("form", FORMS)
def test_review_logs_are_equal_in_every_form(form, tmp_path: Path):
    truth = read_log(write(tmp_path / "a", "parquet", items=ITEMS, interactions=INTERACTIONS))
    assert_same(read_log(write(tmp_path / "b", form, items=ITEMS, interactions=INTERACTIONS)), truth)


@pytest.mark.parametrize("form", FORMS)
def test_page_logs_are_equal_in_every_form(form, tmp_path: Path):
    pages, events = page_rows(), page_events()
    truth = read_log(write(tmp_path / "a", "parquet", items=ITEMS, impressions=pages, events=events))
    shown = long_rows(pages) if "csv" in form else pages
    assert_same(read_log(write(tmp_path / "b", form, items=ITEMS, impressions=shown, events=events)), truth)
    slots_by_id = [
        {k: v for k, v in row.items() if k not in ("row", "col")} | {"slot_id": f"r{row['row']}c{row['col']}"}
        for row in long_rows(pages)
    ]
    assert_same(read_log(write(tmp_path / "c", form, items=ITEMS, impressions=slots_by_id, events=events)), truth)


def test_a_csv_may_hold_slots_as_json(tmp_path: Path):
    pages, events = page_rows(), page_events()
    truth = read_log(write(tmp_path / "a", "parquet", items=ITEMS, impressions=pages, events=events))
    told: Rows = [{**page, "slots": json.dumps(page["slots"])} for page in pages]
    assert_same(read_log(write(tmp_path / "b", "csv", items=ITEMS, impressions=told, events=events)), truth)


def test_the_order_of_the_log_means_nothing(tmp_path: Path):
    pages, events = long_rows(page_rows()), page_events()
    truth = read_log(write(tmp_path / "a", "ndjson", items=ITEMS, impressions=pages, events=events))
    random.Random(3).shuffle(pages)
    random.Random(4).shuffle(events)
    assert_same(read_log(write(tmp_path / "b", "csv", items=ITEMS, impressions=pages, events=events)), truth)
    mixed = INTERACTIONS.copy()
    random.Random(5).shuffle(mixed)
    one = read_log(write(tmp_path / "c", "csv", items=ITEMS, interactions=INTERACTIONS))
    assert_same(read_log(write(tmp_path / "d", "csv", items=ITEMS, interactions=mixed)), one)


def test_any_difference_shows_in_the_fingerprint(tmp_path: Path):
    truth = read_log(write(tmp_path / "a", "csv", items=ITEMS, interactions=INTERACTIONS)).fingerprint
    seen = {truth}
    for n, (column, value) in enumerate(
        {"rating": 2.0, "timestamp": T0 + 1, "item_id": "SKU/3", "user_id": "u4", "value": 1}.items()
    ):
        changed = [{**INTERACTIONS[0], column: value, "currency": "EUR"}, *INTERACTIONS[1:]]
        seen.add(read_log(write(tmp_path / str(n), "csv", items=ITEMS, interactions=changed)).fingerprint)
    renamed = [{**ITEMS[0], "title": "Other"}, *ITEMS[1:]]
    seen.add(read_log(write(tmp_path / "z", "csv", items=renamed, interactions=INTERACTIONS)).fingerprint)
    assert len(seen) == 7


def test_records_by_hand(tmp_path: Path):
    rows: Rows = [
        {"user_id": "b", "item_id": "SKU/1", "timestamp": T0 + 86_400, "event": "buy"},
        {"user_id": "a", "item_id": "SKU/2", "timestamp": T0 + 60, "event": "click"},
        {"user_id": "b", "item_id": "SKU/4", "timestamp": T0 + 10, "event": "view_item"},
        {"user_id": "b", "item_id": "SKU/0", "timestamp": T0 + 10, "event": "add_to_cart"},
    ]
    log = read_log(write(tmp_path, "ndjson", items=ITEMS, interactions=rows)).interactions
    assert log.user_ids.tolist() == ["a", "b"]
    assert log.user.tolist() == [0, 1, 1, 1]
    assert log.item.tolist() == [2, 0, 4, 1]
    assert log.basket.tolist() == [0, 0, 0, 1]
    assert log.event.tolist() == [Event.SELECT_ITEM, Event.ADD_TO_CART, Event.VIEW_ITEM, Event.PURCHASE]
    assert np.isnan(log.rating).all()


def test_a_log_without_kinds_holds_interactions_and_integers_may_be_ids(tmp_path: Path):
    items = pl.DataFrame({"item_id": [10, 11], "title": ["a", "b"]})
    log = pl.DataFrame({"user_id": [7, 7], "item_id": [11, 10], "timestamp": [T0, T0], "basket_index": [0, 0]})
    (tmp_path / "p").mkdir()
    items.write_parquet(tmp_path / "p" / "items.parquet")
    log.write_parquet(tmp_path / "p" / "interactions.parquet")
    one = read_log(tmp_path / "p")
    assert one.interactions.user_ids.tolist() == ["7"]
    assert one.interactions.event.tolist() == [Event.INTERACTION] * 2
    assert_same(read_log(write(tmp_path / "n", "ndjson", items=items.to_dicts(), interactions=log.to_dicts())), one)
    assert_same(read_log(write(tmp_path / "c", "csv", items=items.to_dicts(), interactions=log.to_dicts())), one)


def test_names_of_other_systems_are_understood(tmp_path: Path):
    gorse: Rows = [{"ItemId": i["item_id"], "Categories": i["categories"], "Name": i["title"]} for i in ITEMS]
    ga4: Rows = [
        {"user_pseudo_id": r["user_id"], "sku": r["item_id"], "event_timestamp": int(str(r["timestamp"])) * 1_000_000}
        for r in INTERACTIONS
    ]
    plain: Rows = [{"item_id": i["item_id"], "categories": i["categories"], "title": i["title"]} for i in ITEMS]
    ours: Rows = [{k: r[k] for k in ("user_id", "item_id", "timestamp")} for r in INTERACTIONS]
    truth = read_log(write(tmp_path / "a", "csv", items=plain, interactions=ours))
    assert_same(read_log(write(tmp_path / "b", "ndjson", items=gorse, interactions=ga4)), truth)


def test_every_clock_means_the_same_second(tmp_path: Path):
    clocks = [
        T0,
        T0 * 1000,
        T0 * 10**6,
        T0 * 10**9,
        "2023-11-14T22:13:20Z",
        "2023-11-14 23:13:20+01:00",
        "2023-11-14T22:13:20.75",
    ]
    rows: Rows = [{"user_id": "u", "item_id": "SKU/1", "timestamp": str(c)} for c in clocks]
    for form in ("csv", "ndjson", "parquet"):
        log = read_log(write(tmp_path / form, form, items=ITEMS, interactions=rows)).interactions
        assert log.time.tolist() == [T0] * len(clocks)
    dates = pl.DataFrame({"user_id": ["u"], "item_id": ["SKU/1"], "timestamp": [T0]}).with_columns(
        pl.from_epoch("timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    )
    write(tmp_path / "d", "parquet", items=ITEMS)
    dates.write_parquet(tmp_path / "d" / "interactions.parquet")
    assert read_log(tmp_path / "d").interactions.time.tolist() == [T0]


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"There is no data folder"):
        read_log(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no items\.\* and no interactions"):
        read_log(write(tmp_path / "a", "csv", products=ITEMS))
    with pytest.raises(DataError, match=r"has no events\.\*"):
        read_log(write(tmp_path / "b", "csv", items=ITEMS, impressions=long_rows(page_rows())))
    order: Rows = [{"user_id": "u", "item_id": "SKU/1", "seq_index": 1}]
    for form in ("csv", "ndjson", "parquet"):
        with pytest.raises(DataError, match=r"no column timestamp.*user_id, item_id, seq_index.*no time"):
            read_log(write(tmp_path / f"c{form}", form, items=ITEMS, interactions=order))
    twice = write(tmp_path / "d", "csv", items=ITEMS, interactions=INTERACTIONS)
    with pytest.raises(DataError, match="2 times"):
        read_log(write(twice, "ndjson", items=ITEMS))


def test_users_and_layout_come_along(tmp_path: Path):
    folder = write(tmp_path, "csv", items=ITEMS, interactions=INTERACTIONS, users=[{"user_id": "u1", "country": "DE"}])
    (folder / "layout.toml").write_text("id = 'home'")
    log = read_log(folder)
    assert log.users is not None
    assert log.users.to_dicts() == [{"user_id": "u1", "country": "DE"}]
    assert log.layout == folder / "layout.toml"
    assert log.name == folder.name
