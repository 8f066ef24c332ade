"""Pairs mined from buckets on disk are those of the log in memory, whatever the number of buckets; a larger log is sampled, users whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pagellm.cli.main import run
from pagellm.data.lots import id_keys
from pagellm.data.preferences.situations import Engaged
from pagellm.pairing import Disk, Window, mine_large, mine_pairs
from pagellm.training import bucket_pairs
from pagellm.training.bucket_pairs import Acts, first_users, join_users
from pagellm.types import Interactions

WINDOW = Window(0.4, 0.9)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated shop with logged pages, views known."""
    folder = tmp_path_factory.mktemp("world") / "shop"
    assert run(["simulate", "world", str(folder), "--profile", "tiny", "--seed", "7"]) == 0
    return folder


def blind(world: Path, folder: Path, *columns: str) -> Path:
    """The same shop without some columns of its slots."""
    folder.mkdir()
    for name in ("items", "events"):
        (folder / f"{name}.parquet").write_bytes((world / f"{name}.parquet").read_bytes())
    slots = pl.read_parquet(world / "impressions.parquet").explode("slots").unnest("slots")
    slots.drop(*columns, "row_id").write_parquet(folder / "impressions.parquet")
    return folder


def large(source: Path, out: Path, buckets: int, *settings: str) -> pl.DataFrame:
    mine_large(source, out, settings, WINDOW, 0, Disk(buckets=buckets), tell=lambda line: None)
    return pl.read_parquet(out)


def in_memory(source: Path, out: Path, *settings: str) -> pl.DataFrame:
    mine_pairs(source, out, settings, WINDOW, 0, tell=lambda line: None)
    return pl.read_parquet(out)


def by_text(pairs: pl.DataFrame) -> pl.DataFrame:
    """The same rows in an order that follows from them alone."""
    lists = [pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in ("chosen", "rejected", "row", "col")]
    return pairs.with_columns(lists).sort(pl.all())


@pytest.mark.parametrize("gone", [(), ("viewed",), ("viewed", "propensity")])
def test_pairs_are_those_of_the_log_in_memory(world: Path, tmp_path: Path, gone: tuple[str, ...]) -> None:
    source = blind(world, tmp_path / "shop", *gone) if gone else world
    caps = ("pairs.per_user=4", "pairs.per_item=12")
    whole, free = in_memory(source, tmp_path / "a.parquet", *caps), in_memory(source, tmp_path / "free.parquet")
    assert len(whole) < 0.8 * len(free), "the caps bite"
    one = large(source, tmp_path / "b.parquet", 1, *caps)
    assert by_text(one).equals(by_text(whole))
    assert one.equals(large(source, tmp_path / "c.parquet", 16, *caps)), "row by row, in one order"
    assert one.group_by("family", "user_id").len()["len"].max() == 4
    assert one.group_by("family", "item_id").len()["len"].max() == 12


def test_a_log_larger_than_the_evidence_is_sampled_the_same_way_in_any_buckets(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = large(world, tmp_path / "whole.parquet", 4)
    monkeypatch.setattr(bucket_pairs, "EVIDENCE_EVENTS", 600)
    report = mine_large(world, tmp_path / "a.parquet", (), WINDOW, 0, Disk(buckets=2), tell=lambda line: None)
    sampled = pl.read_parquet(tmp_path / "a.parquet")
    told = re.search(r"candidates from (\d+) events of \d+ users drawn from all", report.examination)
    assert told is not None
    assert 500 < int(told[1]) <= 600
    assert sampled.equals(large(world, tmp_path / "b.parquet", 32))
    assert not sampled.equals(whole)
    needs_no_pool = pl.col("family").is_in(["ranking", "swap", "redundancy"])
    assert by_text(sampled.filter(needs_no_pool)).equals(by_text(whole.filter(needs_no_pool)))


def some_log(ids: list[str], events: list[int]) -> Interactions:
    user = np.repeat(np.arange(len(ids), dtype=np.int32), events)
    n, missing = len(user), np.full(len(user), np.nan, np.float32)
    return Interactions(
        user,
        np.arange(n, dtype=np.int32),
        np.arange(n),
        np.zeros(n, np.int32),
        np.full(n, 5, np.int8),
        missing,
        missing,
        np.array(ids),
    )


def test_a_sample_takes_whole_users_in_order_of_their_keys_and_joins_them_by_id() -> None:
    log = some_log(["a", "b", "c", "d"], [3, 0, 2, 4])
    order = np.argsort(id_keys(log.user_ids))
    sizes = np.array([3, 0, 2, 4])[order]
    for room in range(10):
        taken = first_users(log, id_keys(log.user_ids), room)
        fit = order[np.cumsum(sizes) <= room]
        np.testing.assert_array_equal(taken, np.isin(log.user, fit))
        assert taken.sum() <= room
    both = join_users([some_log(["x", "m"], [2, 1]), log])
    assert both.user_ids.tolist() == ["a", "c", "d", "m", "x"], "nobody without events"
    assert both.user.tolist() == [0] * 3 + [1] * 2 + [2] * 4 + [3] + [4] * 2
    assert both.item.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 1]


