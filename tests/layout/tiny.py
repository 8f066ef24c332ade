"""Tiny shops and layouts for brute force: every page that could be written, and every page that the masks let be written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import polars as pl
from hypothesis import strategies as st

from pagellm.catalog import Catalog
from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.masks import PageMasks
from pagellm.layout.spec import Layout
from pagellm.types import NO_ITEM, Context, Page, Slot

NOW = 1_700_000_000

Rows = tuple[str, ...]
Items = tuple[int, ...]


def catalog(**columns: list[object]) -> Catalog:
    """Items i0, i1, … with these columns."""
    size = len(next(iter(columns.values())))
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(size)], "title": [f"Item {n}" for n in range(size)]})
    return Catalog(frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()}))


def context(exclude: Items = (), shown: Items = ()) -> Context:
    """An empty history."""
    none = np.empty(0, np.int32)
    return Context(
        NOW, none, none.astype(np.int8), none.astype(np.int64),
        exclude=np.array(exclude, np.int32), shown=np.array(shown, np.int32),
    )  # fmt: skip


def masks_for(rules: CompiledLayout, pool: Items, asked: Context, pages: int) -> PageMasks:
    """The same context for a number of pages."""
    items = np.array(pool, np.int32)
    exclude = np.isin(items, asked.exclude)
    shown = np.array([(asked.shown == item).sum() for item in items], np.int32)
    many = [np.tile(part, (pages, 1)) for part in (items, exclude, shown)]
    return PageMasks(rules, *many)


def written(rules: CompiledLayout, pool: Items, asked: Context) -> set[tuple[Rows, Items]]:
    """Every page that can be written inside the masks, breadth first: each round replays all prefixes as one batch."""
    pool = (*pool, *(int(item) for item in rules.required_items if item not in pool))
    finished: set[tuple[Rows, Items]] = set()
    prefixes: list[tuple[int, ...]] = [()]
    while prefixes:
        masks = masks_for(rules, pool, asked, len(prefixes))
        for step in range(len(prefixes[0])):
            move(masks, np.array([prefix[step] for prefix in prefixes]))
        grown: list[tuple[int, ...]] = []
        rows, slots = masks.rows_allowed(), masks.allowed()
        for page, prefix in enumerate(prefixes):
            if masks.done[page]:
                finished.add(written_page(masks, page))
            elif masks.between[page]:
                assert rows[page].any(), "the masks ran into a dead end"
                grown += [(*prefix, int(row)) for row in np.flatnonzero(rows[page])]
            else:
                grown += [(*prefix, int(place)) for place in np.flatnonzero(slots[page])] or [(*prefix, -1)]
        prefixes = grown
    return finished


def written_page(masks: PageMasks, page: int) -> tuple[Rows, Items]:
    """Rows and items of one finished page."""
    names = tuple(masks.rules.layout.rows[row].id for row in masks.state.rows[page])
    size = int(sum(masks.rules.capacity[row] for row in masks.state.rows[page]))
    return names, tuple(int(item) for item in masks.items[page, :size])


def move(masks: PageMasks, choice: np.ndarray) -> None:
    """One step of a batch in which pages may stand between rows or at slots."""
    between = masks.between.copy()
    if not (between | masks.done).all():
        masks.place(choice)
    masks.place_row(np.where(between, choice, -1))


def conceivable(layout: Layout, size: int) -> Iterator[tuple[Rows, Items]]:
    """Every order of rows with every filling of their slots, repeats and empty slots included."""
    for rows in permutations(layout.rows, layout.shown):
        if layout.order == "fixed" and rows != layout.rows:
            continue
        slots = sum(row.capacity for row in rows)
        for items in product(range(NO_ITEM, size), repeat=slots):
            yield tuple(row.id for row in rows), items


def page_of(layout: Layout, rows: Rows, items: Items) -> Page:
    """A page as a record."""
    capacity = {row.id: row.capacity for row in layout.rows}
    places = [(number, col) for number, name in enumerate(rows) for col in range(capacity[name])]
    return Page(layout.id, rows, tuple(Slot(row, col, item) for (row, col), item in zip(places, items, strict=True)))


@st.composite
def shops(draw: st.DrawFn) -> Catalog:
    """Two to five items with every column that rules look at."""
    size = draw(st.integers(2, 5))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=size, max_size=size))

    frame = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(size)], "title": column(st.sampled_from(["Alpha", "alpha!", "Beta", "Gamma"]))}
    )
    return Catalog(
        frame.with_columns(
            pl.Series("brand", column(st.sampled_from(["a", "b", None])), dtype=pl.String),
            pl.Series("categories", column(st.sampled_from([["x"], ["y"], ["x", "y"], []])), dtype=pl.List(pl.String)),
            pl.Series("group_id", column(st.sampled_from(["g", "h", None, None])), dtype=pl.String),
            pl.Series("sponsored", column(st.sampled_from([True, False, False])), dtype=pl.Boolean),
            pl.Series("new", column(st.booleans()), dtype=pl.Boolean),
            pl.Series("price", column(st.sampled_from([1.0, 2.0, None])), dtype=pl.Float64),
            pl.Series("hidden", column(st.sampled_from([False, False, False, True])), dtype=pl.Boolean),
        )
    )


_SOURCES = st.sampled_from(["model"] * 4 + [{"theme": "x"}, {"theme": "y"}, {"filter": "price < 2"}, {"filter": "not new"}])


@st.composite
def layouts(draw: st.DrawFn, items: int) -> Layout:
    """One to three rows of at most three slots together, and any mixture of rules."""
    capacities = draw(st.sampled_from([[1], [2], [3], [1, 1], [1, 2], [2, 1], [1, 1, 1]]))
    rows = [{"id": f"w{n}", "capacity": capacity, "source": draw(_SOURCES)} for n, capacity in enumerate(capacities)]
    content: dict[str, object] = {"id": "tiny", "rows": rows}
    policy = len(rows) > 1 and draw(st.booleans())
    if policy:
        content["order"] = "policy"
        if draw(st.booleans()):
            content["rows_shown"] = len(rows) - 1
            for row in draw(st.sampled_from([rows, rows[1:], rows[-1:]])):
                row["optional"] = True
            if sum("optional" not in row for row in rows) == len(rows) - 1:
                rows[0]["optional"] = True
    required = [n for n, row in enumerate(rows) if not row.get("optional")]
    slots = [f"w{n}.c{col}" for n in required for col in range(capacities[n])]
    every_slot = [f"w{n}.c{col}" for n, capacity in enumerate(capacities) for col in range(capacity)]
    content["rules"] = draw(_rules(items, slots, every_slot, [str(row["id"]) for row in rows]))
    return Layout.model_validate(content)


@st.composite
def _rules(draw: st.DrawFn, items: int, pin_slots: list[str], slots: list[str], rows: list[str]) -> dict[str, object]:
    rules: dict[str, object] = {}

    def sometimes(chance: int) -> bool:
        return draw(st.integers(0, 9)) < chance

    if sometimes(2):
        rules["exclude"] = [{"where": draw(st.sampled_from(["brand == 'a'", "price is missing", "not sponsored and new"]))}]
    if pin_slots and sometimes(3):
        count = draw(st.integers(1, min(2, len(pin_slots), items)))
        where = draw(st.permutations(pin_slots))[:count]
        what = draw(st.permutations(range(items)))[:count]
        rules["pin"] = [{"item": f"i{item}", "slot": slot} for item, slot in zip(what, where, strict=True)]
    if sometimes(3):
        ads: dict[str, object] = {}
        if draw(st.booleans()):
            ads["slots"] = draw(st.lists(st.sampled_from(slots), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()) or not ads:
            ads["max_share"] = draw(st.sampled_from([0.2, 0.34, 0.5, 1.0]))
        rules["ads"] = ads
    window = st.sampled_from(["row", "page"])
    if sometimes(5):
        rules["max_per"] = [
            {
                "field": draw(st.sampled_from(["brand", "categories[0]", "new"])),
                "limit": draw(st.integers(1, 2)),
                "window": draw(window),
            }
            for _ in range(draw(st.integers(1, 2)))
        ]
    if sometimes(6):
        rules["min_per"] = [draw(_minimum(rows)) for _ in range(draw(st.integers(1, 3)))]
    if sometimes(5):
        rules["dedup"] = [
            {"unit": draw(st.sampled_from(["group_id", "title"])), "scope": draw(window), "soft": draw(st.booleans())}
            for _ in range(draw(st.integers(1, 2)))
        ]
    if sometimes(3):
        rules["frequency_cap"] = {"shown": draw(st.integers(1, 2)), "days": 7, "soft": draw(st.booleans())}
    return rules


@st.composite
def _minimum(draw: st.DrawFn, rows: list[str]) -> dict[str, object]:
    rule: dict[str, object] = {"limit": draw(st.integers(1, 2)), "soft": draw(st.sampled_from([False, False, True]))}
    field, value = draw(st.sampled_from([("new", None), ("new", False), ("brand", "a"), ("brand", "b"), ("categories[0]", "x")]))
    rule["field"] = field
    if value is not None:
        rule["value"] = value
    rule["window"] = draw(st.sampled_from(["row", "page"]))
    if rule["window"] == "row" and draw(st.booleans()):
        rule["rows"] = [draw(st.sampled_from(rows))]
    return rule
