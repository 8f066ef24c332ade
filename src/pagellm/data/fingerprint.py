"""A SHA-256 over accepted records: equal data, equal fingerprint, whatever the file format or the order of the log's rows.

The order of the items file counts, because an item's index is its place there. Knows no file.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.types import Impressions, Interactions

VERSION = b"pagellm records 1"


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def fingerprint(
    catalog: pl.DataFrame, interactions: Interactions, impressions: Impressions | None, users: pl.DataFrame | None
) -> str:
    """The hash of all four, in hexadecimal."""
    digest = hashlib.sha256(VERSION)
    _add_frame(digest, "items", catalog)
    _add_record(digest, "interactions", interactions)
    if impressions is not None:
        _add_record(digest, "impressions", impressions)
    if users is not None:
        _add_frame(digest, "users", users.sort("user_id"))
    return digest.hexdigest()


def _add_record(digest: _Hash, name: str, record: Interactions | Impressions) -> None:
    digest.update(f"\n{name} {len(record)}".encode())
    for spec in fields(record):
        digest.update(f"\n{spec.name} ".encode())
        _add_array(digest, getattr(record, spec.name))


def _add_array(digest: _Hash, values: NDArray[np.generic]) -> None:
    if values.dtype.kind == "U":
        _add_texts(digest, pl.Series(values.tolist(), dtype=pl.String))
        return
    if values.dtype.kind == "f":
        floats = values.astype(np.float64) + 0.0  # one zero
        values = np.where(np.isnan(floats), np.nan, floats)  # one NaN
    little = values.astype(values.dtype.newbyteorder("<"))
    digest.update(np.ascontiguousarray(little).tobytes())


def _add_frame(digest: _Hash, name: str, frame: pl.DataFrame) -> None:
    digest.update(f"\n{name} {frame.height}".encode())
    for column in sorted(frame.columns):
        digest.update(f"\n{column} ".encode())
        values = frame[column]
        if isinstance(values.dtype, pl.List):
            _add_array(digest, values.list.len().fill_null(0).to_numpy().astype(np.int64))
            values = values.explode().drop_nulls()
        if values.dtype == pl.String:
            _add_texts(digest, values)
        else:
            _add_array(digest, values.is_null().to_numpy())
            _add_array(digest, values.cast(pl.Float64).fill_null(0.0).to_numpy())


def _add_texts(digest: _Hash, texts: pl.Series) -> None:
    """Lengths in bytes (-1 for null), then the bytes: no two columns read the same."""
    _add_array(digest, texts.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy())
    for start in range(0, len(texts), 100_000):
        digest.update("".join(t for t in texts[start : start + 100_000].to_list() if t is not None).encode())