def test_engagements_of_all_buckets_are_one_list_and_a_bucket_knows_its_own_users(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    ids = np.array([f"u{n}" for n in range(40)])
    all_of = Engaged(rng.integers(0, 40, 500).astype(np.int32), rng.integers(0, 9, 500).astype(np.int32), np.arange(500))
    monkeypatch.setattr("pagellm.data.preferences.situations.MOST_ENGAGED", 300)
    monkeypatch.setattr(bucket_pairs, "MOST_ENGAGED", 300)
    drawn, keys = all_of.drawn(ids), id_keys(ids)
    acts = Acts.none()
    for mine in (np.arange(25, 40), np.arange(25)):  # two buckets, in any order
        inside = np.isin(all_of.user, mine)
        local = np.searchsorted(mine, all_of.user[inside]).astype(np.int32)
        acts = acts.plus(Engaged(local, all_of.item[inside], all_of.time[inside]), keys[mine])
    np.testing.assert_array_equal(acts.time, drawn.time)
    np.testing.assert_array_equal(acts.item, drawn.item)
    seen = acts.seen_by(keys[25:])
    np.testing.assert_array_equal(seen.user, np.where(drawn.user >= 25, drawn.user - 25, -1))


def test_what_cannot_be_mined_at_large_is_said(
    world: Path, tiny_shop: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.parquet"
    cases: list[tuple[Path, list[str], int, str]] = [
        (tiny_shop, ["--large"], 2, "logs no pages"),
        (tiny_run, ["--large"], 2, "without a policy"),
        (world, ["--large", "--buckets", "12"], 2, "a power of two. Got 12"),
        (world, ["--large", "--scratch", str(tmp_path / "nowhere")], 2, "--scratch"),
        (world, ["--buckets", "4"], 2, "Add --large"),
        (world, ["--large", "--from", "0.0", "--to", "0.0001"], 3, "nothing to mine"),
    ]
    for source, options, code, words in cases:
        assert run(["pairs", "mine", str(source), "--out", str(out), *options]) == code
        assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir()), "neither a file nor buckets are left"


def test_bad_rows_of_a_large_log_are_counted_and_told(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("items", "impressions"):
        (folder / f"{name}.parquet").write_bytes((world / f"{name}.parquet").read_bytes())
    events = pl.read_parquet(world / "events.parquet")
    wrong = events.head(3).with_columns(event_id=pl.format("new{}", "event_id"), ts=pl.col("ts").dt.offset_by("-9d"))
    pl.concat([events, wrong, events.head(40)]).write_parquet(folder / "events.parquet")
    bad = tmp_path / "bad.ndjson"
    options = ["--large", "--buckets", "4", "--quarantine", str(bad), "--from", "0.4"]
    assert run(["pairs", "mine", str(folder), "--out", str(tmp_path / "p.parquet"), *options]) == 0
    said = capsys.readouterr().err
    assert f"events.parquet: {len(events) + 43:,} rows, {len(events):,} accepted, 43 quarantined\n" in said
    assert f"events.parquet: 40 of {len(events) + 43:,} rows left out as repeated_event, first row" in said
    assert f"events.parquet: 3 of {len(events) + 43:,} rows left out as event_before_page, first row" in said
    told = pl.read_ndjson(bad)
    assert dict(told["reason"].value_counts().iter_rows()) == {"repeated_event": 40, "event_before_page": 3}
    assert run(["pairs", "show", str(tmp_path / "p.parquet"), "--n", "1"]) == 0
