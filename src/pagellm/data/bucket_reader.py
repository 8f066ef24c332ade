"""From a data folder of logged pages to `LogBuckets`: `read_log` for logs that memory does not hold. The border; after it, trust.

Every row is accepted or quarantined under the rules of `read_log`. Not read: users.*, which mining does not need. Not done: the
fingerprint, which needs all records in one order, and the findings that only warn, which `pagellm data check` tells.
"""

from __future__ import annotations

from pathlib import Path

from pagellm.data.checks import money_findings, no_positive_feedback
from pagellm.data.files import find
from pagellm.data.findings import Finding, quarantine_findings
from pagellm.data.ids import Ids
from pagellm.data.items import read_catalog
from pagellm.data.log_buckets import LogBuckets, fill_buckets
from pagellm.data.page_checks import no_feedback_on_pages, no_pages
from pagellm.data.quarantine import FileCount, Quarantine
from pagellm.data.readers import MAX_REJECT_SHARE, required_files, where_rejected
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
    findings = [
        *quarantine_findings(list(store.files.values()), MAX_REJECT_SHARE, where_rejected(store, folder)),
        *money_findings(rows.money),
        *_empty(buckets, store.count(pages_file.name), store.count(events_file.name)),
    ]
    for finding in findings:
        if finding.severity == "error":
            raise DataError(f"{folder.name}: {finding.words}")
    return buckets


def _empty(buckets: LogBuckets, shown: FileCount, happened: FileCount) -> list[Finding]:
    """Errors of a log in which nothing can be learned. `shown` and `happened` as in `page_findings`."""
    if not buckets.n_pages:
        return [no_pages(shown)]
    if not buckets.days:
        return [no_positive_feedback(happened)]
    if not buckets.on_slots:
        return [no_feedback_on_pages(buckets.strays, happened)]
    return []
