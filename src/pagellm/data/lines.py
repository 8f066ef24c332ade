"""Lines of a text file, plain or gzipped, in bounded memory: no line and no file is ever read whole. Knows no format."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from pagellm.data.rows import EXCERPT, BadRow, bad_row
from pagellm.errors import DataError

BLOCK_BYTES = 1 << 22  # of text read at once
LINE_BYTES = 1 << 20  # a longer line is no row of ours


def line_blocks(path: Path) -> Iterator[tuple[list[int], list[bytes], list[BadRow]]]:
    """Blocks of (line numbers, lines, lines that are too long); blank lines are no rows. Memory is bounded by the block."""
    number, tail, done = 0, b"", 0
    try:
        with _open(path) as stream:
            while block := stream.read(BLOCK_BYTES):
                if done == 0:
                    block = block.removeprefix(b"\xef\xbb\xbf")
                done += len(block)
                *lines, tail = (tail + block).split(b"\n")
                yield _numbered(lines, number)
                number += len(lines)
                if len(tail) > LINE_BYTES:
                    long, rest = _skip_line(stream, tail)
                    yield [], [], [BadRow(number + 1, "line_too_long", *long)]
                    number, tail = number + 1, rest
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(
            f"{path.name} cannot be read on after line {number:,} (byte {done:,} of the text): {problem}. "
            "The file is truncated or damaged; write it again from the source."
        ) from problem
    if tail:
        yield _numbered(tail.split(b"\n"), number)


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _numbered(lines: list[bytes], before: int) -> tuple[list[int], list[bytes], list[BadRow]]:
    places = [i for i, line in enumerate(lines) if line and not line.isspace()]
    long = {i for i in places if len(lines[i]) > LINE_BYTES}
    bad = [bad_row(before + i + 1, "line_too_long", lines[i]) for i in sorted(long)]
    kept = [i for i in places if i not in long] if long else places
    return [before + i + 1 for i in kept], [lines[i].rstrip(b"\r") for i in kept], bad


def _skip_line(stream: io.BufferedIOBase, head: bytes) -> tuple[tuple[str, str], bytes]:
    """Reads to the end of a line that is too long without keeping it: its (hash, excerpt), and what follows it."""
    digest = hashlib.sha256(head)
    excerpt = bad_row(0, "", head[:EXCERPT]).excerpt
    while block := stream.read(BLOCK_BYTES):
        line, newline, rest = block.partition(b"\n")
        digest.update(line)
        if newline:
            return (digest.hexdigest(), excerpt), rest
    return (digest.hexdigest(), excerpt), b""
