"""What each slot of a page is to the rest of the page and to its user's history: repetition, likeness, shared themes.

Takes pages and likeness of items, gives numbers a slot. Knows neither feedback nor a model.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pagellm.data.likeness import Likeness
from pagellm.types import F32, I32, I64, Contexts

RELATIONS = (
    "repeat",  # times the very item stands earlier on the page
    "kin_before",  # near-duplicates among the slots before, and
    "kin",  # among all others
    "title_before",  # largest title cosine with a slot before, and
    "title",  # with any other
    "alike_before",  # mean content cosine with the slots before, and
    "alike",  # with all others
    "nearest",  # largest content cosine with any other
    "theme_before",  # share of the slots before that are of its category, and
    "theme",  # of all others
    "brand",  # share of the others that are of its brand
    "consumed",  # 1 where the user took the item before
    "consumed_kin",  # near-duplicates of it in the history, as log(1 + n)
    "consumed_title",  # largest title cosine with the history
)
"""Columns of `page_relations`, in order. Zero where a slot is empty or nothing is there to compare with."""

_DEPTH = 50  # newest events of a history that are compared


def page_relations(pages: I32, contexts: Contexts, place: I64, likeness: Likeness) -> F32:
    """Relations of every slot. Shape [page, slot, len(RELATIONS)]. `pages` [page, slot] are items, `place` [page] each one's context.

    Near-duplicates are of one group, or have a title cosine above `likeness.alike`; an item is no near-duplicate of itself.
    """
    out = np.zeros((*pages.shape, len(RELATIONS)), np.float32)
    codes = (likeness.groups, likeness.themes, likeness.brands, likeness.alike)
    history = (contexts.log.item, contexts.log.taken, contexts.start, contexts.stop)
    _relations(pages, place, *history, likeness.vectors, likeness.titles, *codes, out)
    return out


@njit(cache=True, fastmath={"reassoc", "contract"})
def _product(a: F32, b: F32) -> float:
    total = np.float32(0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return float(total)


@njit(cache=True)
def _kin(groups, i, j, cosine, alike):  # type: ignore[no-untyped-def]
    return i != j and (cosine > alike or (groups[i] >= 0 and groups[i] == groups[j]))


@njit(cache=True, parallel=True)
def _relations(pages, place, item, taken, start, stop, vectors, titles, groups, themes, brands, alike, out):  # type: ignore[no-untyped-def]
    for p in prange(len(pages)):
        page, c = pages[p], place[p]
        size = np.zeros(len(page))  # slots before it that are filled
        others = (page >= 0).sum() - 1
        before = 0
        for s in range(len(page)):
            size[s] = before
            before += page[s] >= 0
        for s in range(len(page)):
            i = page[s]
            if i < 0:
                continue
            row = out[p, s]
            for t in range(s):
                j = page[t]
                if j < 0:
                    continue
                cosine, content = _product(titles[i], titles[j]), _product(vectors[i], vectors[j])
                theme, brand = themes[i] >= 0 and themes[i] == themes[j], brands[i] >= 0 and brands[i] == brands[j]
                kin = _kin(groups, i, j, cosine, alike)
                back = out[p, t]
                row[0] += i == j
                row[1] += kin
                row[2] += kin
                back[2] += kin
                row[3] = max(row[3], cosine)
                row[4] = max(row[4], cosine)
                back[4] = max(back[4], cosine)
                row[5] += content / size[s]
                row[6] += content / others
                back[6] += content / others
                row[7] = max(row[7], content)
                back[7] = max(back[7], content)
                row[8] += theme / size[s]
                row[9] += theme / others
                back[9] += theme / others
                row[10] += brand / others
                back[10] += brand / others
            for e in range(stop[c] - 1, start[c] - 1, -1):
                h = item[e]
                if h == i and taken[e]:
                    row[11] = 1.0
                if e >= stop[c] - _DEPTH:
                    cosine = _product(titles[i], titles[h])
                    row[12] += _kin(groups, i, h, cosine, alike)
                    row[13] = max(row[13], cosine)
            row[12] = np.log1p(row[12])
