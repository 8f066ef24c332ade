"""The compiled loops behind the families that rest on engagement, relevance, ranking and swaps: each makes pairs of a context, in place.

`fillings.py` has those of diversity and redundancy. Arrays are those of `Situations`; `key` [context] and a stream number decide every
draw. `slot` stays -1 where no pair can be made.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pagellm.data.counters import chance

SEEN = 0.5
"""Least chance of having been seen with which a slot without feedback counts as refused."""

STREAM = 1_000_003
"""Numbers that one operator may draw for one context."""

MOST_SLOTS = 997
"""Slots whose pairs draw numbers of their own; of larger pages some draws coincide."""


@njit(cache=True)
def holds(row, item):  # type: ignore[no-untyped-def]
    """Whether an item stands among others."""
    for other in row:  # noqa: SIM110 - `any` does not compile
        if other == item:
            return True
    return False


@njit(cache=True)
def replace(  # type: ignore[no-untyped-def]
    log_item,
    start,
    stop,
    target_stop,
    items,
    gain,
    look,
    pool,
    logits,
    key,
    operator,
    user,
    moment,
    owner,
    when,
    engaged,
    drawn,
    rejected,
    slot,
    severity,
    offset,
):
    """Relevance: engaged items give way to stand-ins that `operator` picks. `owner`, `engaged` list who engaged with what,
    `drawn` [item] how often. `offset` gets the log of how much likelier the stand-ins were drawn than what they stand in for."""
    stream = operator * STREAM
    for c in range(len(items)):
        total, n = 0.0, 0
        for s in range(items.shape[1]):
            if gain[c, s] > 0:
                total += gain[c, s] * look[c, s]
                n += 1
        if n == 0 or total <= 0:
            continue
        wanted = 1 + int(chance(key[c], stream) * n)  # of the engaged slots, at least one
        lost, best, done, left, shift = 0.0, -1, 0, n, 0.0
        for s in range(items.shape[1]):
            if gain[c, s] <= 0:
                continue
            copies = 0
            for t in range(items.shape[1]):
                copies += items[c, t] == items[c, s]
            if copies > 1:  # it would still stand elsewhere on the page
                left -= 1
                continue
            take = chance(key[c], stream + 1 + s) * left < wanted - done
            left -= 1
            if not take:
                continue
            j, ahead = _stand_in(log_item, start[c], stop[c], target_stop[c], rejected[c], items[c], s, pool[c], logits[c],
                                 key[c], stream + 10_000 * (s + 1), operator, user[c], moment[c], owner, when, engaged)  # fmt: skip
            if j < 0:
                continue
            done += 1
            lost += gain[c, s] * look[c, s]
            rejected[c, s] = j
            shift += _likelier(operator, ahead, drawn, j, items[c, s])
            if best < 0 or gain[c, s] > gain[c, best]:
                best = s
        if done:
            slot[c], severity[c], offset[c] = best, lost / total, shift


@njit(cache=True)
def _stand_in(  # type: ignore[no-untyped-def]
    log_item, start, stop, target_stop, page, chosen, s, pool, logits, key, stream, operator, user, moment, owner, when, engaged
):
    """(the item that takes the place of an engaged one, -1 where there is none; by how much its logit lies above, 0 for FOREIGN)."""
    if operator == 3:  # FOREIGN: what others engaged with
        for attempt in range(20):
            e = int(chance(key, stream + attempt) * len(owner))
            j = engaged[e]
            if (
                owner[e] != user
                and when[e] < moment
                and not holds(page, j)
                and not holds(chosen, j)
                and not holds(log_item[start:target_stop], j)
            ):
                return j, 0.0
        return -1, 0.0
    own, known = 0.0, False
    for a in range(len(pool)):
        if pool[a] == chosen[s]:
            own, known = logits[a], True
    if not known:  # what is drawn from the pool is compared with the pool's own: else the pair would tell what a pool is like
        return -1, 0.0
    best, found, its = -np.inf, -1, 0.0
    for a in range(len(pool)):
        j = pool[a]
        if j < 0 or holds(page, j) or holds(chosen, j) or holds(log_item[start:target_stop], j):
            continue
        u = chance(key, stream + a)
        if operator == 0:  # POLICY: a draw of its softmax
            worth = logits[a] - np.log(-np.log(u))
        elif operator == 1:  # MATCHED: near in logit, with some luck
            worth = -abs(logits[a] - own) * (0.5 + u) - 1e-6 * u
        else:  # CHANNEL: any
            worth = u
        if worth > best:
            best, found, its = worth, j, logits[a]
    return found, its - own


@njit(cache=True)
def _likelier(operator, ahead, drawn, j, i):  # type: ignore[no-untyped-def]
    """Log of how much likelier the operator draws j than i, whose logit lies `ahead` lower."""
    if operator == 3:  # FOREIGN: by how often others engaged with it
        return np.log(max(drawn[j], 1) / max(drawn[i], 1))
    return ahead if operator == 0 else 0.0  # POLICY: its softmax; the others draw evenly


@njit(cache=True)
def _best_sum(gain, look):  # type: ignore[no-untyped-def]
    """Sum of gain · look with the most engaging items in the most looked-at places."""
    return (np.sort(gain.astype(np.float64)) * np.sort(look.astype(np.float64))).sum()


@njit(cache=True)
def move_down(items, gain, seen, look, drawn, key, rejected, slot, severity, offset):  # type: ignore[no-untyped-def]
    """Ranking: engaged items change places with seen, less engaging ones in worse places."""
    stream, width = 4 * STREAM, items.shape[1]
    for c in range(len(items)):
        moved = gain[c].copy()
        lost, first, shift = 0.0, -1, 0.0
        for s in np.argsort(-gain[c] * look[c], kind="mergesort"):
            if gain[c, s] <= 0 or moved[s] != gain[c, s]:
                continue
            if first >= 0 and chance(key[c], stream + s) < 0.5:
                continue
            best, found = -1.0, -1
            for t in range(width):
                lower = look[c, t] < look[c, s] and moved[t] < moved[s] and moved[t] == gain[c, t] and items[c, t] != items[c, s]
                if items[c, t] >= 0 and seen[c, t] >= SEEN and lower and rejected[c, t] == items[c, t]:
                    u = chance(key[c], stream + (s + 1) * 10_000 + t)
                    if u > best:
                        best, found = u, t
            if found < 0:
                continue
            if gain[c, found] == 0:
                shift += drawn[c, found] - drawn[c, s]
            lost += (moved[s] - moved[found]) * (look[c, s] - look[c, found])
            moved[s], moved[found] = moved[found], moved[s]
            rejected[c, s], rejected[c, found] = rejected[c, found], rejected[c, s]
            if first < 0:
                first = s
        if first >= 0 and lost > 0:
            slot[c], severity[c], offset[c] = first, lost / _best_sum(gain[c], look[c]), shift


@njit(cache=True)
def most_swaps(items, gain, seen, most):  # type: ignore[no-untyped-def]
    """Room for all pages' swaps, `most` a page: engaged slots times seen ones, and one page more while it is drawn from."""
    total = 0
    for c in range(len(items)):
        engaged, refusable = 0, 0
        for s in range(items.shape[1]):
            engaged += gain[c, s] > 0
            refusable += items[c, s] >= 0 and seen[c, s] >= SEEN
        total += min(engaged * refusable, most)
    return total + items.shape[1] ** 2


