"""Defects that no reward of ours is trained on: what they are caught at says whether a reward knows what a bad page is.

Nothing in `training` may import this module; an import contract keeps it so. Takes situations, gives pairs as the families do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pagellm.data.contexts import ALWAYS
from pagellm.data.likeness import Likeness
from pagellm.data.preferences.families import blank, pairs_made
from pagellm.data.preferences.pairs import Family, HeldOut, Pairs, join_pairs
from pagellm.data.preferences.situations import Situations
from pagellm.types import F32, I32, I64, Bool

FAMILY_OF = {
    HeldOut.FOREIGN_BLOCK: Family.RELEVANCE,
    HeldOut.FLOOD: Family.RELEVANCE,
    HeldOut.ROTATION: Family.RANKING,
    HeldOut.BRAND_WALL: Family.DIVERSITY,
    HeldOut.PARAPHRASE: Family.REDUNDANCY,
}
"""The family whose defect each operator makes in its own way."""

_CLOSEST_TITLE = 0.35  # below it a paraphrase's title has nothing to do with what it paraphrases
_LOOKED_AT = 50  # nearest items that a paraphrase is looked for among
_BEST_SELLERS = 200


@dataclass(frozen=True)
class Shelf:
    """What held-out defects are made of."""

    likeness: Likeness
    since: I64  # [item] unix seconds: a page may hold what was known strictly before its context
    best_sellers: I32  # [any] items by how often they were taken, the most often first

    @classmethod
    def of(cls, likeness: Likeness, since: I64, taken: I32) -> Shelf:
        """`taken` lists the item of every event before the judged window."""
        counts = np.where(since < ALWAYS, np.bincount(taken, minlength=len(since)), 0)
        best = np.argsort(-counts, kind="stable")[: min(_BEST_SELLERS, int((counts > 0).sum()))]
        return cls(likeness, since, best.astype(np.int32))

    def known(self, time: int) -> Bool:
        """[item] what may stand on a page of a context of this time."""
        return np.asarray(self.since < time)


@dataclass(frozen=True)
class _Page:
    """One situation, as an operator sees it."""

    items: I32  # [slot] filled slots only
    gain: F32  # [slot]
    look: F32  # [slot]
    row: np.ndarray  # [slot]
    time: int  # unix seconds, of the context
    history: I32  # [event]
    taboo: I32  # items of the page, the history and the target basket
    rng: np.random.Generator


Operation = Callable[[_Page, Shelf], "I32 | None"]
"""Gives the defective page's items [slot], None where the page offers no room for the defect."""


def held_out_pairs(s: Situations, key: np.ndarray, shelf: Shelf) -> Pairs:
    """Pairs of all held-out operators. Severity: the share of slots that changed."""
    operations: dict[HeldOut, Operation] = {
        HeldOut.FOREIGN_BLOCK: foreign_block,
        HeldOut.FLOOD: flood,
        HeldOut.ROTATION: rotation,
        HeldOut.BRAND_WALL: brand_wall,
        HeldOut.PARAPHRASE: paraphrase,
    }
    parts = []
    for operator, operation in operations.items():
        made = blank(s)
        for c in range(len(s)):
            page = _page(s, c, key, int(operator))
            items = operation(page, shelf) if (page.gain > 0).any() else None
            if items is not None and (items != page.items).any():
                made.rejected[c, : len(items)] = items
                made.slot[c] = int(page.gain.argmax())
                made.severity[c] = float((items != page.items).mean())
        parts.append(pairs_made(s, made, FAMILY_OF[operator], operator))
    return join_pairs(parts)


