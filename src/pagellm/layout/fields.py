"""Columns of the catalog as rules count them: codes an item, -1 where it has no value. Knows no slots, no windows."""

from __future__ import annotations

import numbers
import re

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.errors import LayoutError
from pagellm.layout.select import columns_of, kind_of, near
from pagellm.layout.spec import Dedup, MaxPer, MinPer
from pagellm.types import I32, Bool


def theme(name: str, catalog: Catalog) -> Bool:
    """Items that carry this entry in `categories`, a list or a single text. Shape [item]."""
    kind = kind_of(catalog.frame["categories"]) if "categories" in catalog.frame.columns else "absent"
    if kind not in ("list", "text"):
        raise LayoutError(
            f"A row with theme {name!r} needs a column `categories` of texts in the catalog. It is {kind}. "
            "Add it to the items file, or fill the row with { filter = … }."
        )
    column = catalog.frame["categories"]
    hits = column.list.contains(name) if kind == "list" else column.cast(pl.String) == name
    return np.asarray(hits.fill_null(False).to_numpy(), np.bool_)


def column_of(rule: MaxPer | MinPer, catalog: Catalog) -> pl.Series:
    """The column of a rule's field. Raises LayoutError if the catalog lacks it."""
    name = rule.field.partition("[")[0]
    if name not in catalog.frame.columns:
        known = columns_of(catalog)
        hint = near(name, known) or f" It has: {', '.join(known)}."
        raise LayoutError(f"{rule.name}: {name!r} is not a column of the catalog.{hint}")
    return catalog.frame[name]


def field_codes(rule: MaxPer | MinPer, catalog: Catalog) -> I32:
    """Code of each item's value of the rule's field, -1 where missing; with `value`, 0 for it and -1 for all others. [item]"""
    column = column_of(rule, catalog)
    kind = kind_of(column)
    if ("[" in rule.field) != (kind == "list") and kind != "nothing":
        hint = f"name a part, as in {rule.field}[0]" if kind == "list" else "leave the part out"
        raise LayoutError(f"{rule.name}: column {column.name!r} holds {column.dtype}: {hint}.")
    if kind == "other" or column.dtype.is_float():
        raise LayoutError(f"{rule.name}: column {column.name!r} holds {column.dtype}. Count texts, whole numbers or true/false.")
    if kind == "nothing":
        return np.full(len(catalog), -1, np.int32)
    codes, values = catalog.codes(rule.field)
    if rule.value is None:
        return codes
    wanted = str(rule.value).lower() if isinstance(rule.value, bool) else str(rule.value)
    _check_value(rule, kind, catalog)
    return np.where(codes == (values.index(wanted) if wanted in values else -2), 0, -1).astype(np.int32)


def _check_value(rule: MaxPer | MinPer, kind: str, catalog: Catalog) -> None:
    given = "flag" if isinstance(rule.value, bool) else "number" if isinstance(rule.value, numbers.Number) else "text"
    inner = catalog.frame[rule.field.partition("[")[0]].dtype.inner if kind == "list" else None  # type: ignore[attr-defined]
    held = kind_of(pl.Series([], dtype=inner)) if inner is not None else kind
    if held != given:
        raise LayoutError(
            f"{rule.name}: the field holds {held} values, the rule's value {rule.value!r} is a {given}. Write it as a {held}."
        )


def unit_codes(rule: Dedup, catalog: Catalog) -> I32:
    """Code of what two duplicates share, -1 for an item that is never a duplicate. Shape [item]."""
    if rule.unit == "title":
        keys = [title_key(title) or None for title in catalog.titles]
        place: dict[str | None, int] = {None: -1}
        return np.array([place.setdefault(key, len(place) - 1) for key in keys], np.int32)
    if rule.unit not in catalog.frame.columns:
        raise LayoutError(
            f"{rule.name} needs a column {rule.unit!r} in the catalog. Add it to the items file, or dedup by title."
        )
    if kind_of(catalog.frame[rule.unit]) == "nothing":
        return np.full(len(catalog), -1, np.int32)
    return catalog.codes(rule.unit)[0]


def title_key(title: str) -> str:
    """What two titles must share to count as the same: letters and digits, whatever their case."""
    return re.sub(r"[\W_]+", " ", title.casefold()).strip()
