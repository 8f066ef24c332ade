"""The items that may be shown. Comes from a checked table, gives ids, titles and field codes; knows no log, no torch."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.errors import DataError
from pagellm.types import I32, NO_ITEM, Bool

TITLE_CHARS = 200
"""Titles are cut here: beyond it no shop shows more, and 5,000-character titles are an attack or an accident."""

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, bidi and zero-width, surrogates, private use, unassigned


def clean_text(text: str | None, limit: int = TITLE_CHARS) -> str:
    """Untrusted text as plain characters: NFKC, no control, bidi or zero-width characters, single spaces, cut at `limit`."""
    if not text:
        return ""
    normal = unicodedata.normalize("NFKC", text[: 4 * limit])
    plain = "".join(" " if c in "\t\n\r\x0b\x0c\u2028\u2029" else c for c in normal)
    kept = "".join(c for c in plain if unicodedata.category(c) not in _HIDDEN)
    return " ".join(kept.split())[:limit]


@dataclass(frozen=True)
class Catalog:
    """All items that may be shown, in a fixed order; an item's index is its place in that order."""

    frame: pl.DataFrame  # one row an item: item_id (str), title (str), then any of the optional columns of the contract
    _cache: dict[str, tuple[I32, list[str]]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def item_ids(self) -> NDArray[np.str_]:
        """[item] ids as in the log."""
        return self.frame["item_id"].to_numpy().astype(np.str_)

    @cached_property
    def titles(self) -> list[str]:
        """[item] titles, cleaned for display and for the model."""
        return [clean_text(t) for t in self.frame["title"].to_list()]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {str(v): i for i, v in enumerate(self.item_ids)}

    def index(self, item_id: str) -> int:
        """The item's place in the catalog, or NO_ITEM if the catalog does not hold it."""
        return self._index.get(item_id, NO_ITEM)

    def indexes(self, item_ids: Iterable[str]) -> I32:
        """Places of many items. Raises DataError for the first that the catalog does not hold."""
        found = []
        for item_id in item_ids:
            place = self.index(item_id)
            if place == NO_ITEM:
                raise DataError(
                    f"Item {item_id!r} is not in the catalog ({len(self):,} items). "
                    "Use an item_id of the catalog that the run was trained with."
                )
            found.append(place)
        return np.array(found, np.int32)

    @property
    def shown(self) -> Bool:
        """[item] what may be shown at all: every item whose flag `hidden` is not set."""
        if "hidden" not in self.frame.columns or self.frame["hidden"].dtype != pl.Boolean:
            return np.ones(len(self), bool)
        return ~self.frame["hidden"].fill_null(False).to_numpy()

    def has(self, name: str) -> bool:
        """Whether the catalog has this column with at least one value."""
        return name in self.frame.columns and self.frame[name].null_count() < len(self)

    def codes(self, name: str) -> tuple[I32, list[str]]:
        """A column as codes [item] and the values they stand for; -1 where missing. `categories[0]` takes a list's part."""
        if name not in self._cache:
            column = self._column(name).cast(pl.String)
            values = column.unique().drop_nulls().sort()
            place = {v: i for i, v in enumerate(values.to_list())}
            codes = np.array([place.get(v, -1) for v in column.to_list()], np.int32)
            self._cache[name] = (codes, values.to_list())
        return self._cache[name]

    def _column(self, name: str) -> pl.Series:
        base, _, part = name.partition("[")
        if base not in self.frame.columns:
            raise DataError(
                f"Field {name!r} is not a column of the catalog. It has: {', '.join(self.frame.columns)}. "
                "Name one of these, or add the column to the items file."
            )
        column = self.frame[base]
        return column.list.get(int(part.rstrip("]")), null_on_oob=True) if part else column
