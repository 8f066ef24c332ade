"""From the files of a log of pages to its sound rows on disk, batch by batch: what one row alone can be refused for is done here.

Comes in: a data folder. Goes out: `SoundRows`, pages by the key of their id, events in file order with what tells copies apart. Holds one
batch and what waits to be written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pagellm.data.columns import EVENT_LOG, IMPRESSIONS, Table
from pagellm.data.feedback import read_event_rows
from pagellm.data.files import batches
from pagellm.data.ids import Ids
from pagellm.data.impressions import PageRows, read_rows, take_back
from pagellm.data.interactions import Money
from pagellm.data.lots import id_keys
from pagellm.data.quarantine import Quarantine
from pagellm.data.slots import Slots
from pagellm.data.spill import Spill, buckets_of

SPAN_ROWS = 65_536
"""Rows of a file whose late verdicts are looked at together."""

_BATCH_ROWS = 8_192  # of Parquet files; a row of impressions may be a page of many slots

_SLOTS = {
    "item": pl.Int32(),
    **dict.fromkeys(("row", "col"), pl.Int16()),
    "propensity": pl.Float32(),
    "viewed": pl.Int8(),
}
_ROWS: dict[str, pl.DataType] = {
    **dict.fromkeys(("page", "user", "policy"), pl.String()),
    **dict.fromkeys(("time", "number"), pl.Int64()),
    **dict.fromkeys(("whole", "broken"), pl.Boolean()),
    **{name: pl.List(kind) for name, kind in _SLOTS.items()},
}
_EVENTS: dict[str, pl.DataType] = {
    **dict.fromkeys(("user", "page"), pl.String()),
    "item": pl.Int32(),
    "time": pl.Int64(),
    "event": pl.Int8(),
    **dict.fromkeys(("row", "col", "number"), pl.Int64()),
    **dict.fromkeys(("rating", "value"), pl.Float32()),
    **dict.fromkeys(("event_id", "order_line", "content"), pl.UInt64()),
}
_COPIES: dict[str, pl.DataType] = {"key": pl.UInt64(), "content": pl.UInt64(), "number": pl.Int64()}
_LATE: dict[str, pl.DataType] = {"number": pl.Int64(), "reason": pl.String()}


class SoundRows:
    """Rows that pass alone, in buckets, with the quarantine that counts them."""

    def __init__(self, scratch: Path, count: int, quarantine: Quarantine) -> None:
        self.count, self.quarantine, self.money = count, quarantine, Money()
        self._pages = Spill(scratch / "page_rows", _ROWS)  # by page
        self.in_order = Spill(scratch / "event_rows", _EVENTS)  # by span of the file
        self.events = Spill(scratch / "events", _EVENTS)  # by page
        self.event_ids = Spill(scratch / "event_ids", _COPIES)  # by id
        self.order_lines = Spill(scratch / "order_lines", _COPIES)  # by order and item
        self.late_pages = Spill(scratch / "late_pages", _LATE)  # by span of the file
        self.late_events = Spill(scratch / "late_events", _LATE)
        self._read: list[tuple[Path, Table, Spill]] = []

    def read_pages(self, path: Path, items: Ids, base: int) -> None:
        """All sound rows of the impressions file."""
        self._read.append((path, IMPRESSIONS, self.late_pages))
        for batch in batches(path, IMPRESSIONS, rows=_BATCH_ROWS):
            rows = read_rows(batch, path.name, items, self.quarantine, base)
            for frame in (_page_frame(rows), pl.DataFrame({"page": rows.broken}).with_columns(broken=True)):
                keys = id_keys(np.array(frame["page"].to_list(), np.str_)) if len(frame) else np.empty(0, np.uint64)
                lacking = {name: pl.lit(None, kind) for name, kind in _ROWS.items() if name not in frame.columns}
                self._pages.add(frame.with_columns(**lacking), buckets_of(keys, self.count))

    def read_events(self, path: Path, items: Ids, base: int) -> None:
        """All sound rows of the events file."""
        self._read.append((path, EVENT_LOG, self.late_events))
        for batch in batches(path, EVENT_LOG, rows=16 * _BATCH_ROWS):
            rows = read_event_rows(batch, path.name, items, self.quarantine, base, self.money)
            self.in_order.add(rows, rows["number"].to_numpy() // SPAN_ROWS)
            for spill, name in ((self.event_ids, "event_id"), (self.order_lines, "order_line")):
                named = rows.filter(pl.col(name) != 0).select(pl.col(name).alias("key"), "content", "number")
                spill.add(named, buckets_of(named["key"].to_numpy(), self.count))

    def page_rows(self, bucket: int) -> tuple[PageRows, pl.Series]:
        """(the rows of a bucket's pages, the pages of which a row was rejected)."""
        every = self._pages.read(bucket)
        broken, rows = every.filter("broken")["page"], every.filter(~pl.col("broken"))
        owner = np.repeat(np.arange(rows.height), rows["item"].list.len().to_numpy())
        slots = Slots(*(rows[name].explode(empty_as_null=False).to_numpy() for name in _SLOTS))
        time, number, whole = (rows[name].to_numpy() for name in ("time", "number", "whole"))
        return PageRows(rows["page"], rows["user"], rows["policy"], time, number, whole, owner, slots, broken), broken

    def take_back(self) -> None:
        """Quarantines what was found at fault late; reads a file once more if there is any in it. The rows are used up."""
        for path, table, late in self._read:
            span, reasons = -1, dict[int, str]()
            for batch in batches(path, table, rows=_BATCH_ROWS) if late.buckets else ():
                for at in range(int(batch.rows[0]) // SPAN_ROWS, int(batch.rows[-1]) // SPAN_ROWS + 1) if len(batch) else ():
                    if at != span:
                        span, reasons = at, dict(late.read(at).iter_rows())
                    take_back(path, batch, reasons, self.quarantine)
        for spill in (self._pages, self.events, self.late_pages, self.late_events):
            spill.close()


def _page_frame(rows: PageRows) -> pl.DataFrame:
    """[row] with its slots as lists."""
    slots = pl.DataFrame({"owner": rows.owner} | {name: getattr(rows.slots, name) for name in _SLOTS})
    lists = slots.group_by("owner", maintain_order=True).agg(pl.all())
    heads = {"page": rows.page, "user": rows.user, "policy": rows.policy, "time": rows.time, "number": rows.number}
    return pl.DataFrame(heads).with_columns(whole=pl.Series(rows.whole), broken=False).hstack(lists.drop("owner"))
