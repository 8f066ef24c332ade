"""Where bad rows go: a file that names each, and counts that add up. Knows no rule: reasons come in as words.

Rows in = accepted + quarantined, for every file, to the row.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from pagellm.data.rows import BadRow, Batch
from pagellm.errors import UsageError
from pagellm.types import Bool

HARMLESS = frozenset({"repeated_event", "repeated_item", "repeated_user", "repeated_order_line"})
"""Reasons that tell of a second copy of an accepted row: they do not count against the share of rejected rows."""

SAMPLES = 3


class Rules:
    """The verdict on a batch: per row the first reason for which it fails, if any."""

    def __init__(self, rows: int) -> None:
        self.reason = np.zeros(rows, np.int16)  # [row] 0 passes, else place in `names`
        self.names = [""]

    def fail(self, where: Bool, reason: str) -> None:
        """Marks the rows that fail here and have not failed before."""
        self.names.append(reason)
        self.reason[(self.reason == 0) & where] = len(self.names) - 1

    @property
    def passed(self) -> Bool:
        """[row] whether a row broke no rule."""
        good: Bool = self.reason == 0
        return good


@dataclass
class FileCount:
    """What became of the rows of one file."""

    file: str
    rows: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # quarantined rows by reason
    samples: dict[str, list[BadRow]] = field(default_factory=dict)  # the first few of each reason

    @property
    def quarantined(self) -> int:
        """Rows that were not accepted."""
        return sum(self.reasons.values())

    @property
    def reject_share(self) -> float:
        """Share of the rows that were rejected for a fault; second copies do not count."""
        return sum(n for reason, n in self.reasons.items() if reason not in HARMLESS) / max(1, self.rows)


class Quarantine:
    """Counts the rows of every file and writes the bad ones to `path` as NDJSON, if one is given and any is bad."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.files: dict[str, FileCount] = {}
        self._stream: IO[str] | None = None

    def __enter__(self) -> Quarantine:
        if self.path is not None and self.path.exists():
            self.path.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is not None:
            self._stream.close()

    def count(self, file: str) -> FileCount:
        """The running count of a file."""
        return self.files.setdefault(file, FileCount(file))

    def take(self, file: str, batch: Batch, rules: Rules) -> Bool:
        """Counts a batch, writes its bad rows, and returns which rows of its frame were accepted. Shape [row]."""
        count = self.count(file)
        count.rows += len(batch) + len(batch.bad)
        passed = rules.passed
        count.accepted += int(passed.sum())
        for bad in batch.bad:
            self._write(count, bad)
        for place in np.flatnonzero(~passed):
            self._write(count, batch.evidence(int(place), rules.names[rules.reason[place]]))
        return passed

    def take_back(self, file: str, bad: BadRow) -> None:
        """Quarantines a row that was accepted before a rule over many rows found it at fault."""
        count = self.count(file)
        count.accepted -= 1
        self._write(count, bad)

    def _write(self, count: FileCount, bad: BadRow) -> None:
        count.reasons[bad.reason] += 1
        samples = count.samples.setdefault(bad.reason, [])
        if len(samples) < SAMPLES:
            samples.append(bad)
        if self.path is None:
            return
        if self._stream is None:
            try:
                self._stream = self.path.open("w", encoding="utf-8")
            except OSError as problem:
                raise UsageError(f"The quarantine file {self.path} cannot be written: {problem}. Name another one.") from problem
        record = {"file": count.file, "row": bad.row, "reason": bad.reason, "sha256": bad.sha256, "excerpt": bad.excerpt}
        self._stream.write(json.dumps(record) + "\n")
