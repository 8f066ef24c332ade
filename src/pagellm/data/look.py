"""How much each place of a page is looked at: as a log taught it, or by reading order where no log of pages says anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pagellm.data.examination import Examination, fill_gaps
from pagellm.types import F32, F64, NO_ITEM


@dataclass(frozen=True)
class Look:
    """Chances that places are looked at. Without `seen` the place in reading order decides, 1 / log2(place + 2), as in DCG
    (Järvelin and Kekäläinen 2002)."""

    seen: F64 | None = None  # [row, col] relative to the best place

    def of(self, pages: np.ndarray, row: np.ndarray, col: np.ndarray) -> F32:
        """The chance of each slot, 0 for empty ones. All [page, slot] in reading order."""
        return np.where(pages != NO_ITEM, self.at(row, col, np.arange(pages.shape[1])), 0).astype(np.float32)

    def at(self, row: np.ndarray, col: np.ndarray, place: np.ndarray) -> F64:
        """The chance at row, column and place in reading order, all from 0; beyond the log's grid that of its last row or column."""
        if self.seen is None:
            return np.asarray(1 / np.log2(place + 2), np.float64)
        r, c = np.minimum(row, self.seen.shape[0] - 1), np.minimum(col, self.seen.shape[1] - 1)
        return np.asarray(self.seen[r, c], np.float64)

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {"seen": None if self.seen is None else np.round(self.seen, 6).tolist()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Look:
        """The look as saved."""
        return cls(None if saved["seen"] is None else np.array(saved["seen"], np.float64))

    @classmethod
    def learned(cls, examination: Examination | None) -> Look:
        """Of a log's pages; by reading order without."""
        return cls() if examination is None else cls(fill_gaps(examination.seen))
