"""Checks over accepted records that hold for any log: catalog, time, ties, popularity, money. Knows no file and no page.

Each check is a function that gives a finding or nothing. Thresholds stand beside the check that they belong to.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pagellm.catalog import Catalog, clean_text
from pagellm.data.findings import Finding, change_of, reasons_of
from pagellm.data.interactions import Money
from pagellm.data.quarantine import FileCount
from pagellm.data.split_card import CORE, CORE_SHARE, core_share
from pagellm.data.splits import temporal_split
from pagellm.types import DAY, Interactions

USER_DAY_EVENTS = 200
"""More engagements of one user on one day than a person makes."""


def catalog_findings(catalog: Catalog, damaged: Counter[str]) -> list[Finding]:
    """Findings on the items: missing titles, damaged fields, titles shared, prices without currency."""
    n, frame = len(catalog), catalog.frame
    found = []
    for column, count in damaged.items():
        if column == "title":
            message = "items have no title: nothing tells a model what they are until someone takes them"
            found.append(Finding("items_without_title", "warn", count, n, message, "Fill the column title."))
        else:
            message = f"values of {column} could not be read and were left out"
            found.append(Finding(f"damaged_{column}", "warn", count, n, message, f"Mend the column {column} of the items file."))
    shared = n - frame["title"].n_unique()
    if shared:
        message = "items share their title with another: a title is no key, and text cannot tell them apart"
        found.append(Finding("shared_titles", "info", shared, n, message, "Nothing, or add what tells them apart to the title."))
    if catalog.has("price") and not catalog.has("currency"):
        count = n - frame["price"].null_count()
        message = "prices name no currency: money is added up as if it were one"
        found.append(Finding("price_without_currency", "warn", count, n, message, "Add a column currency (ISO 4217)."))
    return found


def log_findings(log: Interactions, n_items: int, money: Money, file: FileCount) -> list[Finding]:
    """Findings on any log of engagements. `file`: what became of the rows that it was read from."""
    if len(log) == 0:
        return [no_positive_feedback(file)]
    checks = (_core, _ties, _repeated_rows, _busy_users, _one_moment)
    found = [check(log) for check in checks] + [_popularity(log, n_items), _unseen(log, n_items)]
    return [finding for finding in (*found, *money_findings(money)) if finding is not None]


def no_positive_feedback(file: FileCount) -> Finding:
    """The error of a file of which no row was accepted as an engagement."""
    if not file.rows:
        message = f"{file.file} has no rows, so there is nothing to learn from"
        change = "Write a row for each engagement, with the columns user_id, item_id and timestamp; beside impressions also event, page_id."
        return Finding("no_positive_feedback", "error", 0, 0, message, change)
    told = [f"{file.accepted:,} are views, dismissals or refunds"] if file.accepted else []
    told += [f"{file.quarantined:,} were left out, {reasons_of(file)}"] if file.quarantined else []
    message = f"none of the {file.rows:,} rows of {file.file} is an engagement (column event): {'; '.join(told)}"
    write = "Write select_item, add_to_cart, purchase or the like in the column event."
    change = write if file.accepted else change_of(file, write)
    return Finding("no_positive_feedback", "error", file.rows, file.rows, message, change)


def _core(log: Interactions) -> Finding | None:
    if core_share(log) <= CORE_SHARE:
        return None
    message = (
        f"users and items have at least {CORE} events each: the log was filtered over its whole span. "
        "Under a cut in time an item unseen before it is sure to be taken later; say so beside any result"
    )
    change = "Nothing: cold targets count as misses by default, and cold-start figures stand apart."
    return Finding("five_core", "warn", len(log), len(log), message, change)


def _ties(log: Interactions) -> Finding | None:
    follows = np.diff(log.user) == 0
    tied = int((follows & (np.diff(log.time) == 0)).sum())
    total = int(follows.sum())
    if tied <= 0.01 * total:
        return None
    midnight = float((log.time % DAY == 0).mean())
    days = " Times are whole days." if midnight == 1 else ""
    message = f"events stand at the same second as the user's event before: their order means nothing.{days}"
    return Finding("ties", "info", tied, total, message, "Nothing: events of a basket are an unordered set.")


def _repeated_rows(log: Interactions) -> Finding | None:
    same = np.ones(max(0, len(log) - 1), bool)
    for column in (log.user, log.item, log.time, log.event):
        same &= np.diff(column) == 0
    if same.sum() <= 0.01 * len(log):
        return None
    message = "events repeat an event of the same user, item, kind and second; they were kept"
    return Finding(
        "repeated_rows", "warn", int(same.sum()), len(log), message, "Remove copies from the log, or give an event_id."
    )


def _busy_users(log: Interactions) -> Finding | None:
    _, count = np.unique(log.user.astype(np.int64) * 100_000 + log.time // DAY, return_counts=True)
    busy = int((count > USER_DAY_EVENTS).sum())
    if not busy:
        return None
    message = f"user-days hold more than {USER_DAY_EVENTS} engagements: robots or shared accounts"
    return Finding("busy_users", "warn", busy, len(count), message, "Leave these users out of the log.")


def _one_moment(log: Interactions) -> Finding | None:
    if log.time.min() < log.time.max():
        return None
    message = "all events stand at one second, so no cut in time parts them"
    return Finding("one_moment", "warn", len(log), len(log), message, "Write the true times, or use --split multivae.")


def _popularity(log: Interactions, n_items: int) -> Finding | None:
    count = np.sort(np.bincount(log.item, minlength=n_items))[::-1]
    head = max(1, n_items // 100)
    share = float(count[:head].sum() / count.sum())
    if share < 0.5 or n_items < 100:
        return None
    message = f"of the events fall on the most popular 1 % of the items ({head:,})"
    change = "Judge methods against popularity, and read catalog coverage beside accuracy."
    return Finding("popularity", "warn", int(count[:head].sum()), int(count.sum()), message, change)


def _unseen(log: Interactions, n_items: int) -> Finding | None:
    test = temporal_split(log, n_items).card["test"]
    assert isinstance(test, dict)
    unseen, total = test["target_events_on_unseen_items"], test["target_events"]
    if not total or unseen <= 0.1 * total:
        return None
    message = "of the targets after the test cut are items that nobody took before: without text no method can find them"
    return Finding(
        "cold_targets", "warn", unseen, total, message, "Give items good titles, and read the cold-start figures apart."
    )


def money_findings(money: Money) -> list[Finding]:
    """Findings on the currencies of values."""
    total = money.without + money.currencies.total()
    found = []
    if len(money.currencies) > 1:
        kinds = ", ".join(clean_text(c, 8) for c in sorted(money.currencies)[:5])
        message = (
            f"{total:,} values come in {len(money.currencies)} currencies ({kinds}; column currency): their sum means nothing"
        )
        found.append(Finding("several_currencies", "error", total, total, message, "Convert the column value to one currency."))
    if money.without:
        message = "values name no currency: money is added up as if it were one"
        found.append(Finding("value_without_currency", "warn", money.without, total, message, "Fill the column currency."))
    return found
