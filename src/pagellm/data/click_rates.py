"""How often items were clicked when they were seen, by everybody and by one user, as it was known at any past moment.

Takes logged pages, gives sorted times with running sums; a context reads what is strictly older than its own time, so training, test and
service count the same way. A page counts from its last feedback on (`Impressions.settled`): the first click on a page makes a context of
its own, which may not read what else was clicked there. Everybody's pages count, those of users whose feedback teaches no reward too: this
is evidence, which service has of them as well, and no label. Knows no candidates and no model.

Every rate is (clicks + k · mean) / (views + k), the mean of a beta distribution whose prior is the shop's mean with the strength of k views
(empirical Bayes, Efron and Morris 1975). A view is counted where the log knows it, else it is the chance that the place is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from pagellm.data.cooccurrence import _older
from pagellm.data.examination import estimate_examination
from pagellm.errors import DataError
from pagellm.types import DAY, F32, F64, I32, I64, Bool, Contexts, Impressions

KINDS = ("rate_all", "rate_14d", "seen_all", "own_rate", "own_category_rate", "own_leaf_rate", "own_brand_rate", "own_ignored")
"""What is counted, in this order in the last axis of `click_evidence`.

rate_all, rate_14d: click rate of the item, of all the past and of the last 14 days; seen_all: log(1 + views) of the item; own_rate: click
rate of the context's user; own_category_rate, own_leaf_rate, own_brand_rate: the same with the item's leading category, its last one, its
brand; own_ignored: log(1 + views) of the item by the user that led to nothing. Rates are logs, less the log of the shop's mean: 0 is the
mean, and what nobody knows.
"""

ITEM_PRIOR = 20.0
"""Views that the shop's mean counts for in the rate of an item."""

USER_PRIOR = 10.0
"""Views that the shop's mean counts for in the rates of one user."""

_RECENT_S = 14 * DAY
_DEPTH = 2_000  # newest slots of a user that are looked at
_FIRST_MEAN = 0.05  # click rate of a shop of which nothing is known, with the strength of ITEM_PRIOR views


@dataclass(frozen=True, slots=True)
class ClickCounts:
    """Seen and clicked slots by item, by user and by page. Times are unix seconds from which on a slot counts."""

    user_ids: np.ndarray  # [user] as in the log
    by_name: I64  # [user] users in the order of their ids
    item_offsets: I64  # [item + 1] into the next three
    item_known: I64  # [slot] rising within an item
    item_seen: F64  # [slot] views of the item up to this slot
    item_clicked: I64  # [slot] engagements with the item up to this slot
    user_offsets: I64  # [user + 1] into the next four
    user_known: I64  # [slot] rising within a user
    user_item: I32  # [slot]
    user_seen: F32  # [slot] chance that the slot was seen
    user_clicked: Bool  # [slot]
    page_known: I64  # [page] rising
    page_seen: F64  # [page] views of all items up to this page
    page_clicked: I64  # [page]

    def users_of(self, contexts: Contexts) -> I64:
        """[context] each context's user here, -1 for one who is not among them."""
        if contexts.log.user_ids is self.user_ids:
            return contexts.user.astype(np.int64)
        names = contexts.log.user_ids[contexts.user]
        if not len(self.user_ids):
            return np.full(len(names), -1, np.int64)
        place = np.searchsorted(self.user_ids, names, sorter=self.by_name).clip(0, len(self.user_ids) - 1)
        found = self.by_name[place]
        return np.where(self.user_ids[found] == names, found, -1)


def count_clicks(shown: Impressions, user_ids: np.ndarray, n_items: int, before: int) -> ClickCounts:
    """Counts of logged pages. How much each place is looked at is estimated on pages older than `before` (unix seconds) alone.

    No context that is learned from or judged may be older than that, so none reads the future.
    """
    sizes = np.diff(shown.offsets)
    page = np.repeat(np.arange(len(shown)), sizes)
    known, user = shown.settled[page], shown.user[page]
    seen, clicked = views(shown, before), shown.engaged
    by_item, by_user = np.lexsort((known, shown.item)), np.lexsort((known, user))
    by_page = np.argsort(shown.settled, kind="stable")
    item_offsets, user_offsets = (
        np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=n))]).astype(np.int64)
        for codes, n in ((shown.item, n_items), (user, len(user_ids)))
    )
    page_seen, page_clicked = (np.bincount(page, values, len(shown))[by_page] for values in (seen, clicked))
    return ClickCounts(
        user_ids,
        np.argsort(user_ids, kind="stable"),
        item_offsets,
        known[by_item],
        _running(item_offsets, seen[by_item].astype(np.float64)),
        _running(item_offsets, clicked[by_item].astype(np.int64)),
        user_offsets,
        known[by_user],
        shown.item[by_user],
        seen[by_user],
        clicked[by_user],
        shown.settled[by_page],
        np.cumsum(page_seen),
        np.cumsum(page_clicked).astype(np.int64),
    )


def views(shown: Impressions, before: int) -> F32:
    """[slot] 1 where it was seen, 0 where not, else the chance that its place is looked at.

    Chances are those that the pages before a time teach, by reading order (1 / log2(place + 1), as in DCG) where they teach none.
    """
    told, seen = shown.viewed >= 0, (shown.viewed == 1) | shown.engaged
    if told.all():
        return np.asarray(seen, np.float32)
    try:
        look = estimate_examination(shown.where(shown.time < before)).of(shown.row, shown.col)
    except DataError:  # no slot or no click before
        place = np.arange(len(shown.item)) - np.repeat(shown.offsets[:-1], np.diff(shown.offsets))
        look = 1 / np.log2(place + 2)
    return np.asarray(np.where(told, seen, look), np.float32)


