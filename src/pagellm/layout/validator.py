"""Does a page keep its layout? A page and its context in, a list of violations out. Plain Python, obvious, slow.

Shares the layout's records and the catalog with the compiler and the masks, and no code: it reads the page slot by slot and asks
of each whether its item may stand there after what came before, and of each empty slot whether some item could have stood there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pagellm.catalog import Catalog
from pagellm.layout.facts import Facts
from pagellm.layout.promises import PAGE, Due, Placed, Promises, SlotKey, slot_id
from pagellm.layout.spec import Layout
from pagellm.types import NO_ITEM, Context, Page


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that a page does wrong."""

    rule: str  # the rule as the layout names it, or "page", "catalog", "candidates", "repeat", "row", "empty"
    slot: str  # "r0c3", or "" where the whole page is meant
    text: str


def validate_page(
    page: Page, layout: Layout, catalog: Catalog, context: Context, now: int, candidates: Iterable[int] | None = None
) -> list[Violation]:
    """What the page does wrong, nothing if it keeps every rule.

    Args:
        page: with all slots of its rows, empty ones too.
        layout: that the page was written for.
        catalog: that its items index.
        context: its `exclude` and `shown` count here.
        now: unix seconds, for pins that end and for `age_days`.
        candidates: catalog indexes that the page was written from; None = the whole catalog.
    """
    return Validator(layout, catalog, now).check(page, context, candidates)


class Validator:
    """Checks many pages of one layout over one catalog."""

    def __init__(self, layout: Layout, catalog: Catalog, now: int) -> None:
        self.layout, self.catalog, self.now = layout, catalog, now
        self.facts = Facts(layout, catalog, now)

    def check(self, page: Page, context: Context, candidates: Iterable[int] | None = None) -> list[Violation]:
        """What the page does wrong; see `validate_page`."""
        wrong = self._shape(page)
        if wrong:
            return wrong
        pool = range(len(self.catalog)) if candidates is None else {int(item) for item in candidates} - {NO_ITEM}
        promises = Promises(self.facts, context, pool)
        rows = [[row.id for row in self.layout.rows].index(name) for name in page.rows]
        placed = {(rows[slot.row], slot.col): slot.item for slot in page.slots}
        return self._walk(promises, rows, placed)

    def _shape(self, page: Page) -> list[Violation]:
        """Rows and slots are those of the layout, items those of the catalog."""
        known = {row.id: row for row in self.layout.rows}
        if page.layout != self.layout.id:
            return [Violation("page", "", f"the page is of layout {page.layout!r}, not {self.layout.id!r}")]
        if len(set(page.rows)) < len(page.rows) or not set(page.rows) <= set(known):
            return [Violation("row", "", f"rows {page.rows} are not distinct rows of the layout")]
        if self.layout.order == "fixed" and page.rows != tuple(known):
            return [Violation("row", "", f"rows stand as {page.rows}, the layout fixes {tuple(known)}")]
        if len(page.rows) != self.layout.shown:
            return [Violation("row", "", f"{len(page.rows)} rows stand, the layout asks for {self.layout.shown}")]
        if absent := [row.id for row in self.layout.rows if not row.optional and row.id not in page.rows]:
            return [Violation("row", "", f"required row {absent[0]!r} is absent")]
        wanted = [(number, col) for number, name in enumerate(page.rows) for col in range(known[name].capacity)]
        if [(slot.row, slot.col) for slot in page.slots] != wanted:
            return [Violation("page", "", f"the page must list its {len(wanted)} slots in reading order, empty ones too")]
        return [
            Violation(
                "catalog", f"r{slot.row}c{slot.col}", f"item {slot.item} is not in the catalog ({len(self.catalog):,} items)"
            )
            for slot in page.slots
            if not (slot.item == NO_ITEM or 0 <= slot.item < len(self.catalog))
        ]

    def _walk(self, promises: Promises, rows: list[int], placed: Placed) -> list[Violation]:
        wrong: list[Violation] = []
        filled = {slot: item for slot, item in placed.items() if item != NO_ITEM}
        steps = list(_prefixes(promises, rows, placed))
        bent = any(promises.broken(placed[slot], slot, before)[1] for _, slot, before in steps if slot in filled)
        plain = not bent and not promises.unmet(filled, rows, promises.full())
        # a page that keeps every rule in full shows by itself that each could be kept at each of its slots
        due = Due(promises.soft, promises.full()) if plain else promises.settle()
        for number, slot, before in steps:
            standing = rows[: number + 1]
            if slot in promises.pins:
                wrong += self._pinned(promises, number, slot, placed[slot])
                continue
            wrong += self._slot(promises, standing, slot, placed[slot], before, due)
            if not plain and not promises.can_meet(before, standing, slot[1], due):
                text = "what stands before this slot leaves no way to meet the minimum rules"
                wrong.append(Violation("min_per", slot_id(number, slot[1]), text))
        for rule, row, amount in promises.unmet(filled, rows, due.amounts):
            where = "the page" if row == PAGE else f"row {self.layout.rows[row].id!r}"
            wrong.append(Violation(rule.name, "", f"{where} has fewer than {amount} items that count"))
        return wrong

    @staticmethod
    def _pinned(promises: Promises, number: int, slot: SlotKey, item: int) -> list[Violation]:
        pin, pinned = promises.pins[slot]
        return [] if item == pinned else [Violation(pin.name, slot_id(number, slot[1]), "the pinned item does not stand here")]

    @staticmethod
    def _slot(promises: Promises, standing: list[int], slot: SlotKey, item: int, before: Placed, due: Due) -> list[Violation]:
        name = slot_id(len(standing) - 1, slot[1])
        ways = promises.ways(slot, before, standing, due)
        if item == NO_ITEM:
            free = next(ways, None)
            return [] if free is None else [Violation("empty", name, f"the slot is empty, but item {free[1]} may stand here")]
        hard, soft = promises.broken(item, slot, before)
        if hard:
            return [Violation(rule, name, f"item {item}: {text}") for rule, text in hard.items()]
        level = promises.level(soft & due.kept)
        better = next((other for other in ways if other[0] < level), None) if level else None
        if better is None:
            return []
        bent = sorted(rule.name for rule in soft & due.kept)
        return [Violation(bent[0], name, f"item {item} breaks the rule, though item {better[1]} could stand here")]


def _prefixes(promises: Promises, rows: list[int], placed: Placed) -> Iterator[tuple[int, SlotKey, Placed]]:
    """Row on the page and slot, in reading order, with all that stands before it; pinned items stand from the start."""
    before = {slot: item for slot, (_, item) in promises.pins.items()}
    for number, row in enumerate(rows):
        for col in range(promises.layout.rows[row].capacity):
            yield number, (row, col), dict(before)
            if placed[row, col] != NO_ITEM:
                before[row, col] = placed[row, col]
