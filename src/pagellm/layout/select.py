"""Which items a `where` or `filter` means. Takes a parsed expression and a catalog, returns a flag an item. Knows no rules.

Logic has two values: a test of a column that an item lacks is false, and `not` turns it to true.
`age_days` is a column of its own: days from `created_at` to now.
"""

from __future__ import annotations

import operator
from difflib import get_close_matches

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.layout.where import (
    Both,
    Compare,
    Either,
    Expression,
    Field,
    Flag,
    Holds,
    Missing,
    Not,
    Value,
    Within,
    fail,
    parse_where,
)
from pagellm.types import DAY, Bool

AGE = "age_days"

_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_KINDS = {"number": "a number", "text": "a text in quotes", "flag": "true or false"}


def select(text: str, catalog: Catalog, now: int) -> Bool:
    """The items for which the expression holds. Shape [item]. Raises LayoutError that points at the column or value."""
    return _Selection(text, catalog, now).test(parse_where(text))


def columns_of(catalog: Catalog) -> list[str]:
    """Names that expressions and fields may use."""
    names = list(catalog.frame.columns)
    return [*names, AGE] if "created_at" in names and AGE not in names else names


def near(name: str, known: list[str] | tuple[str, ...]) -> str:
    """`Did you mean …?`, or nothing if no known name is near."""
    found = get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def kind_of(column: pl.Series) -> str:
    """What a column holds: number, text, flag, list, nothing (no value at all) or other."""
    if column.dtype.is_numeric():
        return "number"
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    kinds = {pl.Boolean: "flag", pl.List: "list", pl.Null: "nothing"}
    return next((kind for dtype, kind in kinds.items() if column.dtype == dtype), "other")


def age_days(column: pl.Series, now: int) -> pl.Series:
    """Days from a `created_at` column (dates, times or unix seconds) to `now` in unix seconds."""
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    seconds = column.dt.epoch("us") / 1e6 if column.dtype == pl.Datetime else column.cast(pl.Float64, strict=False)
    return (now - seconds) / DAY


class _Selection:
    """One expression over one catalog."""

    def __init__(self, text: str, catalog: Catalog, now: int) -> None:
        self.text, self.catalog, self.now = text, catalog, now

    def test(self, tree: Expression) -> Bool:
        match tree:
            case Both(left, right):
                return self.test(left) & self.test(right)
            case Either(left, right):
                return self.test(left) | self.test(right)
            case Not(part):
                return ~self.test(part)
            case Missing(field):
                return _flags(self.column(field).is_null())
            case Flag(field):
                column = self.of_kind(field, "flag", "true")
                return _flags(column)
            case Holds(text, field):
                return self.holds(text, field)
            case Within(field, values):
                return np.asarray(np.any([self.compare(Compare(field, "==", value)) for value in values], axis=0), np.bool_)
            case Compare():
                return self.compare(tree)

    def column(self, field: Field) -> pl.Series:
        frame = self.catalog.frame
        if field.name == AGE and AGE not in frame.columns and "created_at" in frame.columns:
            column = age_days(frame["created_at"], self.now)
        elif field.name in frame.columns:
            column = frame[field.name]
        else:
            hint = near(field.name, columns_of(self.catalog)) or f" It has: {', '.join(columns_of(self.catalog))}."
            fail(self.text, field.at, f"{field.name!r} is not a column of the catalog.{hint}")
        if field.part is not None:
            if kind_of(column) not in ("list", "nothing"):
                fail(
                    self.text,
                    field.at,
                    f"Only a list column has parts. {field.name!r} holds {column.dtype}: leave [{field.part}] out.",
                )
            column = column.list.get(field.part, null_on_oob=True) if kind_of(column) == "list" else column
        return column.fill_nan(None) if column.dtype.is_float() else column

    def of_kind(self, field: Field, kind: str, example: str) -> pl.Series:
        column = self.column(field)
        got = kind_of(column)
        if got == "nothing":
            return pl.Series([None] * len(column), dtype=pl.Boolean)
        if got != kind:
            hint = (
                f"Compare it with {_KINDS[got]}"
                if got in _KINDS
                else "Such columns take `is missing` and, if lists, 'text' in column"
            )
            fail(
                self.text, field.at, f"Column {field.name!r} holds {column.dtype}, which cannot be tested with {example}. {hint}."
            )
        return column

    def compare(self, test: Compare) -> Bool:
        kind = _kind_of_value(test.value)
        column = self.of_kind(test.field, kind, f"{test.sign} {test.value!r}")
        if column.dtype == pl.Boolean and kind != "flag":  # no value at all
            return np.zeros(len(column), np.bool_)
        if test.sign in ("==", "!="):
            same = column.cast(pl.Float64) == test.value if kind == "number" else column.cast(_PLAIN[kind]) == test.value
            return _flags(same if test.sign == "==" else ~same)
        if kind != "number":
            fail(self.text, test.field.at, f"Only numbers have an order. Use == or != for {test.field.name!r}.")
        numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return np.asarray(_ORDER[test.sign](numbers, test.value), np.bool_)

    def holds(self, text: str, field: Field) -> Bool:
        column = self.column(field)
        if kind_of(column) == "nothing":
            return np.zeros(len(column), np.bool_)
        if kind_of(column) != "list":
            fail(
                self.text,
                field.at,
                f"Only a list column holds texts. {field.name!r} holds {column.dtype}: write {field.name} == {text!r}.",
            )
        return _flags(column.cast(pl.List(pl.String)).list.contains(text))


_PLAIN = {"text": pl.String, "flag": pl.Boolean}


def _kind_of_value(value: Value) -> str:
    if isinstance(value, bool):
        return "flag"
    return "text" if isinstance(value, str) else "number"


def _flags(column: pl.Series) -> Bool:
    return np.asarray(column.fill_null(False).to_numpy(), np.bool_)
