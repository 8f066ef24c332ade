"""Checks that only a log of pages needs: positions, propensities, exploration, feedback that finds its page. Knows no file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pagellm.data.feedback import Feedback
from pagellm.data.findings import Finding, change_of, reasons_of
from pagellm.data.impressions import Pages
from pagellm.data.quarantine import FileCount
from pagellm.types import DAY, Event

ON_PAGE = (Event.SELECT_ITEM, Event.ADD_TO_CART, Event.PURCHASE)


@dataclass
class Strays:
    """Clicks, carts and purchases that belong to no slot of a logged page, by what keeps them from it."""

    clicks: int = 0  # clicks, carts and purchases, strays or not
    count: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # row of the events file

    def add(self, feedback: Feedback) -> None:
        """Counts more events."""
        clicks = np.isin(feedback.event, ON_PAGE)
        self.clicks += int(clicks.sum())
        causes = {
            "name no page (column page_id)": (feedback.page < 0) & ~feedback.unknown_page,
            "name a page that is not among the accepted ones (column page_id)": feedback.unknown_page,
            "name an item that does not stand on their page (column item_id)": (feedback.page >= 0) & (feedback.slot < 0),
        }
        for cause, where in causes.items():
            rows = feedback.number[clicks & where]
            if len(rows):
                self.count[cause] += len(rows)
                self.first[cause] = min(self.first.get(cause, int(rows[0])), int(rows.min()))


def page_findings(pages: Pages, feedback: Feedback, base: int, shown: FileCount, happened: FileCount) -> list[Finding]:
    """Findings on pages and their feedback. `base`: the number that the log gives to its first row and column. `shown` and `happened`:
    what became of the rows of the impressions and of the events.
    """
    if len(pages.time) == 0:
        return [no_pages(shown)]
    found = (
        _base(pages, base),
        _twice(pages),
        _exploration(pages),
        _propensities(pages),
        _without_page(feedback),
        _unknown_page(feedback),
        _not_on_page(feedback),
        _late(pages, feedback),
        _no_clicks(feedback, happened),
    )
    return [finding for finding in found if finding is not None]


def no_pages(file: FileCount) -> Finding:
    """The error of impressions of which no row was accepted."""
    message = f"none of the {file.rows:,} rows of {file.file} was accepted as a page, so there is nothing to learn from"
    message += f": {reasons_of(file)}" if file.quarantined else ""
    change = change_of(file, "Write one row a page, with the columns page_id, user_id, timestamp and slots.")
    return Finding("no_pages", "error", file.rows, file.rows, message, change)


def no_feedback_on_pages(strays: Strays, file: FileCount) -> Finding:
    """The error of events of which none belongs to a slot of a logged page."""
    message = f"none of the {file.accepted:,} accepted rows of {file.file} is a click, cart or purchase (column event)"
    if strays.clicks:
        causes = (f"{count:,} {cause[:-1]}, first in row {strays.first[cause]:,})" for cause, count in strays.count.most_common())
        message = f"none of the {strays.clicks:,} clicks, carts and purchases of {file.file} belongs to a slot of a logged page: "
        message += "; ".join(causes)
    change = f"Write page_id and item_id with select_item, add_to_cart and purchase in {file.file}; otherwise every page looks worthless."
    return Finding("no_feedback_on_pages", "error", strays.clicks or file.accepted, file.rows, message, change)


def _base(pages: Pages, base: int) -> Finding | None:
    first = int((pages.col == 0).sum())
    second = int((pages.col == 1).sum())
    if first >= 0.05 * second:
        return None
    message = f"slots stand in column 0, {second:,} in column 1: the log seems to count from {base + 1}"
    change = f"Pass --position-base {base + 1}, or look at how col is written."
    return Finding("position_base", "warn", first, len(pages.col), message, change)


def _twice(pages: Pages) -> Finding | None:
    key = (pages.owner << 32) | pages.item
    repeated = len(key) - len(np.unique(key))
    if not repeated:
        return None
    message = "slots hold an item that stands on their page already; feedback on it goes to the first"
    return Finding("item_twice_on_page", "warn", repeated, len(key), message, "Name slot_id in the events, or dedup the pages.")


def _exploration(pages: Pages) -> Finding | None:
    known = pages.propensity[~np.isnan(pages.propensity)]
    policies = len(np.unique(pages.policy))
    if (known < 1).any() or policies > 1:
        return None
    what = "every propensity is 1" if len(known) else "no propensities"
    message = f"pages of one logging policy without exploration ({what}): another policy cannot be judged from this log"
    change = "Log the propensity of each slot and let a share of the pages explore."
    return Finding("no_exploration", "warn", len(pages.time), len(pages.time), message, change)


def _propensities(pages: Pages) -> Finding | None:
    unknown = int(np.isnan(pages.propensity).sum())
    if not unknown:
        return None
    message = "slots have no propensity: off-policy estimates must estimate it, and will say so"
    return Finding("propensity_missing", "warn", unknown, len(pages.item), message, "Log the propensity of each slot.")


def _without_page(feedback: Feedback) -> Finding | None:
    clicks = np.isin(feedback.event, ON_PAGE)
    lost = clicks & (feedback.page < 0) & ~feedback.unknown_page
    if not lost.any():
        return None
    message = "clicks, carts and purchases name no page: they are history, but no page earns them"
    return Finding("feedback_without_page", "warn", int(lost.sum()), int(clicks.sum()), message, "Write page_id with each event.")


def _unknown_page(feedback: Feedback) -> Finding | None:
    lost = int(feedback.unknown_page.sum())
    if not lost:
        return None
    message = "events name a page that is not among the accepted impressions: they are history, but no page earns them"
    change = "Write every page shown to impressions.*, under the page_id that events name."
    return Finding("unknown_page", "warn", lost, len(feedback.time), message, change)


def _not_on_page(feedback: Feedback) -> Finding | None:
    named = (feedback.page >= 0) & (feedback.item >= 0)
    lost = named & (feedback.slot < 0)
    if not lost.any():
        return None
    message = "events name an item that does not stand on their page"
    change = "Log all slots of a page, or leave page_id out where the event happened elsewhere."
    return Finding("item_not_on_page", "warn", int(lost.sum()), int(named.sum()), message, change)


def _late(pages: Pages, feedback: Feedback) -> Finding | None:
    known = feedback.page >= 0
    late = int((feedback.time[known] > pages.time[feedback.page[known]] + DAY).sum())
    if late <= 0.01 * known.sum():
        return None
    message = "events come more than a day after their page"
    return Finding(
        "late_events", "warn", late, int(known.sum()), message, "Look at the clocks, and at the session that keeps page_id."
    )


def _no_clicks(feedback: Feedback, file: FileCount) -> Finding | None:
    on_slot = np.isin(feedback.event, ON_PAGE) & (feedback.slot >= 0)
    if on_slot.any():
        return None
    strays = Strays()
    strays.add(feedback)
    return no_feedback_on_pages(strays, file)
