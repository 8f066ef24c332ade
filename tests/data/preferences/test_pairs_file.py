"""Pairs as a record and as a file: caps, effective sizes, what comes back, what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data.preferences.test_families import ALL, ITEMS, S
from pagellm.catalog import Catalog
from pagellm.data.lots import id_keys
from pagellm.data.preferences.pairs import (
    Family,
    Pairs,
    capped,
    effective_size,
    empty_pairs,
    join_pairs,
    lots_of,
    pairs_notes,
    preference_rows,
    read_pairs,
    write_pairs,
)
from pagellm.errors import DataError

CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)], "title": [f"Title {n}" for n in range(ITEMS)]}))
PAIRS = join_pairs(list(ALL.values()))
USERS = S.contexts.log.user_ids
WHO = id_keys(USERS)
LOTS = lots_of(PAIRS, WHO, 0)
PAGES = np.array([f"page {n}" for n in range(len(USERS))])


def same(one: Pairs, other: Pairs) -> None:
    for field in dataclasses.fields(Pairs):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)
        assert getattr(one, field.name).dtype == getattr(other, field.name).dtype, field.name


def test_pairs_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, PAIRS, CATALOG, USERS, PAGES, {"source": "shop"})
    back = read_pairs(path, CATALOG, USERS, PAGES)
    real = PAIRS.chosen >= 0
    same(dataclasses.replace(PAIRS, row=np.where(real, PAIRS.row, -1), col=np.where(real, PAIRS.col, -1)), back)
    assert pairs_notes(path) == {"source": "shop"}
    assert pl.read_parquet(path)["chosen"].list.len().min() == 1, "ids, no padding"


def test_no_pairs_are_pairs_too(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    write_pairs(path, empty_pairs(), CATALOG, USERS)
    assert len(read_pairs(path, CATALOG, USERS)) == 0
    assert len(join_pairs([])) == 0
    assert capped(empty_pairs(), 3, 3, lots_of(empty_pairs(), WHO, 0)).size == 0


def test_pages_of_different_width_join() -> None:
    narrow = dataclasses.replace(
        PAIRS, chosen=PAIRS.chosen[:, :3], rejected=PAIRS.rejected[:, :3], row=PAIRS.row[:, :3], col=PAIRS.col[:, :3]
    )
    both = join_pairs([narrow, PAIRS])
    assert both.chosen.shape == (2 * len(PAIRS), PAIRS.chosen.shape[1])
    assert (both.chosen[: len(PAIRS), 3:] == -1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop("severity"), "has no column 'severity'"),
        (lambda f: f.with_columns(family=pl.lit("fun")), "names family 'fun'"),
        (lambda f: f.with_columns(user_id=pl.lit("nobody")), "User 'nobody'"),
        (lambda f: f.with_columns(page_id=pl.lit("p?")), "Page 'p\\?'"),
        (lambda f: f.with_columns(rejected=pl.col("rejected").list.head(0)), "unequal length"),
        (lambda f: f.with_columns(item_id=pl.lit("gone")), "Item 'gone' is not in the catalog"),
        (lambda f: f.with_columns(event=pl.lit("sneeze")), "names event 'sneeze'"),
        (lambda f: f.with_columns(chosen=pl.lit("i1 i2")), "Column 'chosen' .* must be List"),
        (lambda f: f.with_columns(time=pl.lit("noon")), "Column 'time' .* must be Int64"),
        (lambda f: f.with_columns(family=pl.lit(None, pl.String)), "Column 'family' .* misses"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: object, words: str) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, PAIRS, CATALOG, USERS, PAGES)
    change(pl.read_parquet(path)).write_parquet(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        read_pairs(path, CATALOG, USERS, PAGES)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(b"PAR1 not really")
    for read in (pairs_notes, lambda p: read_pairs(p, CATALOG, USERS)):
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            read(path)


def test_nobody_says_more_than_the_cap_and_nothing_else_is_lost() -> None:
    kept = PAIRS.take(np.flatnonzero(capped(PAIRS, 4, 15, LOTS)))
    by_user = Counter(zip(kept.family.tolist(), kept.user.tolist(), strict=True))
    by_item = Counter(zip(kept.family.tolist(), kept.item.tolist(), strict=True))
    assert max(by_user.values()) == 4
    assert max(by_item.values()) <= 15
    before = Counter(zip(PAIRS.family.tolist(), PAIRS.user.tolist(), strict=True))
    only_users = PAIRS.take(np.flatnonzero(capped(PAIRS, 4, 10**6, LOTS)))
    after = Counter(zip(only_users.family.tolist(), only_users.user.tolist(), strict=True))
    assert after == Counter({key: min(count, 4) for key, count in before.items()})
    assert capped(PAIRS, 10**6, 10**6, LOTS).all()
    assert (capped(PAIRS, 4, 15, LOTS) != capped(PAIRS, 4, 15, lots_of(PAIRS, WHO, 1))).any(), "drawn, not the first of the log"


def test_a_flood_of_one_user_is_cut_to_a_regulars_share() -> None:
    flood = join_pairs([PAIRS, *[PAIRS.take(np.flatnonzero(PAIRS.user == PAIRS.user[0]))] * 200])
    kept = flood.take(np.flatnonzero(capped(flood, 5, 10**6, lots_of(flood, WHO, 0))))
    assert (kept.user == PAIRS.user[0]).mean() < 0.03 < (flood.user == PAIRS.user[0]).mean()


def test_effective_size_counts_equal_weights_fully() -> None:
    assert effective_size(np.full(7, 2.5, np.float32)) == pytest.approx(7)
    assert effective_size(np.array([1, 0, 0], np.float32)) == pytest.approx(1)
    assert effective_size(np.empty(0, np.float32)) == 0


def test_pairs_as_text_hold_titles_and_the_margin() -> None:
    swap = PAIRS.of(Family.SWAP).take(np.arange(3))
    contexts = S.contexts.take(np.array([int(np.flatnonzero(S.contexts.user == u)[0]) for u in swap.user]))
    rows = list(preference_rows(swap, contexts, CATALOG))
    assert set(rows[0]) == {"prompt", "chosen", "rejected", "margin"}
    assert sorted(rows[0]["chosen"].split("\n")) == sorted(rows[0]["rejected"].split("\n"))
    assert rows[0]["prompt"].count("Title") == 4
    assert rows[0]["margin"] == pytest.approx(float(swap.severity[0]))