def foreign_block(page: _Page, shelf: Shelf) -> I32 | None:
    """Half of the page, an engaged slot in it, filled with items of a theme that is foreign to the history."""
    themes, size = shelf.likeness.themes, len(page.items)
    length = max(2, size // 2)
    own = np.bincount(themes[page.history][themes[page.history] >= 0], minlength=int(themes.max(initial=0)) + 1)
    stock = _stock(page, shelf)
    plenty = np.flatnonzero(np.bincount(themes[stock][themes[stock] >= 0], minlength=len(own)) >= length)
    foreign = plenty[own[plenty] == 0]
    if size < length or not len(foreign):
        return None
    theme = page.rng.choice(foreign)
    engaged = page.rng.choice(np.flatnonzero(page.gain > 0))
    begin = int(np.clip(engaged - page.rng.integers(length), 0, size - length))
    out = page.items.copy()
    out[begin : begin + length] = page.rng.choice(stock[themes[stock] == theme], length, replace=False)
    return out


def flood(page: _Page, shelf: Shelf) -> I32 | None:
    """The engaged slots and half of the others filled with best-sellers of all time."""
    stock = shelf.best_sellers[~np.isin(shelf.best_sellers, page.taboo)]
    stock = stock[shelf.known(page.time)[stock]]
    wanted = (page.gain > 0) | (page.rng.random(len(page.items)) < 0.5)
    if len(stock) < wanted.sum():
        return None
    out = page.items.copy()
    out[wanted] = stock[: wanted.sum()]
    return out


def rotation(page: _Page, shelf: Shelf) -> I32 | None:
    """Rows turned round, or the slots of a page of one row, so that what was engaged with is looked at less."""
    rows = np.unique(page.row, return_counts=True)[1]
    step = int(rows[0]) if len(rows) > 1 and (rows == rows[0]).all() else 1
    worth = float((page.gain * page.look).sum())
    worse = [k for k in range(step, len(page.items), step) if float((np.roll(page.gain, k) * page.look).sum()) < 0.95 * worth]
    return np.roll(page.items, page.rng.choice(worse)) if worse else None


def brand_wall(page: _Page, shelf: Shelf) -> I32 | None:
    """Slots without engagement filled with other items of one engaged item's brand."""
    brands = shelf.likeness.brands
    brand = brands[page.items[page.gain.argmax()]]
    free = np.flatnonzero(page.gain == 0)
    stock = _stock(page, shelf)
    stock = stock[brands[stock] == brand]
    n = min(len(stock), len(free))
    if brand < 0 or n < 3 or (brands[page.items] == brand).sum() > len(page.items) // 2:
        return None
    out = page.items.copy()
    out[page.rng.choice(free, n, replace=False)] = page.rng.choice(stock, n, replace=False)
    return out


def paraphrase(page: _Page, shelf: Shelf) -> I32 | None:
    """Up to three slots without engagement filled with what reads most like another slot's item and is titled otherwise."""
    likeness, out = shelf.likeness, page.items.copy()
    free = page.rng.permutation(np.flatnonzero(page.gain == 0))[:3]
    anchors = np.setdiff1d(np.arange(len(out)), free)
    for slot in free:
        anchor = out[page.rng.choice(anchors)]
        near = np.argsort(-(likeness.vectors @ likeness.vectors[anchor]), kind="stable")[:_LOOKED_AT]
        titles = likeness.titles[near] @ likeness.titles[anchor]
        kin = (likeness.groups[near] >= 0) & (likeness.groups[near] == likeness.groups[anchor])
        known = shelf.known(page.time)[near]
        fit = near[(titles > _CLOSEST_TITLE) & (titles <= likeness.alike) & ~kin & known & ~np.isin(near, page.taboo)]
        fit = fit[~np.isin(fit, out)]
        if len(fit):
            out[slot] = fit[0]
    return out


def _page(s: Situations, c: int, key: np.ndarray, operator: int) -> _Page:
    size = int((s.items[c] >= 0).sum())
    contexts = s.contexts
    known = contexts.log.item[contexts.start[c] : contexts.target_stop[c]]
    rng = np.random.default_rng((int(key[c]), operator))
    taboo = np.concatenate([known, s.items[c]])
    page = s.items[c, :size], s.gain[c, :size], s.look[c, :size], s.row[c, :size]
    return _Page(*page, int(contexts.time[c]), contexts.history(c), taboo, rng)


def _stock(page: _Page, shelf: Shelf) -> I64:
    """Items that may be filled in."""
    free = shelf.known(page.time)
    free[page.taboo[page.taboo >= 0]] = False
    return np.flatnonzero(free)
