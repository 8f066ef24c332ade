"""The compiled loops behind the families of pairs: each makes one candidate pair a context, in place.

Arrays are those of `Situations`; `key` [context] and a stream number decide every draw. `slot` stays -1 where no pair can be made.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pagellm.data.counters import chance

SEEN = 0.5
"""Least chance of having been seen with which a slot without feedback counts as refused."""

LEAST_DROP = 0.02
"""Loss of diversity below which two pages count as equally diverse."""

SAME_WORTH = 0.5
"""Difference in the policy's logit within which two items count as equally relevant."""

_MOST_REPLACED = 3  # slots that one redundancy pair fills with what the page or the user already has
_STREAM = 1_000_003  # numbers that one operator may draw for one context
_MOST_SLOTS = 997  # slots whose pairs draw numbers of their own; of larger pages some draws coincide


@njit(cache=True)
def _holds(row, item):  # type: ignore[no-untyped-def]
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
    stream = operator * _STREAM
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
                and not _holds(page, j)
                and not _holds(chosen, j)
                and not _holds(log_item[start:target_stop], j)
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
        if j < 0 or _holds(page, j) or _holds(chosen, j) or _holds(log_item[start:target_stop], j):
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
    stream, width = 4 * _STREAM, items.shape[1]
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
    stream, width = 9 * _STREAM, items.shape[1]
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
        luck[k] = chance(key, stream + better[first + k] * _MOST_SLOTS + worse[first + k])
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


@njit(cache=True)
def _likeness(page, vectors):  # type: ignore[no-untyped-def]
    """Mean cosine of the page's items, by the square of their sum."""
    total, n = np.zeros(vectors.shape[1]), 0
    squares = 0.0
    for j in page:
        if j >= 0:
            total += vectors[j]
            squares += (vectors[j] ** 2).sum()
            n += 1
    return ((total**2).sum() - squares) / (n * (n - 1)) if n > 1 else 0.0


@njit(cache=True)
def _kinship(titles, groups, i, j):  # type: ignore[no-untyped-def]
    """How alike two items are: 2 within a group, else the cosine of their titles."""
    if groups[i] >= 0 and groups[i] == groups[j]:
        return 2.0
    return float((titles[i] * titles[j]).sum())


@njit(cache=True)
def one_theme(  # type: ignore[no-untyped-def]
    log_item, start, stop, target_stop, items, gain, pool, logits, vectors, titles, groups, alike, key, rejected, slot, severity
):
    """Diversity: slots without engagement take what is most like one item of the page, as relevant to the policy as what stood there."""
    stream, width = 5 * _STREAM, items.shape[1]
    for c in range(len(items)):
        anchor, best, free, engaged = -1, -1.0, 0, -1
        for s in range(width):
            free += items[c, s] >= 0 and gain[c, s] == 0
            u = chance(key[c], stream + s)
            if items[c, s] >= 0 and u > best:
                best, anchor = u, s
            if gain[c, s] > 0 and (engaged < 0 or gain[c, s] > gain[c, engaged]):
                engaged = s
        if engaged < 0 or free < 2:
            continue
        worth = np.full(pool.shape[1], -np.inf)
        own = np.full(width, -np.inf)  # [slot] what the policy thinks of the slot's item
        for a in range(pool.shape[1]):
            j = pool[c, a]
            for s in range(width):
                if j >= 0 and j == items[c, s]:
                    own[s] = logits[c, a]
            if j < 0 or _holds(items[c], j) or _holds(log_item[stop[c] : target_stop[c]], j):
                continue
            closest = -1.0  # to anything of the page: a near-duplicate would be another defect
            for t in range(width):
                if items[c, t] >= 0:
                    closest = max(closest, _kinship(titles, groups, j, items[c, t]))
            if closest <= alike:
                worth[a] = (vectors[j] * vectors[items[c, anchor]]).sum()
        order = np.argsort(-worth, kind="mergesort")
        wanted = 2 + int(chance(key[c], stream + _MOST_SLOTS) * (free - 1))
        filled = 0
        for s in range(width):
            if items[c, s] < 0 or gain[c, s] > 0 or s == anchor or filled == wanted:
                continue
            present = (vectors[items[c, s]] * vectors[items[c, anchor]]).sum()
            for a in order:
                j = pool[c, a]
                if worth[a] == -np.inf:
                    continue
                if worth[a] <= present:
                    break
                if abs(logits[c, a] - own[s]) > SAME_WORTH:
                    continue
                twin = False  # of what was filled in before
                for t in range(s):
                    if rejected[c, t] != items[c, t] and _kinship(titles, groups, j, rejected[c, t]) > alike:
                        twin = True
                if not twin:
                    rejected[c, s] = j
                    worth[a] = -np.inf
                    filled += 1
                    break
        drop = _likeness(rejected[c], vectors) - _likeness(items[c], vectors)
        if filled and drop >= LEAST_DROP:
            slot[c], severity[c] = engaged, drop


