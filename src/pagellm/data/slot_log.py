"""Logs of single slots: which item stood at which position, with its propensity and whether it was clicked. Knows no catalog and no page.

The form of the Open Bandit Dataset (Saito et al. 2021), as its plain CSV files or as Parquet: item_id, position, click, propensity_score.
Its rows were sampled one by one, so pages cannot be put together again. Fetches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.data.cells import bad_ids, flags, missing, numbers, texts, whole_numbers
from pagellm.data.columns import SLOT_LOG, plain
from pagellm.data.columns import missing as lacking
from pagellm.data.files import SUFFIXES, batches, columns_of
from pagellm.data.findings import quarantine_findings
from pagellm.data.quarantine import Quarantine, Rules
from pagellm.data.rows import Batch
from pagellm.errors import DataError
from pagellm.types import F64, I8, I64, Bool

MAX_REJECT_SHARE = 0.01
"""Of the rows; as for the logs of a shop."""


@dataclass(frozen=True)
class SlotLog:
    """Rows of single slots."""

    name: str
    item: NDArray[np.str_]  # [row] ids as in the file
    position: I64  # [row] as in the file
    clicked: Bool  # [row]
    propensity: F64  # [row] NaN where unknown
    unit: I64  # [row] the user, from 0; every row is its own where the file names no users
    named_users: bool

    def __len__(self) -> int:
        return len(self.item)


def read_slot_log(path: Path, policy: str | None = None, only: Mapping[str, str] | None = None) -> SlotLog:
    """The slot log in a file or folder: rows whose policy and whose columns `only` hold these values.

    Raises DataError where it is none, where a column of `only` is missing, where more than 1 % of the rows are bad, or where no row is
    left.
    """
    file = slot_file(path)
    if file is None:
        raise DataError(f"{path} holds no slot log: a file with the columns item_id, position, click and propensity.")
    wanted = dict(only or {}) | ({} if policy is None else {"policy_id": policy})
    with Quarantine(None) as store:
        parts = [_rows(batch, file.name, wanted, store) for batch in batches(file, SLOT_LOG)]
        findings = quarantine_findings(list(store.files.values()), MAX_REJECT_SHARE, f"They stand in {file.name}.")
    for finding in findings:
        if finding.severity == "error":
            raise DataError(f"{file.name}: {finding.words}")
    item, user = (np.concatenate([np.empty(0, "<U1"), *(p[at] for p in parts)]) for at in (0, 4))
    if not len(item):
        chosen = ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "no choice"
        raise DataError(f"{file.name} has no row that is left ({chosen}). Look at the values of these columns.")
    position, clicked, propensity = (np.concatenate([p[at] for p in parts]) for at in (1, 2, 3))
    named = bool((user != "").all())
    unit = np.unique(user, return_inverse=True)[1] if named else np.arange(len(item))
    label = ", ".join([file.stem, *wanted.values()])
    return SlotLog(label, item, position, clicked == 1, propensity, unit.astype(np.int64), named)


def slot_file(path: Path) -> Path | None:
    """The one file here that has the columns of a slot log and no pages; None where there is none. Raises DataError for several."""
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    found = [p for p in files if not lacking(names := _columns(p), SLOT_LOG) and plain("page_id") not in map(plain, names)]
    if len(found) > 1:
        raise DataError(f"{path.name} holds {len(found)} slot logs: {', '.join(p.name for p in found)}. Name the file.")
    return found[0] if found else None


def _columns(path: Path) -> list[str]:
    """Column names of a Parquet or CSV file, read no further; none where they cannot be read."""
    if path.name.endswith((".csv", ".csv.gz")):
        try:
            return pl.read_csv(path, n_rows=0, infer_schema=False, truncate_ragged_lines=True).columns
        except (pl.exceptions.PolarsError, OSError):
            return []
    return columns_of(path)


def _rows(
    batch: Batch, file: str, wanted: Mapping[str, str], store: Quarantine
) -> tuple[NDArray[np.str_], I64, I8, F64, NDArray[np.str_]]:
    """(item, position, clicked, propensity, user, "" where unknown) of the wanted sound rows of a batch."""
    rules = Rules(len(batch))
    item, user = texts(batch.column("item_id")), texts(batch.column("user_id"))
    position, absent, bad = whole_numbers(batch.column("position"), 0, 32_767)
    clicked, unclear = flags(batch.column("click"))
    propensity, no_number = numbers(batch.column("propensity"))
    rules.fail(missing(item), "missing_item_id")
    rules.fail(bad_ids(item), "bad_item_id")
    rules.fail(absent, "missing_position")
    rules.fail(bad, "bad_position")
    rules.fail(unclear | (clicked < 0), "bad_click")
    rules.fail(no_number | (propensity <= 0) | (propensity > 1), "propensity_out_of_range")
    good = store.take(file, batch, rules)
    for name, value in wanted.items():
        good = good & _holds(batch, file, name, value)
    kept = pl.Series(good)
    ids, users = (column.fill_null("").filter(kept).to_numpy().astype(np.str_) for column in (item, user))
    return ids, position[good], clicked[good], propensity[good], users


def _holds(batch: Batch, file: str, name: str, value: str) -> Bool:
    """[row] whether a column holds this value."""
    if name not in batch.frame.columns:
        columns = ", ".join(batch.frame.columns[:40])
        raise DataError(f"{file} has no column {name}, so its rows cannot be chosen by it. Its columns are: {columns}.")
    return (texts(batch.column(name)) == value).fill_null(False).to_numpy()
