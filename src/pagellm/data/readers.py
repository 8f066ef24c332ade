"""From a data folder to one checked `Log`: finds the files, reads them, runs every check. The border; after it, trust.

`read_log` is for stages: it raises on anything wrong. `check_log` is for people: it tells all that it found.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pagellm.catalog import Catalog
from pagellm.data import amazon
from pagellm.data.checks import catalog_findings, log_findings
from pagellm.data.columns import EVENT_LOG, IMPRESSIONS, INTERACTIONS, ITEMS, missing
from pagellm.data.feedback import read_feedback
from pagellm.data.files import SUFFIXES, columns_of, find
from pagellm.data.findings import Finding, quarantine_findings, rejected_lines
from pagellm.data.fingerprint import fingerprint
from pagellm.data.ids import Ids
from pagellm.data.impressions import read_pages
from pagellm.data.interactions import Money, read_interactions
from pagellm.data.items import read_catalog, read_users
from pagellm.data.log import Log
from pagellm.data.page_checks import page_findings
from pagellm.data.page_log import page_records
from pagellm.data.quarantine import FileCount, Quarantine
from pagellm.errors import DataError, UsageError
from pagellm.types import Impressions, Interactions

MAX_REJECT_SHARE = 0.01


@dataclass(frozen=True)
class Checked:
    """A log with all that was found on the way. `log` may be looked at even where a finding is an error."""

    log: Log
    files: list[FileCount]
    findings: list[Finding]
    quarantine: Path | None  # None where no file was asked for or no row was bad

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop every stage."""
        return [finding for finding in self.findings if finding.severity == "error"]


