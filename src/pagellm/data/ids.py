"""Ids to dense codes, batch by batch. What stays in memory of a log's text is its distinct ids, and only here."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.types import I32


class Ids:
    """Codes in order of first appearance, from 0."""

    def __init__(self, known: list[str] | None = None) -> None:
        self._code = {text: code for code, text in enumerate(known or [])}

    def __len__(self) -> int:
        return len(self._code)

    def add(self, texts: pl.Series) -> I32:
        """[row] code of each id, new ones added; -1 for null."""
        for text in texts.unique().drop_nulls().to_list():
            self._code.setdefault(text, len(self._code))
        return self.find(texts)

    def find(self, texts: pl.Series) -> I32:
        """[row] code of each id, -1 for null and for what was never added."""
        distinct = texts.unique().drop_nulls()
        codes = pl.Series([self._code.get(text, -1) for text in distinct.to_list()], dtype=pl.Int32)
        if len(distinct) == 0:
            return np.full(len(texts), -1, np.int32)
        found = texts.replace_strict(distinct, codes, default=-1, return_dtype=pl.Int32)
        return found.fill_null(-1).to_numpy().astype(np.int32)

    def sorted(self) -> tuple[NDArray[np.str_], I32]:
        """(ids in order of their text, `place` [code]: where each code's id stands in that order)."""
        texts = np.array(list(self._code), dtype=np.str_) if self._code else np.empty(0, "<U1")
        order = np.argsort(texts, kind="stable")
        place = np.empty(len(texts), np.int32)
        place[order] = np.arange(len(texts), dtype=np.int32)
        return texts[order], place
