"""Rules as tables over items and slots. Takes a layout, a catalog and the time; what decoding needs comes out as arrays.

Precedence is settled here as far as the catalog decides it: an excluded item loses its pin, a pinned item keeps its slot
whatever ads, limits and fills say. Knows no user, no candidates, no probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.errors import LayoutError
from pagellm.layout.fields import column_of, field_codes, theme, unit_codes
from pagellm.layout.select import kind_of, select
from pagellm.layout.spec import Layout, MaxPer, MinPer, Source
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Origin


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` items of one value in a window: what max_per, dedup and the share of ads come to."""

    name: str
    codes: I32  # [item] code of the item's value, -1 where the rule does not count the item
    limit: int
    per_row: bool  # window: each row, or the page
    rows: Bool  # [layout_row] rows that a per-row rule covers; all True for the page
    soft: bool


@dataclass(frozen=True, slots=True)
class Need:
    """At least `limit` of these items in a window: what min_per comes to."""

    name: str
    members: Bool  # [item]
    limit: int
    per_row: bool
    rows: Bool  # [layout_row]
    soft: bool


@dataclass(frozen=True, slots=True)
class PinnedSlot:
    """An item that must stand in one slot."""

    name: str
    item: int
    row: int  # in the layout
    col: int


@dataclass(frozen=True, slots=True)
class Frequency:
    """Items shown to the user this often are not shown again."""

    name: str
    shown: int
    days: int
    soft: bool


@dataclass(frozen=True)
class CompiledLayout:
    """A layout with its rules as tables over one catalog at one moment."""

    layout: Layout
    now: int  # unix seconds
    eligible: Bool  # [item] stands on a page at all: not hidden, not excluded
    bias: F32  # [item] sum of log factors of boost and bury
    boosted: Bool  # [item] lifted by at least one boost
    sponsored: Bool  # [item]; all False where the layout has no ads rule
    fill: Bool  # [layout_row, item] the row's theme or filter takes the item
    capacity: I64  # [layout_row]
    optional: Bool  # [layout_row]
    ad_slots: Bool  # [layout_row, col] takes sponsored items only
    pins: tuple[PinnedSlot, ...]  # active at `now`, of items that are not excluded
    caps: tuple[Cap, ...]
    needs: tuple[Need, ...]
    frequency: Frequency | None
    notes: tuple[str, ...] = field(default=())  # what the catalog alone already settles, for every page

    @property
    def required_items(self) -> I32:
        """Items that the caller adds to each candidate pool: the pinned ones. Shape [pin]."""
        return np.array([pin.item for pin in self.pins], np.int32)

    @cached_property
    def trivial(self) -> bool:
        """Whether the mask is `eligible` without repeats in every slot, so that a page may be filled in one pass."""
        ruled = self.pins or self.caps or self.needs or self.frequency or self.ad_slots.any()
        return not ruled and self.layout.order == "fixed" and self.fills_all

    @cached_property
    def fills_all(self) -> bool:
        """Whether every row takes every item. Looks at all items, so it is asked once and not once a page."""
        return bool(self.fill.all())

    @cached_property
    def places(self) -> int:
        """Slots of the longest page."""
        required = int(self.capacity[~self.optional].sum())
        spare = np.sort(self.capacity[self.optional])[::-1]
        return required + int(spare[: self.layout.shown - int((~self.optional).sum())].sum())

    def without_rules(self) -> CompiledLayout:
        """The same rows, in which any item of the catalog may stand once. Boosts stay: they forbid nothing."""
        return replace(
            self,
            eligible=np.ones_like(self.eligible),
            sponsored=np.zeros_like(self.sponsored),
            fill=np.ones_like(self.fill),
            ad_slots=np.zeros_like(self.ad_slots),
            pins=(),
            caps=(),
            needs=(),
            frequency=None,
            notes=(),
        )

    def origin(self, item: int, pinned: bool) -> Origin:
        """Why the item stands where it stands."""
        if pinned:
            return Origin.PINNED
        if self.sponsored[item]:
            return Origin.SPONSORED
        return Origin.BOOSTED if self.boosted[item] else Origin.ORGANIC


def compile_layout(layout: Layout, catalog: Catalog, now: int) -> CompiledLayout:
    """The layout's tables over this catalog at `now`, unix seconds.

    Raises LayoutError for a column that the catalog lacks, a pinned item that it lacks, and pins that collide at `now`.
    """
    eligible = _eligible(layout, catalog, now)
    pins, notes = _pins(layout, catalog, eligible, now)
    boosts = [(rule.factor, select(rule.where, catalog, now)) for rule in (*layout.rules.boost, *layout.rules.bury)]
    bias = sum((np.log(factor) * hit for factor, hit in boosts), np.zeros(len(catalog)))
    return CompiledLayout(
        layout=layout,
        now=now,
        eligible=eligible,
        bias=np.asarray(bias, np.float32),
        boosted=np.logical_or.reduce([hit for factor, hit in boosts if factor > 1] + [np.zeros(len(catalog), np.bool_)]),
        sponsored=_sponsored(layout, catalog),
        fill=np.stack([_fill(row.source, catalog, now) for row in layout.rows]),
        capacity=np.array([row.capacity for row in layout.rows], np.int64),
        optional=np.array([row.optional for row in layout.rows], np.bool_),
        ad_slots=_ad_slots(layout),
        pins=pins,
        caps=_caps(layout, catalog),
        needs=tuple(_need(rule, layout, catalog) for rule in layout.rules.min_per),
        frequency=_frequency(layout),
        notes=notes,
    )


