"""From columns of any type to ids, times, numbers and flags, a whole batch at once. Knows no table and no file.

Every function takes one column and gives arrays [row]; what cannot be read is marked, never raised. An empty text is a
missing value. All formats take the same way through text, so that they mean the same records.
"""

from __future__ import annotations

import json

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.data.text_tables import LIST_MARK
from pagellm.types import F64, I8, I64, Bool

ID_BYTES = 128
FIRST_TIME, LAST_TIME = 788_918_400, 4_102_444_800  # 1995-01-01, the first web shops, and 2100-01-01
_UNITS = (1.0, 1e3, 1e6, 1e9)  # seconds, ms, µs, ns: their ranges for 1995-2100 do not meet
_RFC3339 = (
    r"^(?<date>\d{4}-\d{2}-\d{2})(?:[Tt ](?<hm>\d{2}:\d{2})(?::(?<s>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?:[Zz]|UTC|(?<sign>[+-])(?<oh>\d{2}):?(?<om>\d{2}))?$"
)


def texts(column: pl.Series) -> pl.Series:
    """Any column as text; null where missing or empty. Lists and structs become marked JSON, which no plain value passes as."""
    if column.dtype == pl.Null:
        return column.cast(pl.String)
    if column.dtype.is_nested():
        cells = [None if v is None else LIST_MARK + json.dumps(v, default=str) for v in column.to_list()]
        return pl.Series(column.name, cells, pl.String)
    if column.dtype == pl.Binary:
        return pl.Series(column.name, [_decoded(v) for v in column.to_list()], pl.String)
    text = column if column.dtype == pl.String else column.cast(pl.String, strict=False)
    return text.set(text == "", None)


def _decoded(value: bytes | None) -> str | None:
    try:
        return value.decode("utf-8") or None if value is not None else None
    except UnicodeDecodeError:
        return LIST_MARK


def missing(text: pl.Series) -> Bool:
    """[row] whether there is no value."""
    return text.is_null().to_numpy()


def bad_ids(text: pl.Series) -> Bool:
    """[row] whether an id is longer than 128 bytes or holds a control character."""
    wrong = (text.str.len_bytes() > ID_BYTES) | text.str.contains(r"\p{Cc}")
    return wrong.fill_null(False).to_numpy()


def numbers(column: pl.Series) -> tuple[F64, Bool]:
    """(value, NaN where missing; whether it is no finite number). NaN in a file is a missing value."""
    if column.dtype.is_numeric():
        value = column.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
        return value, np.isinf(value)
    text = texts(column).str.strip_chars()
    text = text.set(text.str.to_lowercase().is_in(["", "nan", "null", "none", "na"]), None)
    parsed = text.cast(pl.Float64, strict=False)
    value = parsed.fill_null(float("nan")).to_numpy().astype(np.float64)
    return value, ~missing(text) & ~np.isfinite(value)


def whole_numbers(column: pl.Series, low: int, high: int) -> tuple[I64, Bool, Bool]:
    """(value, 0 where missing; whether missing; whether it is no whole number in [low, high])."""
    value, bad = numbers(column)
    absent = np.isnan(value) & ~bad
    known = np.where(np.isfinite(value), value, 0)
    bad = bad | (~absent & ((known != np.floor(known)) | (known < low) | (known > high)))
    return np.where(bad, 0, known).astype(np.int64), absent, bad


def flags(column: pl.Series) -> tuple[I8, Bool]:
    """(1 yes, 0 no, -1 missing; whether it is neither)."""
    text = texts(column).str.strip_chars().str.to_lowercase()
    text = text.set(text.is_in(["nan", "null", "none"]), None)
    yes = text.is_in(["true", "1", "1.0", "yes", "t"]).fill_null(False).to_numpy()
    no = text.is_in(["false", "0", "0.0", "no", "f"]).fill_null(False).to_numpy()
    absent = missing(text)
    return (yes.astype(np.int8) - absent.astype(np.int8)).astype(np.int8), ~(yes | no | absent)