@njit(cache=True, error_model="numpy")
def draw_swaps(items, gain, seen, look, key, most, context, better, worse, weight):  # type: ignore[no-untyped-def]
    """Fills in each page's swaps in slot order and returns how many there are: `most` drawn ones where a page has more.

    Writes first and moves on only if the write was a swap: a branch that guesses wrong costs more than a write.
    """
    stream, width = 9 * STREAM, items.shape[1]
    slots, engaged = np.empty(width + 1, np.int16), np.empty(width + 1, np.int64)  # seen slots, engaged slots
    gains, looks = np.empty(width + 1, np.float32), np.empty(width + 1, np.float32)  # of the seen slots
    luck = np.empty(width * width)
    at = 0
    for c in range(len(items)):
        n, m = 0, 0
        for s in range(width):
            slots[n], gains[n], looks[n], engaged[m] = s, gain[c, s], look[c, s], s
            n += (seen[c, s] >= SEEN) & (items[c, s] >= 0)
            m += gain[c, s] > 0
        first = at
        for e in range(m):
            i = engaged[e]
            mine, here = gain[c, i], look[c, i]
            for k in range(n):
                context[at], better[at], worse[at] = c, i, slots[k]
                weight[at] = (mine - gains[k]) * abs(here - looks[k])
                at += (mine > gains[k]) & (here != looks[k]) & (items[c, i] != items[c, slots[k]])
        if at - first > most:
            at = _keep(key[c], stream, most, first, at, better, worse, weight, luck)
    return at


@njit(cache=True)
def _keep(key, stream, most, first, at, better, worse, weight, luck):  # type: ignore[no-untyped-def]
    """Keeps the `most` swaps of `first:at` whose draws are largest, in slot order; returns the end of what is kept."""
    n = at - first
    for k in range(n):
        luck[k] = chance(key, stream + better[first + k] * MOST_SLOTS + worse[first + k])
    least = np.sort(luck[:n])[max(n - most, 0)]
    to = first
    for k in range(n):
        if luck[k] >= least and to < first + most:
            better[to], worse[to], weight[to] = better[first + k], worse[first + k], weight[first + k]
            to += 1
    return to


@njit(cache=True)
def best_sums(gain, look):  # type: ignore[no-untyped-def]
    """[context] the sum of gain · look with the most engaging items in the most looked-at places."""
    out = np.empty(len(gain), np.float32)
    for c in range(len(gain)):
        out[c] = _best_sum(gain[c], look[c])
    return out
