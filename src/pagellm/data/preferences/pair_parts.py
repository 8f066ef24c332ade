"""Pairs that come bucket by bucket, capped over all of them, and written as one file without being held at once.

Takes pairs of some users after the other; nobody's pairs may come twice. Gives the file that `write_pairs` would write, in the order of
users' keys. What is held follows families and items, not pairs. Knows no log.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.data.lots import draw_lots, first_by_lot
from pagellm.data.preferences.mining import MiningReport
from pagellm.data.preferences.pairs import (
    Family,
    Operator,
    Pairs,
    capped,
    empty_pairs,
    item_keys,
    lots_of,
    notes_as_metadata,
    pair_table,
)
from pagellm.data.spill import Spill, buckets_of
from pagellm.data.whole_files import aside_of, put_in_place
from pagellm.types import U64

_CAPS: dict[str, pl.DataType] = {"key": pl.Int64(), "lot": pl.UInt64(), "part": pl.Int32(), "row": pl.Int32()}
_DROPPED: dict[str, pl.DataType] = {"row": pl.Int32()}
_NO_CAP = 2**62


class PairParts:
    """Pairs that were found so far, each user's capped already."""

    def __init__(self, scratch: Path, catalog: Catalog, count: int, per_user: int, per_item: int, seed: int) -> None:
        self._catalog, self._count, self._seed = catalog, count, seed
        self._per_user, self._per_item = per_user, per_item
        self._table = Spill(scratch / "pairs", dict(pair_table(empty_pairs(), catalog, np.empty(0, np.str_)).schema))
        self._caps = Spill(scratch / "caps", _CAPS)  # by family and item
        self._scratch, self._parts = scratch, 0
        self.found = 0

    def add(self, pairs: Pairs, who: U64, user_ids: np.ndarray, page_ids: np.ndarray) -> None:
        """All pairs of some users; `who` [user] are the keys of their ids. They are put into an order that no bucket decides."""
        self.found += len(pairs)
        if not len(pairs):
            return
        lots = lots_of(pairs, who, self._seed)
        order = np.lexsort((lots, pairs.operator, pairs.family, pairs.page, pairs.time, who[pairs.user]))
        pairs, lots = pairs.take(order), lots[order]
        stay = np.flatnonzero(capped(pairs, self._per_user, _NO_CAP, lots))
        pairs, lots, part = pairs.take(stay), lots[stay], self._parts
        keys, every = item_keys(pairs), np.arange(len(pairs))
        frame = pl.DataFrame({"key": keys, "lot": lots, "part": np.full(len(pairs), part), "row": every})
        self._caps.add(frame, buckets_of(draw_lots(keys.astype(np.uint64)[:, None]), self._count))
        self._table.add(pair_table(pairs, self._catalog, user_ids, page_ids), np.full(len(pairs), part))
        self._parts += 1

    def write(self, path: Path, notes: dict[str, str], report: MiningReport) -> None:
        """Writes what no item has too many of, and tells the report. The file appears whole or not at all; the parts are used up."""
        dropped = self._over_items()
        files, sums = [], _Sums()
        for part in range(self._parts):
            table, gone = self._table.read(part), dropped.read(part)["row"].to_numpy()
            keep = np.ones(table.height, bool)
            keep[gone] = False
            table = table.filter(pl.Series(keep))
            sums.add(table)
            files.append(self._scratch / f"pairs-{part:06}.parquet")
            table.write_parquet(files[-1], compression="zstd")
        aside = aside_of(path)
        pl.scan_parquet(files, glob=False).sink_parquet(aside, compression="zstd", metadata=notes_as_metadata(notes))
        put_in_place(aside, path)
        for file in files:
            file.unlink()
        self._table.close()
        dropped.close()
        report.found, report.over_cap = self.found, self.found - sums.pairs
        sums.tell(report)

    def _over_items(self) -> Spill:
        """[part] the rows that an item has too many of."""
        dropped = Spill(self._scratch / "dropped", _DROPPED)
        for bucket in self._caps.buckets:
            frame = self._caps.read(bucket)
            over = ~first_by_lot(frame["key"].to_numpy(), frame["lot"].to_numpy(), self._per_item)
            some = frame.filter(pl.Series(over))
            dropped.add(some.select("row"), some["part"].to_numpy())
        self._caps.close()
        return dropped


class _Sums:
    """What the report tells of kept pairs, part by part."""

    def __init__(self) -> None:
        self.pairs = 0
        self._families, self._operators = Counter[str](), Counter[str]()
        self._weights, self._squares = Counter[str](), Counter[str]()  # sums by family

    def add(self, table: pl.DataFrame) -> None:
        """Counts one part's kept pairs."""
        self.pairs += table.height
        weight = pl.col("weight").cast(pl.Float64)
        told = table.group_by("family").agg(n=pl.len(), weight=weight.sum(), square=(weight**2).sum())
        for family, n, total, squares in told.iter_rows():
            self._families[family] += n
            self._weights[family] += total
            self._squares[family] += squares
        self._operators.update(dict(table["operator"].value_counts().iter_rows()))

    def tell(self, report: MiningReport) -> None:
        """Fills in the report."""
        for name in (f.name.lower() for f in Family):
            report.families[name] = self._families[name]
            report.effective[name] = self._weights[name] ** 2 / self._squares[name] if self._squares[name] else 0.0
        report.operators = {o.name.lower(): self._operators[o.name.lower()] for o in Operator}
