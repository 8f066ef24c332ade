"""Rows between a file and the rules: `Batch`, and `BadRow` for what the quarantine file tells. Knows no format and no meaning."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import polars as pl

from pagellm.types import I64

EXCERPT = 120
"""Characters of a bad row that are shown."""

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127)}


@dataclass(frozen=True)
class BadRow:
    """A row that could not be accepted, as the quarantine file tells of it."""

    row: int  # from 1; the line number of text files
    reason: str
    sha256: str  # of the raw bytes
    excerpt: str  # the beginning, printable ASCII alone


@dataclass(frozen=True)
class Batch:
    """Some rows of a file."""

    rows: I64  # [row] number from 1; the line number of text files
    frame: pl.DataFrame  # [row] columns under the names of the contract, missing ones absent
    raw: list[bytes] | None  # [row] the lines as they stand in the file; None for Parquet
    bad: list[BadRow]  # rows beside those of `frame`

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> pl.Series:
        """One column of the contract; all null where the file has none. Shape [row]."""
        if name in self.frame.columns:
            return self.frame[name]
        return pl.Series(name, [None] * len(self), pl.String)

    def evidence(self, place: int, reason: str) -> BadRow:
        """One row of the frame as a bad row."""
        if self.raw is not None:
            return bad_row(int(self.rows[place]), reason, self.raw[place])
        cells = {name: self.frame[name][place] for name in self.frame.columns}
        return bad_row(int(self.rows[place]), reason, json.dumps(cells, default=str, sort_keys=True).encode("utf-8", "replace"))


def bad_row(row: int, reason: str, raw: bytes) -> BadRow:
    """Names a row by number, hash and a short excerpt that is safe to print."""
    text = raw[:EXCERPT].decode("ascii", "backslashreplace")
    return BadRow(row, reason, hashlib.sha256(raw).hexdigest(), text.translate(_ESCAPES)[:EXCERPT])
