"""P-PM-1: all position swaps of logged pages, against a self-join in polars and in DuckDB, in memory and from Parquet to Parquet.

A swap is a pair of slots of one page: one with more engagement, one that was seen and has less, in places that differ. It is the family
that a join can express; the others draw stand-ins from candidate pools, which no join does. All three give the same pairs: sums of a
hash over pairs, which forget their order, are equal.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke

SLOTS = 20
WEIGHTS_WITHIN = 1e-6  # of the sum of all weights: each is one float32 product
JOIN = """
select a.page as page, a.slot as better, b.slot as worse,
       ((a.gain - b.gain) * abs(a.look - b.look))::float as weight
from pages a join pages b on a.page = b.page
where a.gain > b.gain and b.seen >= 0.5 and a.look <> b.look
"""


def logged(pages: int) -> Any:
    """A long table of slots: page, slot, gain, seen, look. Engagement on a seventh of the slots, three fifths of the others seen."""
    import polars as pl

    rng = np.random.default_rng(0)
    rows = pages * SLOTS
    gain = np.where(rng.random(rows) < 0.15, rng.choice([1.0, 2.0, 4.0], rows), 0).astype(np.float32)
    seen = np.where((gain > 0) | (rng.random(rows) < 0.6), 1, 0).astype(np.float32)
    return pl.DataFrame(
        {
            "page": np.repeat(np.arange(pages, dtype=np.int64), SLOTS),
            "slot": np.tile(np.arange(SLOTS, dtype=np.int64), pages),
            "gain": gain,
            "seen": seen,
            "look": np.tile((0.9 ** np.arange(SLOTS)).astype(np.float32), pages),
        }
    )


def situations(frame: Any) -> Any:
    """The same slots as records. Contexts, candidates and items do not matter to swaps."""
    from pagellm.data.preferences.situations import Situations
    from pagellm.types import Contexts, Interactions

    columns = {name: frame[name].to_numpy().reshape(-1, SLOTS) for name in ("gain", "seen", "look")}
    n = len(columns["gain"])
    nothing = np.zeros(n, np.int64)
    none = np.empty(0, np.int32)
    log = Interactions(
        none,
        none,
        none.astype(np.int64),
        none,
        none.astype(np.int8),
        none.astype(np.float32),
        none.astype(np.float32),
        np.array(["u"]),
    )
    contexts = Contexts(log, nothing, nothing, nothing, nothing.astype(np.int32), nothing)
    items = np.broadcast_to(np.arange(SLOTS, dtype=np.int32), (n, SLOTS))
    place = np.zeros((n, SLOTS), np.int16)
    pool = np.zeros((n, 1), np.int32)
    page = np.arange(n, dtype=np.int64)
    parts = (
        columns["gain"],
        place.astype(np.int8),
        columns["seen"],
        columns["look"],
        place,
        place,
        pool,
        pool.astype(np.float32),
        np.zeros(items.shape, np.float32),
    )
    return Situations(contexts, page, items, *parts)


def ours(s: Any) -> tuple[np.ndarray, ...]:
    """(page, better, worse, weight) of all swaps."""
    from pagellm.data.preferences.families import swap_slots
    from pagellm.data.preferences.situations import keys_of

    return swap_slots(s, keys_of(s, 0), SLOTS * SLOTS)


def polars_join(lazy: Any) -> Any:
    """The self-join, lazily, so that polars may plan it."""
    import polars as pl

    engaged = lazy.filter(pl.col("gain") > 0)
    refused = lazy.filter(pl.col("seen") >= 0.5)
    return (
        engaged.join(refused, on="page", suffix="_b")
        .filter((pl.col("gain") > pl.col("gain_b")) & (pl.col("look") != pl.col("look_b")))
        .select(
            "page",
            better="slot",
            worse="slot_b",
            weight=(pl.col("gain") - pl.col("gain_b")) * (pl.col("look") - pl.col("look_b")).abs(),
        )
    )


def forget_order(page: Any, better: Any, worse: Any, weight: Any) -> tuple[int, int, float]:
    """Number of pairs, the sum of a hash over them modulo 2^64, the sum of weights. A pair that comes twice counts twice."""
    key = (np.asarray(page, np.uint64) * np.uint64(SLOTS) + np.asarray(better, np.uint64)) * np.uint64(SLOTS) + np.asarray(
        worse, np.uint64
    )
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return len(key), int(key.sum(dtype=np.uint64)), float(np.asarray(weight, np.float64).sum())


def same(peer: str, ours: Any, theirs: Any) -> float:
    """The same pairs, in any order, and as much weight; how far the weights are apart."""
    names = ("page", "better", "worse", "weight")
    one, other = (
        forget_order(*(found if isinstance(found, tuple) else [np.asarray(found[name]) for name in names]))
        for found in (ours, theirs)
    )
    assert one[:2] == other[:2], f"{peer} finds other pairs: {one[0]:,} and {other[0]:,}"
    difference = abs(one[2] - other[2]) / one[2]
    assert difference < WEIGHTS_WITHIN, f"{peer} weighs its pairs otherwise: {one[2]} and {other[2]} in all"
    return difference


def in_memory(pages: int) -> Comparison:
    """The mining step alone."""
    import duckdb

    frame = logged(pages)
    records, lazy = situations(frame), frame.lazy()
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    connection.register("pages", frame.to_arrow())
    peers = {"polars join": lambda: polars_join(lazy).collect(), "duckdb join": lambda: connection.execute(JOIN).fetchnumpy()}
    target = {"polars join": 5.0, "duckdb join": 15.0}
    notes = {"pages": pages, "slots a page": SLOTS}
    return compare(
        "P-PM-1, swaps in memory", ours=lambda: ours(records), peers=peers, check=same, rounds=9, target=target, notes=notes
    )


def end_to_end(pages: int, folder: Path) -> Comparison:
    """From a Parquet file of slots to a Parquet file of pairs."""
    import polars as pl

    source = folder / "slots.parquet"
    logged(pages).write_parquet(source)

    def mined() -> Any:
        page, better, worse, weight = ours(situations(pl.read_parquet(source)))
        out = pl.DataFrame({"page": page, "better": better, "worse": worse, "weight": weight})
        out.write_parquet(folder / "ours.parquet")
        return out

    def joined() -> Any:
        out = polars_join(pl.scan_parquet(source)).collect()
        out.write_parquet(folder / "theirs.parquet")
        return out

    notes = {"pages": pages, "slots a page": SLOTS}
    peers = {"polars join": joined}
    return compare(
        "P-PM-1, Parquet to Parquet", ours=mined, peers=peers, check=same, rounds=9, target={"polars join": 1.5}, notes=notes
    )


def comparisons() -> Sequence[Comparison]:
    from pagellm.__main__ import tune_allocator

    tune_allocator()  # as the `pagellm` command does; polars and DuckDB bring allocators of their own
    pages = 1_000 if smoke() else 100_000
    with tempfile.TemporaryDirectory() as folder:
        return [in_memory(pages), end_to_end(pages, Path(folder))]


if __name__ == "__main__":
    main("pairs", comparisons)
