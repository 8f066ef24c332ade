"""The compiled loops of diversity and redundancy: slots without engagement are filled with what the page already has, or nearly.

Arrays, keys and `slot` are as in `kernels.py`: each loop makes one candidate pair a context, in place.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pagellm.data.counters import chance
from pagellm.data.preferences.kernels import MOST_SLOTS, STREAM, holds

LEAST_DROP = 0.02
"""Loss of diversity below which two pages count as equally diverse."""

SAME_WORTH = 0.5
"""Difference in the policy's logit within which two items count as equally relevant."""

_MOST_REPLACED = 3  # slots that one redundancy pair fills with what the page or the user already has


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
    stream, width = 5 * STREAM, items.shape[1]
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
            if j < 0 or holds(items[c], j) or holds(log_item[stop[c] : target_stop[c]], j):
                continue
            closest = -1.0  # to anything of the page: a near-duplicate would be another defect
            for t in range(width):
                if items[c, t] >= 0:
                    closest = max(closest, _kinship(titles, groups, j, items[c, t]))
            if closest <= alike:
                worth[a] = (vectors[j] * vectors[items[c, anchor]]).sum()
        order = np.argsort(-worth, kind="mergesort")
        wanted = 2 + int(chance(key[c], stream + MOST_SLOTS) * (free - 1))
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
    stream, width = operator * STREAM, items.shape[1]
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
                    and (operator == 7 or not holds(rejected[c], j))
                    and (operator != 10 or not _repeated(rejected[c], s, j, titles, groups, alike))
                    and not holds(log_item[stop[c] : target_stop[c]], j)
                ):
                    break
                j = -1
            if j >= 0:
                rejected[c, s] = j
                filled += 1
        if filled:
            slot[c], severity[c] = anchor, filled / size
