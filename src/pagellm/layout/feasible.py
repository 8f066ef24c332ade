"""Can a layout be kept at all? A layout and, if there is one, a catalog in; what stands in the way comes out in words.

Rules of users (context, frequency cap) and soft rules, which give way, are no part of the question. With a catalog the
question is exact: is there a full page that keeps every rule? Knows no probabilities.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagellm.catalog import Catalog
from pagellm.errors import LayoutError
from pagellm.layout.compiled import Cap, CompiledLayout, Need, compile_layout
from pagellm.layout.needs import Needs
from pagellm.layout.puzzle import solve
from pagellm.layout.spec import Layout, MaxPer, MinPer
from pagellm.layout.state import NONE, PageState
from pagellm.types import I64, Bool

FILL = "all slots filled"
"""Name of the want that the check adds to the layout's own."""


def problems(layout: Layout, catalog: Catalog | None, now: int) -> list[str]:
    """Why no full page can keep the layout, one sentence a reason; empty if one can.

    Without a catalog only what the file contradicts by itself is found.
    """
    found = _pins(layout, now) + _ads(layout) + _minima(layout)
    if catalog is None or found:
        return found
    try:
        rules = compile_layout(layout, catalog, now)
    except LayoutError as error:
        return [str(error)]
    found = [f"{note}. Take the pin out, or let the item in" for note in rules.notes]
    found += _rows(rules) + _page(rules) + _needs(rules)
    return found or _together(rules)


# What the file contradicts by itself


def _pins(layout: Layout, now: int) -> list[str]:
    found: list[str] = []
    slots: dict[tuple[int, int], str] = {}
    items: dict[str, str] = {}
    excluded = {item for rule in layout.rules.exclude for item in rule.items}
    for pin in layout.rules.pin:
        if not pin.active(now):
            continue
        slot = layout.place(pin.slot)
        if pin.item in excluded:
            found.append(f"{pin.name}: the item is in exclude.items, which wins. Take one of the two out")
        if pin.item in items:
            found.append(f"{pin.name}: the item is pinned at {items[pin.item]} already, and no item stands on a page twice")
        if slot in slots:
            found.append(f"{pin.name}: {slots[slot]} is pinned to this slot already. Take one out, or let it end with `until`")
        slots[slot], items[pin.item] = pin.item, pin.slot
    return found


def _ads(layout: Layout) -> list[str]:
    ads, limit = layout.rules.ads, layout.ad_limit
    if ads is None or limit is None:
        return []
    share = f"ads max_share {ads.max_share:g} of {layout.fewest_slots} slots"
    if limit == 0:
        return [f"{share} is less than one slot: raise the share, or take the rule out and exclude sponsored items"]
    if len(ads.slots) > limit:
        return [
            f"{share} allows {limit} sponsored items, but {len(ads.slots)} slots are for ads: raise the share or name fewer slots"
        ]
    return []


def _minima(layout: Layout) -> list[str]:
    found = []
    hard = [rule for rule in layout.rules.min_per if not rule.soft]
    for rule in hard:
        rows = [row for row in layout.rows if not rule.rows or row.id in rule.rows]
        if rule.window == "row":
            small = [row for row in rows if row.capacity < rule.limit]
            found += [
                f"{rule.name}: row {row.id!r} has {row.capacity} slots: lower the limit or raise the capacity" for row in small
            ]
        elif rule.limit > layout.fewest_slots:
            found.append(f"{rule.name}: a page may have {layout.fewest_slots} slots: lower the limit")
        for other in layout.rules.max_per:
            most = _most(layout, other) if other.window == "row" and rule.window == "page" else other.limit
            if _same_value(rule, other) and not (other.window == "row" and other.rows) and most < rule.limit:
                found.append(f"{rule.name} and {other.name} contradict each other: the second leaves {most}")
    for window in {(rule.field, rule.window, rule.rows) for rule in hard}:
        rules = [rule for rule in hard if (rule.field, rule.window, rule.rows) == window and not isinstance(rule.value, bool)]
        total = sum({rule.value: rule.limit for rule in rules}.values())
        room = (
            layout.fewest_slots
            if window[1] == "page"
            else min(r.capacity for r in layout.rows if not window[2] or r.id in window[2])
        )
        if len(rules) > 1 and total > room and all(rule.limit <= room for rule in rules):
            names = " and ".join(rule.name for rule in rules)
            found.append(f"{names} together ask for {total} of {room} slots: lower the limits")
    return found


def _most(layout: Layout, rule: MaxPer) -> int:
    return sum(sorted((min(rule.limit, row.capacity) for row in layout.rows), reverse=True)[: layout.shown])


def _same_value(least: MinPer, most: MaxPer) -> bool:
    return least.field == most.field and most.value in (None, True if least.value is None else least.value)


# What the catalog cannot give, rule by rule


def _rows(rules: CompiledLayout) -> list[str]:
    found = []
    for row, spec in enumerate(rules.layout.rows):
        organic, ads = _free(rules, row)
        items = rules.eligible & rules.fill[row]
        items[rules.required_items] = False
        strict = bool(rules.ad_slots.any())
        for slots, pool, what in (
            (organic, items & ~(rules.sponsored & strict), ""),
            (ads, items & rules.sponsored, " sponsored"),
        ):
            if (have := int(pool.sum())) < slots:
                found.append(
                    f"row {spec.id!r} ({spec.source.words}) has {have}{what} items for {slots} slots: widen it or lower its capacity"
                )
                continue
            for cap in rules.caps:
                left = _leaves(rules, cap, pool, row) if not cap.soft and cap.per_row and cap.rows[row] else slots
                if left < slots:
                    text = f"leaves {left}{what} items for the {slots} slots of row {spec.id!r}: raise the limit or lower the capacity"
                    found.append(f"{cap.name} {text}")
    return found


