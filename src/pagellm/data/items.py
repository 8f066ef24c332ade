"""From the items and users files to the catalog and the user table. Knows no feedback.

An item with a damaged optional field stays an item: the field becomes missing and is counted. First row of an id wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.data.cells import bad_ids, flags, lists, missing, money, prose, texts, times
from pagellm.data.columns import ITEMS, USERS, Table
from pagellm.data.files import batches
from pagellm.data.quarantine import Quarantine, Rules
from pagellm.data.rows import Batch
from pagellm.types import Bool

_MONEY = ("price", "margin")
_FLAGS = ("hidden", "sponsored")
_TIMES = ("created_at", "updated_at")


def read_catalog(path: Path, quarantine: Quarantine, names: dict[str, str] | None = None) -> tuple[Catalog, Counter[str]]:
    """The catalog in file order, and how many values of which optional columns were damaged and left out."""
    damaged: Counter[str] = Counter()
    frame = _read(path, ITEMS, quarantine, "item", lambda batch: _item_frame(batch, damaged), names)
    if "title" not in frame.columns:
        frame = frame.with_columns(pl.lit("").alias("title"))
    frame = frame.with_columns(pl.col("title").fill_null(""))
    damaged["title"] = int((frame["title"] == "").sum())
    return Catalog(_ordered(frame, ITEMS)), +damaged


def read_users(path: Path, quarantine: Quarantine) -> pl.DataFrame:
    """The users table: user_id and the other columns as text."""
    frame = _read(path, USERS, quarantine, "user", lambda batch: batch.frame.select(_texts(batch, batch.frame.columns)), None)
    return _ordered(frame, USERS)


def _read(
    path: Path,
    table: Table,
    quarantine: Quarantine,
    noun: str,
    typed: Callable[[Batch], pl.DataFrame],
    names: dict[str, str] | None,
) -> pl.DataFrame:
    seen: dict[str, int] = {}  # id → hash of its content
    frames = [pl.DataFrame(schema={f"{noun}_id": pl.String})]
    for batch in batches(path, table, names):
        rules = Rules(len(batch))
        ids = texts(batch.column(f"{noun}_id"))
        rules.fail(missing(ids), f"missing_{noun}_id")
        rules.fail(bad_ids(ids), f"bad_{noun}_id")
        if len(batch):
            frame = typed(batch).with_columns(ids.alias(f"{noun}_id"))
            repeated, differing = _repeats(ids.to_list(), _content(frame), rules.passed, seen)
            rules.fail(differing, f"duplicate_{noun}")
            rules.fail(repeated, f"repeated_{noun}")
            frames.append(frame.filter(pl.Series(rules.passed)))
        quarantine.take(path.name, batch, rules)
    return pl.concat(frames, how="diagonal")


def _item_frame(batch: Batch, damaged: Counter[str]) -> pl.DataFrame:
    columns = []
    for name in batch.frame.columns:
        column = batch.frame[name]
        if name in _MONEY:
            value, bad = money(column)
            damaged[name] += int(bad.sum())
            columns.append(pl.Series(name, np.where(bad, np.nan, value)).fill_nan(None))
        elif name in _FLAGS:
            flag, bad = flags(column)
            damaged[name] += int(bad.sum())
            columns.append(pl.Series(name, flag == 1).set(pl.Series((flag < 0) | bad), None))
        elif name in _TIMES:
            time, unusable, outside = times(column)
            damaged[name] += int((outside | (unusable & ~missing(texts(column)))).sum())
            columns.append(pl.Series(name, time).set(pl.Series(unusable | outside), None))
        elif name == "description":
            columns.append(prose(column).str.replace_all("\x00", ""))
        elif name == "categories":
            columns.append(lists(column))
        else:
            columns += _texts(batch, [name])
    return pl.DataFrame(columns)


def _texts(batch: Batch, names: list[str]) -> list[pl.Series]:
    """Columns as text, lists and objects as their JSON."""
    return [texts(batch.frame[name]).str.strip_prefix("\x00").str.replace_all("\x00", "").alias(name) for name in names]


def _content(frame: pl.DataFrame) -> list[int]:
    """[row] a hash of all that is known of an item, whatever the order of the columns."""
    parts = []
    for name in sorted(frame.columns):
        column = pl.col(name)
        text = column.list.join("\x1f") if isinstance(frame.schema[name], pl.List) else column.cast(pl.String)
        parts.append(pl.lit(f"{name}\x1e") + text)
    whole: list[int] = frame.select(pl.concat_str(parts, separator="\x1d", ignore_nulls=True).hash()).to_series().to_list()
    return whole


def _repeats(ids: list[str | None], content: list[int], usable: Bool, seen: dict[str, int]) -> tuple[Bool, Bool]:
    """[row] whether an id came before with the same content, and with another; new ids are added to `seen`."""
    same, other = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    for place in np.flatnonzero(usable):
        text = ids[place]
        if text is None:
            continue
        if text not in seen:
            seen[text] = content[place]
        elif seen[text] == content[place]:
            same[place] = True
        else:
            other[place] = True
    return same, other


def _ordered(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Contract columns first, then the others by name; columns without any value go."""
    rest = sorted(c for c in frame.columns if c not in table.known)
    wanted = [c for c in (*table.known, *rest) if c in frame.columns]
    required = {name for group in table.required for name in group}
    return frame.select([c for c in wanted if c in required or frame[c].null_count() < frame.height])
