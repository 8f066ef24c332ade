"""From CSV and NDJSON files to batches of text cells under the names of the contract.

A line that is no row (bad UTF-8, bad JSON, wrong number of fields) comes out as a `BadRow`. Knows no meaning of any column.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.data.columns import Table, require, resolve
from pagellm.data.lines import line_blocks
from pagellm.data.rows import BadRow, Batch, bad_row
from pagellm.errors import DataError

MAX_COLUMNS = 200  # of an open table; more is an accident or an attack
JOINED_LINES = 200  # a quoted text may run over so many lines of a CSV
LIST_MARK = "\x00"  # begins the text of a list or object: a control character, so no plain value passes with it
NO_TEXT = "\x00\x00"  # stands for what no text can hold


def ndjson_batches(path: Path, table: Table, names: dict[str, str] | None = None) -> Iterator[Batch]:
    """Batches of an NDJSON file. `names` ({contract: source}) replaces the contract's own search for columns."""
    checked = names is not None
    for numbers, lines, bad in line_blocks(path):
        objects: list[dict[str, object]] = []
        rows, raw = [], []
        for number, line in zip(numbers, lines, strict=True):
            parsed = _parse(line)
            if isinstance(parsed, dict):
                objects.append(parsed)
                rows.append(number)
                raw.append(line)
            else:
                bad.append(bad_row(number, parsed, line))
        keys = list(dict.fromkeys(key for item in objects for key in item))
        if objects and not checked:
            require(path.name, keys, table)
            checked = True
        found = resolve(keys, table) if names is None else names
        columns = {n: [o.get(source) for o in objects] for n, source in list(found.items())[:MAX_COLUMNS]}
        yield _batch(rows, columns, raw, bad)


def _parse(line: bytes) -> dict[str, object] | str:
    """One JSON object, or the reason why the line is none."""
    try:
        parsed = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "bad_utf8"
    except RecursionError:
        return "nested_too_deep"
    except ValueError:
        return "bad_json"
    return parsed if isinstance(parsed, dict) else "not_an_object"


def csv_batches(path: Path, table: Table) -> Iterator[Batch]:
    """Batches of a CSV file with a header. Commas, or semicolons, tabs or bars where the header has more of those.

    A row is a line; in open tables (items, users) a quoted text may run over several.
    """
    header: list[str] = []
    delimiter = ","
    held: tuple[list[int], list[bytes]] = ([], [])  # a quoted text that the end of a block cuts
    for numbers, lines, bad, last in _marking_last(line_blocks(path)):
        numbers, lines = held[0] + numbers, held[1] + lines
        if not header and lines:
            header, delimiter = _header(path, lines[0])
            require(path.name, header, table)
            numbers, lines = numbers[1:], lines[1:]
        rows, cells, raw, done = _cells(numbers, lines, bad, len(header), delimiter, multiline=table.open, last=last)
        held = numbers[done:], lines[done:]
        found = list(resolve(header, table).items())[:MAX_COLUMNS]
        by_column = list(zip(*cells, strict=True)) if cells else [()] * len(header)
        yield _batch(rows, {name: list(by_column[header.index(source)]) for name, source in found}, raw, bad)
    if not header:
        raise DataError(f"{path.name} is empty. A CSV file begins with a line of column names.")


def _marking_last(
    blocks: Iterator[tuple[list[int], list[bytes], list[BadRow]]],
) -> Iterator[tuple[list[int], list[bytes], list[BadRow], bool]]:
    for block in blocks:
        yield *block, False
    yield [], [], [], True


def _header(path: Path, line: bytes) -> tuple[list[str], str]:
    try:
        text = line.decode("utf-8")
        delimiter = max(",;\t|", key=text.count)
        names = next(csv.reader([text], delimiter=delimiter))
    except (csv.Error, StopIteration, UnicodeDecodeError) as problem:
        raise DataError(
            f"The first line of {path.name} holds no column names ({problem}). Save the file as UTF-8 CSV with a header."
        ) from problem
    return [name.strip() for name in names], delimiter


def _cells(
    numbers: list[int], lines: list[bytes], bad: list[BadRow], width: int, delimiter: str, *, multiline: bool, last: bool
) -> tuple[list[int], list[list[str]], list[bytes], int]:
    """(line numbers, cells [row][column], raw lines, lines used); what is no row of `width` cells is added to `bad`."""
    rows: list[int] = []
    cells: list[list[str]] = []
    raw: list[bytes] = []
    at = 0
    while at < len(lines):
        line, used = lines[at], 1
        if multiline and line.count(b'"') % 2:
            line, used = _joined(lines, at, width, delimiter)
            if used == 1 and not last and len(lines) - at < JOINED_LINES:
                break  # the rest of the text may come with the next block
        parsed = _split(line, width, delimiter)
        if isinstance(parsed, str):
            bad.append(bad_row(numbers[at], parsed, line))
        else:
            rows.append(numbers[at])
            cells.append(parsed)
            raw.append(line)
        at += used
    return rows, cells, raw, at


def _joined(lines: list[bytes], at: int, width: int, delimiter: str) -> tuple[bytes, int]:
    """A quoted text that runs over several lines, with their number; the line alone where no such row comes of it."""
    for end in range(at + 1, min(at + JOINED_LINES, len(lines))):
        if lines[end].count(b'"') % 2:
            whole = b"\n".join(lines[at : end + 1])
            return (whole, end + 1 - at) if isinstance(_split(whole, width, delimiter), list) else (lines[at], 1)
    return lines[at], 1


def _split(line: bytes, width: int, delimiter: str) -> list[str] | str:
    """The cells of a line, or the reason why it has none."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "bad_utf8"
    if '"' not in text:
        cells = text.split(delimiter)
    else:
        try:
            cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
        except (csv.Error, StopIteration):
            return "bad_quotes"
    return cells if len(cells) == width else "wrong_number_of_fields"


def _batch(rows: list[int], columns: dict[str, list[object]], raw: list[bytes], bad: list[BadRow]) -> Batch:
    frame = pl.DataFrame([texts_of(name, values) for name, values in columns.items()])
    return Batch(np.array(rows, np.int64), frame, raw, bad)


def texts_of(name: str, values: list[object]) -> pl.Series:
    """JSON values as a column of text. Shape [row]."""
    texts = [v if type(v) is str else _text(v) for v in values]
    try:
        return pl.Series(name, texts, pl.String)
    except UnicodeEncodeError:  # lone surrogates: JSON can write them, no text can hold them
        return pl.Series(name, [NO_TEXT if t is not None and not _encodable(t) else t for t in texts], pl.String)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object) -> str | None:
    """A JSON value as text; lists and objects as JSON behind a mark that no plain value passes with."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        try:
            return LIST_MARK + json.dumps(value, ensure_ascii=False)
        except RecursionError:
            return NO_TEXT
    return str(value)