def _free(rules: CompiledLayout, row: int) -> tuple[int, int]:
    """Slots of the row that are not pinned: for all items, and for sponsored ones."""
    free = np.arange(rules.ad_slots.shape[1]) < rules.capacity[row]
    free[[pin.col for pin in rules.pins if pin.row == row]] = False
    return int((free & ~rules.ad_slots[row]).sum()), int((free & rules.ad_slots[row]).sum())


def _leaves(rules: CompiledLayout, cap: Cap, pool: Bool, row: int | None) -> int:
    """Items of the pool that can stand together under one limit, beside the pinned ones of the row (None: of the page)."""
    pinned = np.array([pin.item for pin in rules.pins], np.int64)
    pool = pool.copy()
    pool[pinned] = False
    inside = np.array([pin.item for pin in rules.pins if row in (None, pin.row)], np.int64)
    codes = cap.codes[pool]
    values, counts = np.unique(codes[codes >= 0], return_counts=True)
    taken = np.array([(cap.codes[inside] == value).sum() for value in values], np.int64)
    return int((codes < 0).sum() + np.minimum(counts, np.maximum(cap.limit - taken, 0)).sum())


def _page(rules: CompiledLayout) -> list[str]:
    slots = rules.layout.fewest_slots - len(rules.pins)
    pool = rules.eligible & rules.fill.any(0)
    items = int(pool.sum()) - len(rules.pins)
    if items < slots:
        return [f"the page has {slots} slots that are not pinned and {max(items, 0)} items to fill them: lower the capacities"]
    leaves = [(cap, _leaves(rules, cap, pool, None)) for cap in rules.caps if not cap.soft and not cap.per_row]
    advice = "raise the limit or lower the capacities"
    return [f"{cap.name} leaves {left} items for the {slots} slots of the page: {advice}" for cap, left in leaves if left < slots]


def _needs(rules: CompiledLayout) -> list[str]:
    found = []
    for need in rules.needs:
        rows: list[int | None] = [int(row) for row in np.flatnonzero(need.rows)] if need.per_row else [None]
        for row in rows:
            where = "the page" if row is None else f"row {rules.layout.rows[row].id!r}"
            fill = rules.fill.any(0) if row is None else rules.fill[row]
            pins = sum(bool(need.members[pin.item]) for pin in rules.pins if row in (None, pin.row))
            pool = rules.eligible & fill & need.members
            pool[[pin.item for pin in rules.pins]] = False
            have = int(pool.sum()) + pins
            if need.soft or have < need.limit:
                if not need.soft:
                    found.append(f"{need.name}: {where} can draw on {have} such items: lower the limit or add items")
                continue
            for cap in rules.caps:
                tied = not cap.soft and cap.per_row == need.per_row and (row is None or cap.rows[row])
                if tied and (left := _leaves(rules, cap, pool, row) + pins) < need.limit:
                    found.append(
                        f"{need.name}: {cap.name} leaves {left} such items for {where}: lower the one or raise the other"
                    )
    return found


# Everything together, exactly


def _together(rules: CompiledLayout) -> list[str]:
    hard = hard_rules(rules)
    stuck = _stuck_rows(hard)
    if not stuck:
        return []
    where = (
        "no full page"
        if NONE in stuck
        else "no full page with row " + ", ".join(repr(rules.layout.rows[row].id) for row in stuck)
    )
    without = [(cap.name, replace(hard, caps=tuple(c for c in hard.caps if c is not cap))) for cap in hard.caps]
    without += [(need.name, replace(hard, needs=tuple(n for n in hard.needs if n is not need))) for need in hard.needs]
    relief = [name for name, rest in without if not _stuck_rows(rest)]
    advice = f"it would be one without {' or without '.join(relief)}" if relief else "more than one rule has to be relaxed"
    return [f"the rules together leave {where}: {advice}"]


def _stuck_rows(rules: CompiledLayout) -> list[int]:
    """Optional rows that no full page can hold; NONE for a layout without any full page."""
    every = np.ones(len(rules.eligible), np.bool_)
    fills = tuple(
        Need(FILL, every, int(size), True, np.arange(len(rules.capacity)) == row, False)
        for row, size in enumerate(rules.capacity)
    )
    full = replace(rules, needs=(*rules.needs, *fills))
    state = PageState(full, pool_of_kinds(full)[None], None, None)
    needs = Needs(state)
    needs.short[0] = needs.full(0)
    rows = [int(row) for row in np.flatnonzero(rules.optional)] or [NONE]
    return [row for row in rows if solve(needs.puzzle(0, row=row)) is None]


def hard_rules(rules: CompiledLayout) -> CompiledLayout:
    """The rules without those that give way and without the frequency cap, which is a matter of users."""
    caps, needs = tuple(c for c in rules.caps if not c.soft), tuple(n for n in rules.needs if not n.soft)
    return replace(rules, caps=caps, needs=needs, frequency=None)


def pool_of_kinds(rules: CompiledLayout) -> I64:
    """Items that matter: of interchangeable ones no more than a page has slots, and the pinned ones."""
    items = np.flatnonzero(rules.eligible & rules.fill.any(0))
    kinds = [cap.codes[items] for cap in rules.caps] + [need.members[items] for need in rules.needs]
    kinds += [*rules.fill[:, items], rules.sponsored[items]]
    _, kind = np.unique(np.stack(kinds), axis=1, return_inverse=True)
    order = np.argsort(kind.reshape(-1), kind="stable")
    ranked = kind.reshape(-1)[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    rank = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.r_[starts, len(ranked)]))
    return np.union1d(items[order[rank < rules.places]], rules.required_items.astype(np.int64))