@njit(cache=True)
def _known(near, since, moment, luck):  # type: ignore[no-untyped-def]
    """One of the items that were known before the moment, drawn by luck in [0, 1); -1 where there is none."""
    n = 0
    for j in near:
        n += j >= 0 and since[j] < moment
    place = int(luck * n)
    for j in near:
        if j >= 0 and since[j] < moment:
            if place == 0:
                return j
            place -= 1
    return -1


@njit(cache=True)
def _repeated(page, s, j, titles, groups, alike):  # type: ignore[no-untyped-def]
    """Whether item j would be a near-duplicate of what stands in another slot than s."""
    found = False
    for t in range(len(page)):
        found |= t != s and page[t] >= 0 and _kinship(titles, groups, j, page[t]) > alike
    return found


@njit(cache=True)
def refill(  # type: ignore[no-untyped-def]
    log_item, log_taken, start, stop, target_stop, items, gain, twins, since, moment, titles, groups, alike, key, operator,
    rejected, slot, severity,
):  # fmt: skip
    """Redundancy: slots without engagement take twins of others, repeats or items of the history, as `operator` says."""
    stream, width = operator * _STREAM, items.shape[1]
    for c in range(len(items)):
        anchor, free, size, end = -1, 0, 0, 0
        for s in range(width):
            size += items[c, s] >= 0
            end = s + 1 if items[c, s] >= 0 else end
            free += items[c, s] >= 0 and gain[c, s] == 0
            if gain[c, s] > 0 and (anchor < 0 or gain[c, s] > gain[c, anchor]):
                anchor = s
        if anchor < 0 or free < 1:
            continue
        wanted = 1 + int(chance(key[c], stream) * min(_MOST_REPLACED, free))
        planned = np.zeros(width, np.bool_)  # these give way, so none of them is a twin of another
        left, chosen = free, 0
        for s in range(width):
            if items[c, s] >= 0 and gain[c, s] == 0:
                planned[s] = chance(key[c], stream + 1 + s) * left < wanted - chosen
                chosen += planned[s]
                left -= 1
        filled = 0
        for s in range(width):
            if not planned[s]:
                continue
            j = -1
            for attempt in range(10):
                u, v = (
                    chance(key[c], stream + 10_000 * (s + 1) + 2 * attempt),
                    chance(key[c], stream + 10_000 * (s + 1) + 2 * attempt + 1),
                )
                if operator == 8:  # CONSUMED
                    if stop[c] > start[c]:
                        e = start[c] + int(u * (stop[c] - start[c]))
                        j = log_item[e] if log_taken[e] else -1
                else:
                    t = int(u * end)
                    if items[c, t] < 0 or planned[t]:
                        continue
                    j = items[c, t]
                    if operator == 6 or operator == 10:  # NEAR_DUPLICATE, ALIKE
                        j = _known(twins[items[c, t]], since, moment[c], v)
                if (
                    j >= 0
                    and j != items[c, s]
                    and (operator == 7 or not _holds(rejected[c], j))
                    and (operator != 10 or not _repeated(rejected[c], s, j, titles, groups, alike))
                    and not _holds(log_item[stop[c] : target_stop[c]], j)
                ):
                    break
                j = -1
            if j >= 0:
                rejected[c, s] = j
                filled += 1
        if filled:
            slot[c], severity[c] = anchor, filled / size
