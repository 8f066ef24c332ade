"""What the checks found, as records: a code, how bad, how often, a sample, the line to change. Knows no data.

An `error` stops every stage (exit code 3), a `warn` does not, an `info` is worth knowing beside any result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pagellm.data.quarantine import HARMLESS, FileCount

Severity = Literal["error", "warn", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found."""

    code: str
    severity: Severity
    count: int  # rows, items or pages concerned
    total: int  # of so many
    message: str  # what it is and what it means
    change: str  # what to do, down to the option or the column
    samples: tuple[str, ...] = ()  # a few, safe to print

    @property
    def share(self) -> float:
        """`count` of `total`."""
        return self.count / self.total if self.total else 0.0

    @property
    def words(self) -> str:
        """The finding as an error says it."""
        return f"{self.code}: {self.message.rstrip('.')}. {self.change}"


CHANGES = {
    "bad_json": "Write one JSON object a line.",
    "bad_utf8": "Write the file as UTF-8.",
    "bad_quotes": "Quote a field that holds a quote or the delimiter, and double the quotes in it (RFC 4180).",
    "wrong_number_of_fields": "Give every line as many fields as the header, and quote fields that hold the delimiter.",
    "line_too_long": "Keep a row under 1 MiB.",
    "not_an_object": "Write each row as a JSON object with the names of the columns.",
    "nested_too_deep": "Write rows without deep nesting.",
    "unknown_item": "Add the items to the items file, or write the log with the item_id that the catalog uses.",
    "bad_currency": "Write the column currency as ISO 4217, for instance EUR.",
    "bad_timestamp": "Write the time as epoch seconds, ms or µs, or as RFC 3339 (2026-11-23T10:00:00Z).",
    "time_out_of_range": "Times must lie in 1995-2100: look at the unit and the clock of the logger.",
    "unknown_event": "Use the contract's event names: select_item, view_item, add_to_cart, purchase, refund, rate, dismiss, …",
    "not_an_engagement": "Keep page views, slot views, dismissals and refunds in events.* beside impressions.*.",
    "propensity_out_of_range": "Write the column propensity as a probability in (0, 1], and leave it empty where it is unknown.",
    "bad_click": "Write the column click as 1 or 0.",
    "position_below_base": "Rows and columns count from 0 unless --position-base 1 is given: give the base that the log uses.",
    "missing_position": "Give each slot row and col, or a slot_id like r0c3.",
    "bad_position": "Rows and columns are whole numbers below 32,768.",
    "two_items_in_one_slot": "A page's slot holds one item: look at how row and col are written.",
    "page_incomplete": "Mend the other rejected rows of these pages; a page is accepted whole or not at all.",
    "page_rows_disagree": "All rows of a page must name the same user, time and policy.",
    "page_without_slots": "Fill the column slots of each page, or leave out pages that showed nothing.",
    "bad_slots": "Write slots as a list of objects with item_id, row and col.",
    "duplicate_page": "Give each page view a page_id of its own.",
    "event_before_page": "Feedback cannot come before its page (column timestamp): look at the clocks and time zones of the two loggers.",
    "unknown_slot": "Name the item of the event (item_id), or a slot_id that stands on its page.",
    "duplicate_event": "Give each event an event_id of its own: the first of these rows was kept.",
    "duplicate_item": "Give each item one row: the first of these rows was kept.",
    "duplicate_user": "Give each user one row: the first of these rows was kept.",
    "repeated_event": "Nothing: the same event was sent twice and is counted once.",
    "repeated_item": "Nothing: the row is a copy of an earlier one.",
    "repeated_user": "Nothing: the row is a copy of an earlier one.",
    "repeated_order_line": "Nothing: the line of this order is counted once.",
}
"""What to change for each reason of quarantine; reasons missing_X and bad_X not listed name their column."""


def quarantine_findings(files: list[FileCount], max_reject_share: float, where: str) -> list[Finding]:
    """One finding for each file above the share, one for each reason of each file."""
    found: list[Finding] = []
    for file in files:
        if file.reject_share > max_reject_share:
            found.append(_too_many(file, max_reject_share, where))
        for reason, count in file.reasons.most_common():
            samples = tuple(f"row {bad.row}: {bad.excerpt}" for bad in file.samples[reason])
            severity: Severity = "info" if reason in HARMLESS else "warn"
            found.append(
                Finding(reason, severity, count, file.rows, f"{file.file}: rows quarantined", change_for(reason), samples)
            )
    return found


def change_for(reason: str) -> str:
    """The advice for a reason of quarantine."""
    column = reason.partition("_")[2]
    if reason in CHANGES:
        return CHANGES[reason]
    if reason.startswith("missing_"):
        return f"Fill the column {column}: it is required."
    return f"Mend the column {column}: an id is 1-128 bytes without control characters, a number is finite."


def reasons_of(file: FileCount, most: int = 4) -> str:
    """The commonest faults of a file's rows, each with its count and its first row."""
    return ", ".join(f"{reason} {count:,} (first in row {_first(file, reason)})" for reason, count in _faults(file)[:most])


def rejected_lines(files: Iterable[FileCount]) -> list[str]:
    """A line for each reason for which rows were left out: how many of how many, the first of them, what to change."""
    return [
        f"{file.file}: {count:,} of {file.rows:,} rows left out as {reason}, first row {_first(file, reason)}. {change_for(reason)}"
        for file in files
        for reason, count in file.reasons.most_common()
    ]


def change_of(file: FileCount, otherwise: str) -> str:
    """The advice for the commonest fault of a file's rows; `otherwise` where they have none."""
    faults = _faults(file)
    return change_for(faults[0][0]) if faults else otherwise


def _faults(file: FileCount) -> list[tuple[str, int]]:
    return [(reason, count) for reason, count in file.reasons.most_common() if reason not in HARMLESS]


def _first(file: FileCount, reason: str) -> str:
    return f"{min(bad.row for bad in file.samples[reason]):,}"


def _too_many(file: FileCount, max_reject_share: float, where: str) -> Finding:
    rejected = round(file.reject_share * file.rows)
    return Finding(
        "too_many_rejected",
        "error",
        rejected,
        file.rows,
        f"{file.file}: {rejected:,} of {file.rows:,} rows ({file.reject_share:.1%}) were rejected, more than "
        f"{max_reject_share:.1%}. Top reasons: {reasons_of(file)}. {where}",
        change_of(file, ""),
    )
