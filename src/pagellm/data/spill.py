"""Tables on disk in buckets: rows come in any order and are read back bucket by bucket, each in the order in which it came.

Takes frames and the bucket of each row. Holds a fixed amount of rows until it writes them, and where each piece stands. Knows no column.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl

from pagellm.errors import UsageError
from pagellm.types import I64, U64

HELD_BYTES = 12 * 2**20
"""Rows that wait in memory before they are written, in bytes, all buckets of a spill together."""


def buckets_of(keys: U64, count: int) -> I64:
    """[any] the bucket of each key by its leading bits, so that buckets in order are keys in order. `count` is a power of two."""
    bits = count.bit_length() - 1
    return (keys >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(keys), np.int64)


class Spill:
    """One file of pieces of tables, each of one bucket."""

    def __init__(self, path: Path, schema: dict[str, pl.DataType]) -> None:
        self._schema, self._path = schema, path
        self._held: dict[int, list[pl.DataFrame]] = defaultdict(list)
        self._pieces: dict[int, list[tuple[int, int]]] = defaultdict(list)  # {bucket: (where it begins, bytes)}
        self._bytes = 0
        try:
            self._file: IO[bytes] = path.open("w+b")
        except OSError as problem:
            raise _unwritable(path, problem) from problem

    @property
    def buckets(self) -> list[int]:
        """Buckets that hold rows, rising."""
        return sorted(self._pieces.keys() | self._held.keys())

    def add(self, frame: pl.DataFrame, bucket: I64 | Sequence[int]) -> None:
        """Appends rows, each to its bucket [row]."""
        if not frame.height:
            return
        where = np.asarray(bucket, np.int64)
        order = np.argsort(where, kind="stable")
        frame, where = frame.select(pl.col(name).cast(kind) for name, kind in self._schema.items())[order], where[order]
        first = np.flatnonzero(np.concatenate(([True], where[1:] != where[:-1])))
        for begin, end in zip(first.tolist(), [*first[1:].tolist(), len(where)], strict=True):
            self._held[int(where[begin])].append(frame.slice(begin, end - begin))
        self._bytes += int(frame.estimated_size())
        if self._bytes >= HELD_BYTES:
            self._write()

    def read(self, bucket: int) -> pl.DataFrame:
        """All rows of a bucket, in the order in which they came."""
        parts = []
        for begin, size in self._pieces.get(bucket, ()):
            self._file.seek(begin)
            parts.append(pl.read_ipc(io.BytesIO(self._file.read(size))))
        parts += self._held.get(bucket, [])
        return pl.concat(parts, rechunk=True) if parts else pl.DataFrame(schema=self._schema)

    def close(self) -> None:
        """Takes the file away."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            self._file.seek(0, io.SEEK_END)
            for bucket, parts in self._held.items():
                piece, begin = io.BytesIO(), self._file.tell()
                pl.concat(parts, rechunk=True).write_ipc(piece, compression="lz4")
                self._pieces[bucket].append((begin, self._file.write(piece.getbuffer())))
            self._file.flush()
        except OSError as problem:
            raise _unwritable(self._path, problem) from problem
        self._held.clear()
        self._bytes = 0


def _unwritable(path: Path, problem: OSError) -> UsageError:
    return UsageError(
        f"The buckets of the log cannot be written to {path.parent} ({problem.strerror or problem}). Name a folder with room for about "
        "the size of the log: --scratch FOLDER"
    )
