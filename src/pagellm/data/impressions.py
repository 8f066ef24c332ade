"""From the impressions file to logged pages. Knows the catalog; knows nothing of feedback.

A page is accepted whole or not at all: with a slot missing it is not what the user saw, and its propensities mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.data.cells import bad_ids, missing, texts
from pagellm.data.columns import IMPRESSIONS
from pagellm.data.files import batches
from pagellm.data.ids import Ids
from pagellm.data.interactions import check_time
from pagellm.data.quarantine import Quarantine, Rules
from pagellm.data.rows import Batch
from pagellm.data.slots import Slots, nested, read_slots
from pagellm.types import F32, I8, I16, I32, I64, Bool


@dataclass(frozen=True)
class Pages:
    """Logged pages in order of time, user and id, with their slots in reading order. Users are codes of `Ids`."""

    page_ids: NDArray[np.str_]  # [page]
    user: I32  # [page]
    time: I64  # [page]
    policy: NDArray[np.str_]  # [page]
    offsets: I64  # [page + 1]
    item: I32  # [slot]
    row: I16  # [slot]
    col: I16  # [slot]
    propensity: F32  # [slot]
    viewed: I8  # [slot]
    place: I32  # [code of the page's id] its page, -1 where it was not accepted

    @property
    def owner(self) -> I64:
        """[slot] the page it stands on."""
        return np.repeat(np.arange(len(self.time)), np.diff(self.offsets))


@dataclass(frozen=True)
class PageRows:
    """Sound rows of one batch of the impressions file, ids still as text: a page with its slots each, or one slot each."""

    page: pl.Series  # [row]
    user: pl.Series  # [row]
    policy: pl.Series  # [row]
    time: I64  # [row]
    number: I64  # [row] in the file, from 1
    whole: Bool  # [row] whether it is a page
    owner: I64  # [slot] its row here
    slots: Slots
    broken: pl.Series  # [any] pages of which a row was rejected, so that they cannot be whole


@dataclass(frozen=True)
class Part:
    """Slots with what their pages say, ids as codes. All [slot]."""

    page: I32
    user: I32
    time: I64
    policy: I32
    row_number: I64
    whole: Bool  # whether its row is a page
    slots: Slots


def user_texts(batch: Batch) -> pl.Series:
    """[row] who acts: user_id, else the session under a name of its own; null where neither is known."""
    user, session = texts(batch.column("user_id")), texts(batch.column("session_id"))
    return user.zip_with(user.is_not_null(), "session:" + session)


def read_pages(path: Path, items: Ids, users: Ids, page_ids: Ids, quarantine: Quarantine, base: int) -> Pages:
    """All pages whose every slot is sound. `users` and `page_ids` grow by what the file holds."""
    policies = Ids()
    parts: list[Part] = []
    broken: list[I32] = []
    for batch in batches(path, IMPRESSIONS):
        rows = read_rows(batch, path.name, items, quarantine, base)
        broken.append(page_ids.add(rows.broken))
        parts.append(coded(rows, users, page_ids, policies))
    pages, late = settle_pages(parts, broken, users, page_ids, policies)
    for batch in batches(path, IMPRESSIONS) if late else ():
        take_back(path, batch, late, quarantine)
    return pages


def settle_pages(parts: list[Part], broken: list[I32], users: Ids, page_ids: Ids, policies: Ids) -> tuple[Pages, dict[int, str]]:
    """(the pages that are whole, rows that only other rows show to be at fault: {number: reason}).

    `broken` holds codes of pages of which a row was rejected. All rows of a page must be among the parts.
    """
    slots = _join(parts)
    again = _again(slots)
    late = dict.fromkeys(slots.row_number[again].tolist(), "duplicate_page")
    slots = _keep(slots, ~again)
    wrong = _wrong_pages(slots, np.concatenate([np.empty(0, np.int32), *broken]), len(page_ids))
    if wrong:
        at_fault = np.isin(slots.page, list(wrong))
        late |= {int(n): wrong[int(p)] for n, p in zip(slots.row_number[at_fault], slots.page[at_fault], strict=True)}
        slots = _keep(slots, ~at_fault)
    return _pages(slots, users, page_ids, policies), late


def read_rows(batch: Batch, file: str, items: Ids, quarantine: Quarantine, base: int) -> PageRows:
    """The sound rows of a batch. What only other rows can show to be at fault is left to `settle_pages`."""
    rules = Rules(len(batch))
    page, user = texts(batch.column("page_id")), user_texts(batch)
    policy = texts(batch.column("policy_id")).fill_null("logging")
    time = check_time(batch, rules)
    for name, text in (("page_id", page), ("user_id", user)):
        rules.fail(missing(text), f"missing_{name}")
        rules.fail(bad_ids(text), f"bad_{name}")
    rules.fail(bad_ids(policy), "bad_policy_id")
    nests = "slots" in batch.frame.columns
    if nests:
        owner, inner = nested(batch, file, rules)
        slot_rules = Rules(len(inner))
        slots = read_slots(inner, items, base, slot_rules)
        _pass_on(slot_rules, owner, rules)
    else:
        owner, slots = np.arange(len(batch)), read_slots(batch, items, base, rules)
    good = quarantine.take(file, batch, rules)
    broken = page.filter(pl.Series(~good & ~bad_ids(page) & ~missing(page) & (not nests)))
    chosen, kept = pl.Series(good), good[owner]
    texts_kept = (page.filter(chosen), user.filter(chosen), policy.filter(chosen))
    place, whole = np.cumsum(good) - 1, np.full(int(good.sum()), nests)
    return PageRows(
        *texts_kept,
        time[good],
        batch.rows[good],
        whole,
        place[owner[kept]],
        _slots_where(slots, kept),
        broken,
    )


def coded(rows: PageRows, users: Ids, page_ids: Ids, policies: Ids) -> Part:
    """The slots of these rows, ids as codes. The three lists grow by what the rows hold."""
    page, user, policy = page_ids.add(rows.page), users.add(rows.user), policies.add(rows.policy)
    at = rows.owner
    return Part(page[at], user[at], rows.time[at], policy[at], rows.number[at], rows.whole[at], rows.slots)


def _pass_on(slot_rules: Rules, owner: I64, rules: Rules) -> None:
    """A page fails for the reason of its first bad slot."""
    for place, reason in enumerate(slot_rules.names[1:], 1):
        hit = np.bincount(owner[slot_rules.reason == place], minlength=len(rules.reason)) > 0
        rules.fail(hit, reason)


def _again(part: Part) -> Bool:
    """[slot] whether its row is a page of which an earlier row told already."""
    rows = np.full(int(part.page.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(rows, part.page, part.row_number)
    again: Bool = part.whole & (part.row_number > rows[part.page])
    return again


def _slots_where(slots: Slots, keep: Bool) -> Slots:
    return Slots(slots.item[keep], slots.row[keep], slots.col[keep], slots.propensity[keep], slots.viewed[keep])


def _keep(part: Part, keep: Bool) -> Part:
    arrays = (part.page[keep], part.user[keep], part.time[keep], part.policy[keep], part.row_number[keep], part.whole[keep])
    return Part(*arrays, _slots_where(part.slots, keep))


def _join(parts: list[Part]) -> Part:
    i32, i64 = np.empty(0, np.int32), np.empty(0, np.int64)
    slots = Slots(
        np.concatenate([i32, *(p.slots.item for p in parts)]),
        np.concatenate([np.empty(0, np.int16), *(p.slots.row for p in parts)]),
        np.concatenate([np.empty(0, np.int16), *(p.slots.col for p in parts)]),
        np.concatenate([np.empty(0, np.float32), *(p.slots.propensity for p in parts)]),
        np.concatenate([np.empty(0, np.int8), *(p.slots.viewed for p in parts)]),
    )
    return Part(
        np.concatenate([i32, *(p.page for p in parts)]),
        np.concatenate([i32, *(p.user for p in parts)]),
        np.concatenate([i64, *(p.time for p in parts)]),
        np.concatenate([i32, *(p.policy for p in parts)]),
        np.concatenate([i64, *(p.row_number for p in parts)]),
        np.concatenate([np.empty(0, bool), *(p.whole for p in parts)]),
        slots,
    )


def _wrong_pages(part: Part, broken: I32, pages: int) -> dict[int, str]:
    """Pages that cannot be accepted for what their rows say together: {code: reason}."""
    wrong = dict.fromkeys(np.intersect1d(part.page, broken).tolist(), "page_incomplete")
    cell = part.page.astype(np.int64) << 32 | part.slots.row.astype(np.int64) << 16 | part.slots.col
    _, first, count = np.unique(cell, return_index=True, return_counts=True)
    wrong |= dict.fromkeys(part.page[first[count > 1]].tolist(), "two_items_in_one_slot")
    head = np.zeros(pages, np.int64)
    head[part.page[::-1]] = np.arange(len(part.page))[::-1]  # first slot of each page
    at = head[part.page]
    differs = (part.user[at] != part.user) | (part.time[at] != part.time) | (part.policy[at] != part.policy)
    return wrong | dict.fromkeys(np.unique(part.page[differs]).tolist(), "page_rows_disagree")


def take_back(path: Path, batch: Batch, late: Mapping[int, str], quarantine: Quarantine) -> None:
    """Quarantines those rows of a batch that is read once more which a rule over many rows found at fault: {number: reason}."""
    for place, number in enumerate(batch.rows.tolist()):
        if number in late:
            quarantine.take_back(path.name, batch.evidence(place, late[number]))


def _pages(part: Part, users: Ids, page_ids: Ids, policies: Ids) -> Pages:
    ids, rank = page_ids.sorted()
    _, user_rank = users.sorted()
    order = np.lexsort((part.slots.col, part.slots.row, rank[part.page], user_rank[part.user], part.time))
    part = _keep_order(part, order)
    new = np.flatnonzero(np.concatenate((np.ones(min(1, len(part.page)), bool), np.diff(part.page) != 0)))
    place = np.full(len(page_ids), -1, np.int32)
    place[part.page[new]] = np.arange(len(new), dtype=np.int32)
    names, policy_rank = policies.sorted()
    slots = part.slots
    return Pages(
        ids[rank[part.page[new]]],
        part.user[new],
        part.time[new],
        names[policy_rank[part.policy[new]]],
        np.append(new, len(part.page)).astype(np.int64),
        *(slots.item, slots.row, slots.col, slots.propensity, slots.viewed),
        place,
    )


def _keep_order(part: Part, order: NDArray[np.intp]) -> Part:
    arrays = (part.page[order], part.user[order], part.time[order], part.policy[order], part.row_number[order], part.whole[order])
    slots = part.slots
    return Part(*arrays, replace(slots, **{name: getattr(slots, name)[order] for name in slots.__dataclass_fields__}))
