"""A data folder: which file holds which table, and its rows in batches whatever the format. Knows no meaning of any column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.catalog import clean_text
from pagellm.data.columns import Table, require, resolve
from pagellm.data.rows import Batch
from pagellm.data.text_tables import MAX_COLUMNS, csv_batches, ndjson_batches
from pagellm.errors import DataError

SUFFIXES = (".parquet", ".csv", ".ndjson", ".jsonl", ".csv.gz", ".ndjson.gz", ".jsonl.gz")
PARQUET_ROWS = 131_072
"""Rows of a Parquet file read at once."""


def find(folder: Path, table: str) -> Path | None:
    """The file that holds this table, or None. Raises DataError where several do."""
    found = [p for p in (folder / f"{table}{suffix}" for suffix in SUFFIXES) if p.is_file()]
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise DataError(
            f"The folder {folder.name} holds the table {table!r} {len(found)} times: {names}. Leave one of them there."
        )
    return found[0] if found else None


def batches(path: Path, table: Table, names: dict[str, str] | None = None, rows: int = PARQUET_ROWS) -> Iterator[Batch]:
    """All rows of the file, in order. `names` ({contract: source}) replaces the contract's own search for columns (NDJSON).
    `rows` of a Parquet file are read at once; text comes as `text_tables` cuts it.

    Raises DataError for a file that cannot be read on (truncated, corrupt, not what its name says) and for missing columns.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet_batches(path, table, rows)
    return csv_batches(path, table) if name.endswith(".csv") else ndjson_batches(path, table, names)


def columns_of(path: Path) -> list[str]:
    """Names of a Parquet file's columns, safe to print; none for other formats or a file that cannot be read."""
    try:
        names = pl.scan_parquet(path, glob=False).collect_schema().names() if path.suffix == ".parquet" else []
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return []
    return [clean_text(name, 60) for name in names]


def _parquet_batches(path: Path, table: Table, rows: int) -> Iterator[Batch]:
    at = 0
    try:
        lazy = pl.scan_parquet(path, glob=False)
        columns = lazy.collect_schema().names()
        require(path.name, columns, table)
        found = list(resolve(columns, table).items())[:MAX_COLUMNS]
        total = int(lazy.select(pl.len()).collect().item())
        for at in range(0, total, rows):
            frame = lazy.slice(at, rows).select([pl.col(source).alias(name) for name, source in found]).collect()
            yield Batch(np.arange(at + 1, at + 1 + frame.height), frame, None, [])
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        first = str(problem).strip().splitlines()[0][:200] if str(problem).strip() else type(problem).__name__
        raise DataError(
            f"{path.name} cannot be read as Parquet after row {at:,}: {first}. "
            "The file is truncated or damaged; write it again from the source."
        ) from problem
