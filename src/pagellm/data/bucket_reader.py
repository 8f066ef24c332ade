"""From a data folder of logged pages to `LogBuckets`: `read_log` for logs that memory does not hold. The border; after it, trust.

Every row is accepted or quarantined under the rules of `read_log`. Not read: users.*, which mining does not need. Not done: the
fingerprint, which needs all records in one order, and the findings that only warn, which `pagellm data check` tells.
"""

from __future__ import annotations

from pathlib import Path

from pagellm.data.checks import money_findings
from pagellm.data.files import find
from pagellm.data.findings import Finding, quarantine_findings
from pagellm.data.ids import Ids
from pagellm.data.items import read_catalog
from pagellm.data.log_buckets import LogBuckets, fill_buckets
from pagellm.data.quarantine import Quarantine
from pagellm.data.readers import MAX_REJECT_SHARE, required_files
from pagellm.data.sound_rows import SoundRows
from pagellm.errors import DataError, UsageError

_BUCKET_BYTES = 2**20
"""Bytes of the log's files a bucket: between 100,000 and 500,000 slots of compressed Parquet, a tenth of that in text."""


def bucket_count(folder: Path) -> int:
    """A power of two of buckets that are small enough for memory, by the size of the log's files."""
    size = sum(file.stat().st_size for name in ("impressions", "events") if (file := find(folder, name)))
    return 1 << (size // _BUCKET_BYTES).bit_length()


def read_buckets(folder: Path, scratch: Path, count: int, store: Quarantine, base: int = 0) -> LogBuckets:
    """The accepted records of a folder, `count` buckets of users in the folder `scratch`.

    Raises DataError with the first error, as `read_log` does, UsageError for a log without pages or a folder that cannot be written.
    """
    items_file = required_files(folder)
    pages_file, events_file = find(folder, "impressions"), find(folder, "events")
    if pages_file is None or events_file is None:
        raise UsageError(f"{folder.name} logs no pages. A large log has impressions.* and events.*; mine others without --large.")
    catalog, _ = read_catalog(items_file, store)
    if len(catalog) == 0:
        raise DataError(f"{items_file.name} holds no usable item. Mend the file.")
    items, rows = Ids([str(i) for i in catalog.item_ids]), SoundRows(scratch, count, store)
    rows.read_pages(pages_file, items, base)
    rows.read_events(events_file, items, base)
    buckets = fill_buckets(rows, catalog, scratch, count)
    where = f"They stand in {store.path}." if store.path else "Name a quarantine file to keep them (--quarantine FILE)."
    findings = [
        *quarantine_findings(list(store.files.values()), MAX_REJECT_SHARE, where),
        *money_findings(rows.money),
        *_empty(buckets),
    ]
    for finding in findings:
        if finding.severity == "error":
            raise DataError(f"{folder.name}: {finding.code}: {finding.message} {finding.change}")
    return buckets


def _empty(buckets: LogBuckets) -> list[Finding]:
    """Errors of a log in which nothing can be learned."""
    look = "Look at what `pagellm data check` says of this folder."
    if not buckets.n_pages:
        return [Finding("no_pages", "error", 0, 0, "no page was accepted, so there is nothing to learn from", look)]
    if not buckets.days:
        return [
            Finding("no_positive_feedback", "error", 0, 0, "no engagement was accepted, so there is nothing to learn from", look)
        ]
    if not buckets.on_slots:
        return [
            Finding("no_feedback_on_pages", "error", 0, 0, "no click, cart or purchase belongs to a slot of a logged page", look)
        ]
    return []
