"""A log of pages on disk, in buckets of users: the same border and the same records, some users at a time.

Comes in: a data folder with impressions.* and events.*. Goes out: `LogBuckets`, which gives the records of one bucket after the other.
What is held follows the catalog and the size of a bucket, not the length of the log; one user is never parted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.data.assemble import Loose, assemble
from pagellm.data.contexts import ALWAYS
from pagellm.data.feedback import Feedback, coded_events, copies, settle_feedback
from pagellm.data.ids import Ids
from pagellm.data.impressions import Pages, coded, settle_pages
from pagellm.data.interactions import ENGAGEMENTS
from pagellm.data.lots import id_keys
from pagellm.data.page_checks import Strays
from pagellm.data.page_log import basket_keys, shown_pages
from pagellm.data.sound_rows import SPAN_ROWS, SoundRows
from pagellm.data.spill import Spill, buckets_of
from pagellm.types import DAY, I64, Impressions, Interactions

_SLOTS = {
    **dict.fromkeys(("item",), pl.Int32()),
    **dict.fromkeys(("row", "col"), pl.Int16()),
    **dict.fromkeys(("propensity", "value"), pl.Float32()),
    "viewed": pl.Int8(),
    **dict.fromkeys(("clicked", "carted", "purchased"), pl.Boolean()),
}
_PAGES: dict[str, pl.DataType] = {
    **dict.fromkeys(("page", "user", "policy"), pl.String()),
    **dict.fromkeys(("time", "settled"), pl.Int64()),
    **{name: pl.List(kind) for name, kind in _SLOTS.items()},
}
_HISTORY: dict[str, pl.DataType] = {
    **dict.fromkeys(("page", "user"), pl.String()),
    "item": pl.Int32(),
    "time": pl.Int64(),
    "event": pl.Int8(),
    **dict.fromkeys(("rating", "value"), pl.Float32()),
}


@dataclass
class LogBuckets:
    """The accepted records of a log of pages, each bucket those of some users. Buckets in order are users in order of their keys."""

    catalog: Catalog
    count: int  # of buckets, a power of two
    pages: Spill
    history: Spill
    days: Counter[int] = field(default_factory=Counter)  # events of histories by UTC day
    n_pages: int = 0
    on_slots: int = 0  # slots of pages with a click, cart or purchase
    strays: Strays = field(default_factory=Strays)

    def read(self, bucket: int) -> tuple[Interactions, Impressions]:
        """The records of one bucket's users, as a log of these users alone would give them."""
        pages, events, users = self.pages.read(bucket), self.history.read(bucket), Ids()
        owner, actor = users.add(pages["user"]), users.add(events["user"])
        _, rank = users.sorted()
        ids = _texts(pages["page"])
        order = np.lexsort((ids, rank[owner] if len(owner) else owner, pages["time"].to_numpy()))
        pages, ids = pages[order], ids[order]
        page = Ids(ids.tolist()).find(events["page"])
        columns = {name: events[name].to_numpy() for name in ("item", "time", "event", "rating", "value")}
        key = basket_keys(page, columns["time"])
        log, place = assemble(Loose(actor, columns["item"], columns["time"], key, *list(columns.values())[2:]), users)
        sizes = pages["item"].list.len().to_numpy()
        slots = {name: pages[name].explode(empty_as_null=False).to_numpy() for name in _SLOTS}
        return log, Impressions(
            ids,
            place[owner][order] if len(owner) else owner,
            pages["time"].to_numpy(),
            _texts(pages["policy"]),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            **{name: slots[name] for name in _SLOTS},
            settled=pages["settled"].to_numpy(),
        )

    def __iter__(self) -> Iterator[tuple[Interactions, Impressions]]:
        """The records, bucket after bucket."""
        return (self.read(bucket) for bucket in range(self.count))

    def cut_time(self, share: float) -> int:
        """As `contexts.cut_time` of the whole log: the element at floor(share · n) of the sorted times of all events."""
        total = self.days.total()
        if not total:
            return ALWAYS
        place, before = min(int(share * total), total - 1), 0
        for day in sorted(self.days):
            if before + self.days[day] > place:
                break
            before += self.days[day]
        seconds = np.zeros(DAY, np.int64)
        for bucket in self.history.buckets:
            time = self.history.read(bucket)["time"].to_numpy()
            seconds += np.bincount(time[time // DAY == day] - day * DAY, minlength=DAY)
        return int(day * DAY + np.searchsorted(np.cumsum(seconds), place - before, side="right"))

    def close(self) -> None:
        """Takes the buckets away."""
        self.pages.close()
        self.history.close()


def fill_buckets(rows: SoundRows, catalog: Catalog, scratch: Path, count: int) -> LogBuckets:
    """Settles what only other rows show to be at fault, page by page, and parts the records by user. `rows` is used up."""
    out = LogBuckets(catalog, count, Spill(scratch / "pages", _PAGES), Spill(scratch / "history", _HISTORY))
    _settle_copies(rows)
    for bucket in range(count):
        users, page_ids, policies = Ids(), Ids(), Ids()
        read, broken = rows.page_rows(bucket)
        pages, late = settle_pages([coded(read, users, page_ids, policies)], [page_ids.add(broken)], users, page_ids, policies)
        rows.late_pages.add(*_late(late))
        raw = coded_events(rows.events.read(bucket), users, page_ids, pages)
        feedback, late = settle_feedback(raw, pages)
        rows.late_events.add(*_late(late))
        _add(out, pages, feedback, users)
    rows.take_back()
    return out


def _settle_copies(rows: SoundRows) -> None:
    """Finds copies of events all over the file; the events that stay go to the bucket of their page, or of their user without one."""
    for bucket in rows.order_lines.buckets:
        lines = rows.order_lines.read(bucket)
        _tell_copies(rows, lines, copies(lines["key"].to_numpy(), None, "repeated_order_line", "repeated_order_line"))
    for bucket in rows.event_ids.buckets:
        ids = rows.event_ids.read(bucket)
        contents = ids["content"].to_numpy()
        _tell_copies(rows, ids, copies(ids["key"].to_numpy(), contents, "repeated_event", "duplicate_event"))
    for span in rows.in_order.buckets:
        events, late = rows.in_order.read(span), rows.late_events.read(span)
        events = events.join(late, on="number", how="anti", maintain_order="left")
        rows.events.add(events, buckets_of(id_keys(_texts(events["page"].fill_null(events["user"]))), rows.count))
    for done in (rows.order_lines, rows.event_ids, rows.in_order):
        done.close()


def _tell_copies(rows: SoundRows, told: pl.DataFrame, found: dict[int, str]) -> None:
    number = told["number"].to_numpy()
    rows.late_events.add(*_late({int(number[place]): reason for place, reason in found.items()}))


def _late(late: dict[int, str]) -> tuple[pl.DataFrame, I64]:
    number = np.array(list(late), np.int64)
    return pl.DataFrame({"number": number, "reason": pl.Series(list(late.values()), dtype=pl.String)}), number // SPAN_ROWS


def _add(out: LogBuckets, pages: Pages, feedback: Feedback, users: Ids) -> None:
    """Parts the records of one bucket of pages by user."""
    ids, place = users.sorted()
    shown = shown_pages(pages, feedback, place[pages.user] if len(pages.user) else pages.user)
    slots = pl.DataFrame({"owner": pages.owner} | {name: getattr(shown, name) for name in _SLOTS})
    lists = slots.group_by("owner", maintain_order=True).agg(pl.all())
    who = ids[shown.user]
    heads = {"page": pl.Series(shown.page_ids.tolist(), dtype=pl.String), "user": pl.Series(who.tolist(), dtype=pl.String)}
    frame = pl.DataFrame(
        heads | {"policy": pl.Series(shown.policy.tolist(), dtype=pl.String)} | {"time": shown.time, "settled": shown.settled}
    )
    out.pages.add(frame.hstack(lists.drop("owner")), buckets_of(id_keys(who), out.count))
    out.n_pages += len(shown)
    out.on_slots += int(shown.engaged.sum())
    out.strays.add(feedback)
    kept = np.isin(feedback.event, ENGAGEMENTS)
    actor, page = ids[place[feedback.user[kept]]], feedback.page[kept]
    known = [shown.page_ids[p] if p >= 0 else None for p in page]
    texts = {"page": pl.Series(known, dtype=pl.String), "user": pl.Series(actor.tolist(), dtype=pl.String)}
    numbers = {name: getattr(feedback, name)[kept] for name in ("item", "time", "event", "rating", "value")}
    out.history.add(pl.DataFrame(texts | numbers), buckets_of(id_keys(actor), out.count))
    days, counts = np.unique(numbers["time"] // DAY, return_counts=True)
    out.days.update(dict(zip(days.tolist(), counts.tolist(), strict=True)))


def _texts(column: pl.Series) -> np.ndarray:
    return np.array(column.to_list(), np.str_) if len(column) else np.empty(0, "<U1")