def times(column: pl.Series) -> tuple[I64, Bool, Bool]:
    """(unix seconds, 0 where unusable; whether missing or no time; whether outside 1995-2100).

    Epoch seconds, ms, µs and ns are told apart by size; RFC 3339 text without a zone is UTC.
    """
    if column.dtype.is_temporal() and column.dtype in (pl.Datetime, pl.Date):
        seconds = column.dt.epoch("s").cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64)
    elif column.dtype.is_numeric():
        seconds = _seconds_of_numbers(numbers(column)[0])
    else:
        text = texts(column).str.strip_chars()
        number = text.cast(pl.Float64, strict=False)
        seconds = _seconds_of_numbers(number.fill_null(float("nan")).to_numpy().astype(np.float64))
        if np.isnan(seconds).any():
            seconds = np.where(number.is_null().to_numpy(), _seconds_of_text(text), seconds)
    unusable = ~np.isfinite(seconds)
    known = np.where(unusable, FIRST_TIME, seconds)
    outside = (known < FIRST_TIME) | (known >= LAST_TIME)
    return np.where(unusable | outside, 0, known).astype(np.int64), unusable, outside


def _seconds_of_numbers(value: F64) -> F64:
    """[row] epoch numbers of any unit as seconds; the number itself where no unit brings it into 1995-2100."""
    seconds = value.copy()
    for unit in _UNITS[1:]:
        inside = (value >= FIRST_TIME * unit) & (value < LAST_TIME * unit)
        seconds[inside] = value[inside] / unit
    whole: F64 = np.floor(seconds)
    return whole


def _seconds_of_text(text: pl.Series) -> F64:
    """[row] RFC 3339 as seconds, NaN where it is none."""
    parts = text.str.extract_groups(_RFC3339).struct
    clock = parts.field("hm").fill_null("00:00") + ":" + parts.field("s").fill_null("00")
    moment = (parts.field("date") + "T" + clock).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False)
    offset = parts.field("oh").cast(pl.Float64).fill_null(0.0) * 3600 + parts.field("om").cast(pl.Float64).fill_null(0.0) * 60
    sign = np.where((parts.field("sign") == "-").fill_null(False).to_numpy(), -1.0, 1.0)
    seconds: NDArray[np.float64] = moment.dt.epoch("s").cast(pl.Float64).fill_null(float("nan")).to_numpy()
    shifted: F64 = seconds - sign * offset.to_numpy()
    return shifted


def money(column: pl.Series) -> tuple[F64, Bool]:
    """As `numbers`, with a currency sign and commas between thousands allowed: `$1,299.00`."""
    if column.dtype.is_numeric():
        return numbers(column)
    text = texts(column).str.strip_chars(" $€£¥")
    grouped = text.str.contains(r"^\d{1,3}(,\d{3})+(\.\d+)?$").fill_null(False)
    return numbers(text.str.replace_all(",", "").zip_with(grouped, text))


def lists(column: pl.Series) -> pl.Series:
    """Lists of text: from lists, JSON text, or parts joined by a bar. Null where empty. Shape [row]."""
    if isinstance(column.dtype, pl.List) and column.dtype.inner == pl.String:
        rows: list[list[str] | None] = column.to_list()
        parsed = [[p for p in row if p] or None if row else None for row in rows]
    else:
        parsed = [_parts(cell) for cell in texts(column).to_list()]
    return pl.Series(column.name, parsed, pl.List(pl.String))


def prose(column: pl.Series) -> pl.Series:
    """Text, with the parts of a list joined by spaces. Shape [row]."""
    text = texts(column)
    parts = text.str.starts_with(LIST_MARK).fill_null(False)
    return lists(text.set(~parts, None)).list.join(" ").zip_with(parts, text).alias(column.name)


def _parts(cell: str | None) -> list[str] | None:
    if cell is None:
        return None
    text = cell.removeprefix(LIST_MARK).strip()
    if text.startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = [text]
        return [str(v) for v in values if isinstance(v, str | int | float) and str(v)] or None
    return [part.strip() for part in text.split("|") if part.strip()] or None
