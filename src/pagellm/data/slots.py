"""Slots of logged pages: nested in a page's row, or one row each. Cells become arrays; knows no page and no feedback."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from pagellm.data.cells import bad_ids, flags, missing, numbers, texts, whole_numbers
from pagellm.data.columns import SLOTS, require, resolve
from pagellm.data.ids import Ids
from pagellm.data.quarantine import Rules
from pagellm.data.rows import Batch
from pagellm.data.text_tables import LIST_MARK, texts_of
from pagellm.types import F32, I8, I16, I32, I64

FARTHEST = 32_767
"""The largest row or column: what 16 bits hold."""


@dataclass(frozen=True)
class Slots:
    """Slots in file order, before they are put into pages."""

    item: I32  # [slot]
    row: I16  # [slot]
    col: I16  # [slot]
    propensity: F32  # [slot] NaN where unknown
    viewed: I8  # [slot] -1 where unknown


def nested(batch: Batch, file: str, rules: Rules) -> tuple[I64, Batch]:
    """(`owner` [slot]: place of its page in the batch; the slots as a batch of their own). Pages without slots fail."""
    column = batch.column("slots")
    struct = isinstance(column.dtype, pl.List) and isinstance(column.dtype.inner, pl.Struct)
    owner, frame = _of_structs(column) if struct else _of_texts(column, rules)
    if frame.height:
        require(f"{file} (slots)", frame.columns, SLOTS)
    named = frame.select([pl.col(source).alias(name) for name, source in resolve(frame.columns, SLOTS).items()])
    count = np.bincount(owner, minlength=len(batch))
    rules.fail(count == 0, "page_without_slots")
    return owner, Batch(batch.rows[owner], named, None, [])


def _of_structs(column: pl.Series) -> tuple[I64, pl.DataFrame]:
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    owner = np.repeat(np.arange(len(column)), lengths)
    return owner, column.filter(pl.Series(lengths > 0)).explode().struct.unnest()


def _of_texts(column: pl.Series, rules: Rules) -> tuple[I64, pl.DataFrame]:
    owner: list[int] = []
    slots: list[dict[str, object]] = []
    broken = np.zeros(len(column), bool)
    for place, cell in enumerate(texts(column).to_list()):
        parsed = _parse(cell)
        if parsed is None:
            broken[place] = True
        else:
            owner += [place] * len(parsed)
            slots += parsed
    rules.fail(broken, "bad_slots")
    keys = list(dict.fromkeys(key for slot in slots for key in slot))
    wanted = set(resolve(keys, SLOTS).values())
    columns = [texts_of(key, [slot.get(key) for slot in slots]) for key in keys if key in wanted]
    return np.array(owner, np.int64), pl.DataFrame(columns)


def _parse(cell: str | None) -> list[dict[str, object]] | None:
    try:
        parsed = json.loads((cell or "[]").removeprefix(LIST_MARK))
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) and all(isinstance(slot, dict) for slot in parsed) else None


def read_slots(batch: Batch, items: Ids, base: int, rules: Rules) -> Slots:
    """The cells of slots; `base` is the number that the log gives to the first row and column. Bad slots fail."""
    item = texts(batch.column("item_id"))
    code = items.find(item)
    rules.fail(missing(item), "missing_item_id")
    rules.fail(bad_ids(item), "bad_item_id")
    rules.fail(code < 0, "unknown_item")
    row, col = read_positions(batch, base, rules)
    propensity, bad = numbers(batch.column("propensity"))
    rules.fail(bad | (propensity <= 0) | (propensity > 1), "propensity_out_of_range")
    viewed, bad = flags(batch.column("viewed"))
    rules.fail(bad, "bad_viewed")
    return Slots(code, row.astype(np.int16), col.astype(np.int16), propensity.astype(np.float32), viewed)


def read_positions(batch: Batch, base: int, rules: Rules) -> tuple[I64, I64]:
    """[slot] row and column from 0: from their columns, else from a slot_id like r0c3; a lone column stands in row 0."""
    row, no_row, bad_row = whole_numbers(batch.column("row"), -FARTHEST, FARTHEST)
    col, no_col, bad_col = whole_numbers(batch.column("col"), -FARTHEST, FARTHEST)
    id_row, id_col = slot_places(texts(batch.column("slot_id")), base)
    rules.fail(bad_row | bad_col, "bad_position")
    row = np.where(no_row, np.where(id_row >= 0, id_row, 0), row - base)
    col = np.where(no_col, id_col, col - base)
    rules.fail(no_col & (id_col < 0), "missing_position")
    rules.fail((row < 0) | (col < 0), "position_below_base")
    return row, col


def slot_places(slot_id: pl.Series, base: int) -> tuple[I64, I64]:
    """[slot] row and column that a slot_id like r0c3 names, from 0; -1 where it names none."""
    parts = slot_id.str.extract_groups(r"^r(?<row>\d{1,4})c(?<col>\d{1,4})$").struct
    row = parts.field("row").cast(pl.Int64).fill_null(base - 1).to_numpy() - base
    col = parts.field("col").cast(pl.Int64).fill_null(base - 1).to_numpy() - base
    return row.astype(np.int64), col.astype(np.int64)