def read_log(
    path: Path | str,
    *,
    max_reject_share: float = MAX_REJECT_SHARE,
    quarantine: Path | None = None,
    position_base: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Log:
    """The checked log of a folder. Raises DataError with the first finding that is an error.

    max_reject_share: of the rows of any one file. quarantine: where bad rows are written. position_base: the number that
    the log gives to the first row and column of a page. tell: takes a line for each reason for which rows were left out.
    """
    checked = check_log(path, max_reject_share=max_reject_share, quarantine=quarantine, position_base=position_base)
    if checked.errors:
        others = len(checked.errors) - 1
        more = f" (errors beside it: {others}, see `pagellm data check {_quoted(Path(path))}`)" if others else ""
        raise DataError(f"{checked.log.name}: {checked.errors[0].words}{more}")
    if tell is not None:
        for line in rejected_lines(checked.files):
            tell(line)
    return checked.log


def check_log(
    path: Path | str, *, max_reject_share: float = MAX_REJECT_SHARE, quarantine: Path | None = None, position_base: int = 0
) -> Checked:
    """As `read_log`, but tells every finding. Raises DataError only where the folder cannot be read as a log at all."""
    folder = Path(path)
    _check_arguments(folder, max_reject_share, position_base)
    with Quarantine(quarantine) as store:
        if (release := amazon.detect(folder)) is not None:
            catalog, interactions, damaged, name = amazon.read(release, store)
            impressions, users, label = None, None, release.name
            found = log_findings(interactions, len(catalog), Money(), store.count(release.reviews.name))
        else:
            items_file = required_files(folder)
            catalog, damaged = read_catalog(items_file, store)
            if len(catalog) == 0:
                raise DataError(f"{items_file.name} holds no usable item{_why(store, folder)}. Mend the file.")
            users_file = find(folder, "users")
            users = read_users(users_file, store) if users_file else None
            interactions, impressions, found = _feedback(folder, catalog, store, position_base)
            name, label = folder.resolve().name, None
        files = list(store.files.values())
        where = where_rejected(store, folder)
    layout = folder / "layout.toml"
    mark = fingerprint(catalog.frame, interactions, impressions, users)
    log = Log(name, catalog, interactions, impressions, users, mark, label, layout if layout.is_file() else None)
    findings = [
        *quarantine_findings(files, max_reject_share, where),
        *found,
        *catalog_findings(catalog, damaged),
    ]
    rank = ("error", "warn", "info")
    written = store.path if any(f.quarantined for f in files) else None
    return Checked(log, files, sorted(findings, key=lambda f: rank.index(f.severity)), written)


def _feedback(
    folder: Path, catalog: Catalog, store: Quarantine, base: int
) -> tuple[Interactions, Impressions | None, list[Finding]]:
    items = Ids([str(i) for i in catalog.item_ids])
    file = find(folder, "interactions")
    if file is not None:
        interactions, money = read_interactions(file, items, store)
        return interactions, None, log_findings(interactions, len(catalog), money, store.count(file.name))
    pages_file, events_file = find(folder, "impressions"), find(folder, "events")
    assert pages_file is not None  # required_files has looked
    assert events_file is not None
    users, page_ids = Ids(), Ids()
    pages = read_pages(pages_file, items, users, page_ids, store, base)
    feedback, money = read_feedback(events_file, items, users, page_ids, pages, store, base)
    interactions, impressions = page_records(pages, feedback, users)
    shown, happened = store.count(pages_file.name), store.count(events_file.name)
    found = log_findings(interactions, len(catalog), money, happened)
    return interactions, impressions, [*found, *page_findings(pages, feedback, base, shown, happened)]


def _check_arguments(folder: Path, share: float, base: int) -> None:
    if not folder.is_dir():
        raise DataError(f"There is no data folder {str(folder)!r}. Name a folder with items.* and interactions.* in it.")
    if not 0 <= share <= 1:
        raise UsageError(f"The reject share must lie in [0, 1]. Got {share}.")
    if base not in (0, 1):
        raise UsageError(f"The position base must be 0 or 1. Got {base}.")


def required_files(folder: Path) -> Path:
    """The items file. Raises DataError that names every file that is missing and what came instead."""
    items, log = find(folder, "items"), find(folder, "interactions")
    pages, events = find(folder, "impressions"), find(folder, "events")
    lacking = [] if items else ["items.*"]
    if log is None and pages is None:
        lacking.append("interactions.* (or impressions.* and events.*)")
    elif log is None and events is None:
        lacking.append("events.* (the feedback on impressions.*)")
    if log is not None and pages is not None:
        raise DataError(f"{folder.name} holds interactions.* and impressions.*: a log is one or the other. Take one away.")
    if lacking or items is None:
        for file, table in ((items, ITEMS), (log, INTERACTIONS), (pages, IMPRESSIONS), (events, EVENT_LOG)):
            if file is not None and (columns := columns_of(file)):
                lacking += [f"column {name} in {file.name}" for name in missing(columns, table)]
        raise DataError(
            f"{folder.name} has no {' and no '.join(lacking)}. A data folder holds items.* and either interactions.* or "
            f"impressions.* and events.*, as {', '.join(SUFFIXES)}. It holds: {_inventory(folder)}. "
            "Rename the files and their columns to the contract (docs/data.md)."
        )
    return items


def _inventory(folder: Path) -> str:
    """The files that came, with the columns of those that say them."""
    told = []
    for path in sorted(p for p in folder.iterdir() if p.is_file())[:10]:
        columns = columns_of(path)
        told.append(f"{path.name} ({', '.join(columns[:20])})" if columns else path.name)
    return "; ".join(told) or "no files"


def where_rejected(store: Quarantine, folder: Path) -> str:
    """Where all rejected rows of a folder stand, or how to have them written."""
    if store.path:
        return f"They stand in {store.path}."
    return f"`pagellm data check {_quoted(folder)} --quarantine FILE` writes them all to a file."


def _quoted(folder: Path) -> str:
    return shlex.quote(str(folder))


def _why(store: Quarantine, folder: Path) -> str:
    reasons = [f"{reason} {n:,}" for file in store.files.values() for reason, n in file.reasons.most_common(3)]
    return f": {', '.join(reasons)}. {where_rejected(store, folder)}" if reasons else ": it has no rows"