def click_evidence(counts: ClickCounts, contexts: Contexts, pool: I32, fields: tuple[I32, I32, I32]) -> F32:
    """What was seen and clicked of each candidate before each context. Shape [context, candidate, kind], see `KINDS`.

    `fields` are codes [item] of leading category, last category and brand, -1 where unknown.
    """
    out = np.zeros((*pool.shape, len(KINDS)), np.float32)
    codes = np.stack(fields, 1).astype(np.int32)
    by_item = (counts.item_offsets, counts.item_known, counts.item_seen, counts.item_clicked)
    by_user = (counts.user_offsets, counts.user_known, counts.user_item, counts.user_seen, counts.user_clicked)
    by_page = (counts.page_known, counts.page_seen, counts.page_clicked)
    _read(*by_item, *by_user, *by_page, codes, contexts.time, counts.users_of(contexts), pool, out)
    return out


@njit(cache=True)
def _running(offsets, values):  # type: ignore[no-untyped-def]
    """Running sums that begin anew at each offset, so that what comes later changes no bit of what was before."""
    out = values.copy()
    for i in range(len(offsets) - 1):
        for s in range(offsets[i] + 1, offsets[i + 1]):
            out[s] += out[s - 1]
    return out


@njit(cache=True)
def _until(running, first, count):  # type: ignore[no-untyped-def]
    """The running sum over `count` entries from `first` on."""
    return running[first + count - 1] if count > 0 else 0


@njit(cache=True)
def _lift(clicked, seen, mean, prior):  # type: ignore[no-untyped-def]
    """Log of the smoothed rate over the mean."""
    return np.log((clicked + prior * mean) / ((seen + prior) * mean))


@njit(cache=True)
def _own(first, last, item, seen, clicked, codes, sums, ignored):  # type: ignore[no-untyped-def]
    """Adds a user's slots to `sums` [field, code, seen and clicked] and `ignored` [item]; returns (seen, clicked) over all of them."""
    every, engaged = 0.0, 0.0
    for s in range(first, last):
        i = item[s]
        every += seen[s]
        engaged += clicked[s]
        if not clicked[s]:
            ignored[i] += seen[s]
        for f in range(codes.shape[1]):
            if codes[i, f] >= 0:
                sums[f, codes[i, f], 0] += seen[s]
                sums[f, codes[i, f], 1] += clicked[s]
    return every, engaged


@njit(cache=True)
def _forget(first, last, item, codes, sums, ignored):  # type: ignore[no-untyped-def]
    for s in range(first, last):
        ignored[item[s]] = 0.0
        for f in range(codes.shape[1]):
            if codes[item[s], f] >= 0:
                sums[f, codes[item[s], f]] = 0.0


@njit(cache=True, parallel=True)
def _read(  # type: ignore[no-untyped-def]
    item_offsets, item_known, item_seen, item_clicked,
    user_offsets, user_known, user_item, user_seen, user_clicked,
    page_known, page_seen, page_clicked, codes, time, user, pool, out,
):  # fmt: skip
    chunks = min(64, len(time))
    for chunk in prange(chunks):
        sums = np.zeros((codes.shape[1], codes.max() + 2, 2))
        ignored = np.zeros(len(codes))
        for c in range(chunk, len(time), chunks):
            now = time[c]
            pages = _older(page_known, 0, len(page_known), now)
            mean = (_until(page_clicked, 0, pages) + ITEM_PRIOR * _FIRST_MEAN) / (_until(page_seen, 0, pages) + ITEM_PRIOR)
            first, last = 0, 0
            if user[c] >= 0:
                last = user_offsets[user[c]] + _older(user_known, user_offsets[user[c]], user_offsets[user[c] + 1], now)
                first = max(user_offsets[user[c]], last - _DEPTH)
            own_seen, own_clicked = _own(first, last, user_item, user_seen, user_clicked, codes, sums, ignored)
            own = _lift(own_clicked, own_seen, mean, USER_PRIOR)
            for a in range(pool.shape[1]):
                j = pool[c, a]
                if j < 0:
                    continue
                lo = item_offsets[j]
                past = _older(item_known, lo, item_offsets[j + 1], now)
                old = _older(item_known, lo, lo + past, now - _RECENT_S)
                seen, clicked = _until(item_seen, lo, past), _until(item_clicked, lo, past)
                out[c, a, 0] = _lift(clicked, seen, mean, ITEM_PRIOR)
                recent = clicked - _until(item_clicked, lo, old), seen - _until(item_seen, lo, old)
                out[c, a, 1] = _lift(recent[0], recent[1], mean, ITEM_PRIOR)
                out[c, a, 2] = np.log1p(seen)
                out[c, a, 3] = own
                for f in range(codes.shape[1]):
                    if codes[j, f] >= 0:
                        out[c, a, 4 + f] = _lift(sums[f, codes[j, f], 1], sums[f, codes[j, f], 0], mean, USER_PRIOR)
                out[c, a, 7] = np.log1p(ignored[j])
            _forget(first, last, user_item, codes, sums, ignored)