def _eligible(layout: Layout, catalog: Catalog, now: int) -> Bool:
    keep = catalog.shown
    for rule in layout.rules.exclude:
        if rule.where is not None:
            keep &= ~select(rule.where, catalog, now)
        places = [place for item in rule.items if (place := catalog.index(item)) != NO_ITEM]
        keep[places] = False
    return keep


def _pins(layout: Layout, catalog: Catalog, eligible: Bool, now: int) -> tuple[tuple[PinnedSlot, ...], tuple[str, ...]]:
    pins: list[PinnedSlot] = []
    notes: list[str] = []
    for rule in layout.rules.pin:
        if not rule.active(now):
            continue
        item = catalog.index(rule.item)
        if item == NO_ITEM:
            raise LayoutError(
                f"{rule.name}: item {rule.item!r} is not in the catalog ({len(catalog):,} items). "
                "Pin an item_id of the catalog, or take the pin out."
            )
        row, col = layout.place(rule.slot)
        for other in pins:
            if other.item == item or (other.row, other.col) == (row, col):
                what = "the same item" if other.item == item else "the same slot"
                raise LayoutError(f"{rule.name} and {other.name} name {what}. Take one out, or let the first end with `until`.")
        if eligible[item]:
            pins.append(PinnedSlot(rule.name, item, row, col))
        else:
            notes.append(f"{rule.name} gives way: the item is hidden or excluded")
    return tuple(pins), tuple(notes)


def _sponsored(layout: Layout, catalog: Catalog) -> Bool:
    if layout.rules.ads is None:
        return np.zeros(len(catalog), np.bool_)
    kind = kind_of(catalog.frame["sponsored"]) if "sponsored" in catalog.frame.columns else "absent"
    if kind not in ("flag", "nothing"):
        raise LayoutError(
            f"Rule {layout.rules.ads.name} needs a true/false column `sponsored` in the catalog. It is {kind}. "
            "Add it to the items file, or take the rule out."
        )
    return np.asarray(catalog.frame["sponsored"].fill_null(False).cast(pl.Boolean).to_numpy(), np.bool_)


def _fill(source: Source, catalog: Catalog, now: int) -> Bool:
    if source.filter is not None:
        return select(source.filter, catalog, now)
    return theme(source.theme, catalog) if source.theme is not None else np.ones(len(catalog), np.bool_)


def _ad_slots(layout: Layout) -> Bool:
    slots = np.zeros((len(layout.rows), max(row.capacity for row in layout.rows)), np.bool_)
    for slot in layout.rules.ads.slots if layout.rules.ads is not None else ():
        slots[layout.place(slot)] = True
    return slots


def _caps(layout: Layout, catalog: Catalog) -> tuple[Cap, ...]:
    every = np.ones(len(layout.rows), np.bool_)
    caps: list[Cap] = []
    if layout.ad_limit is not None and layout.rules.ads is not None:
        codes = np.where(_sponsored(layout, catalog), 0, -1).astype(np.int32)
        caps.append(Cap(layout.rules.ads.name, codes, layout.ad_limit, False, every, False))
    for rule in layout.rules.max_per:
        codes = field_codes(rule, catalog)
        caps.append(Cap(rule.name, codes, rule.limit, rule.window == "row", _covered(rule, layout), False))
    dedups = [rule for rule in layout.rules.dedup if rule.unit != "item"]  # no item ever repeats on a page
    caps += [Cap(rule.name, unit_codes(rule, catalog), 1, rule.scope == "row", every, rule.soft) for rule in dedups]
    return tuple(caps)


def _need(rule: MinPer, layout: Layout, catalog: Catalog) -> Need:
    if rule.value is None and kind_of(column_of(rule, catalog)) not in ("flag", "nothing"):
        raise LayoutError(
            f"{rule.name}: {rule.field!r} is no true/false column, so the rule needs `value`. Name the value to count."
        )
    wanted = rule if rule.value is not None else rule.model_copy(update={"value": True})
    return Need(rule.name, field_codes(wanted, catalog) == 0, rule.limit, rule.window == "row", _covered(rule, layout), rule.soft)


def _covered(rule: MaxPer | MinPer, layout: Layout) -> Bool:
    return np.array([not rule.rows or row.id in rule.rows for row in layout.rows], np.bool_)


def _frequency(layout: Layout) -> Frequency | None:
    rule = layout.rules.frequency_cap
    return None if rule is None else Frequency(rule.name, rule.shown, rule.days, rule.soft)
