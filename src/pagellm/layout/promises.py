"""What may still follow a half-written page, by plain search. The validator's own notion of every rule; knows no masks.

Takes item facts, a context and a candidate pool. A page in writing is a dict from (layout row, column) to item, pinned items included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

from pagellm.layout.facts import Facts
from pagellm.layout.spec import Dedup, FrequencyCap, MinPer, Pin
from pagellm.types import NO_ITEM, Context

PAGE = -1
"""Stands for a window that is the page and no single row."""

SlotKey = tuple[int, int]
Placed = dict[SlotKey, int]
Soft = Dedup | FrequencyCap
Amounts = dict[tuple[int, int], int]
"""(place of the min_per rule, layout row or PAGE) → items that the window must hold."""


@dataclass(frozen=True, slots=True)
class Due:
    """What one page owes: soft rules that hold on it, and amounts of the minimum rules."""

    kept: frozenset[Soft]
    amounts: Amounts


def slot_id(row: int, col: int) -> str:
    """A slot as people write it."""
    return f"r{row}c{col}"


class Promises:
    """The rules of one layout for one context."""

    def __init__(self, facts: Facts, context: Context, pool: Collection[int]) -> None:
        self.facts, self.layout, self.rules = facts, facts.layout, facts.layout.rules
        self.banned = {int(item) for item in context.exclude}
        self.shown = Counter(int(item) for item in context.shown)
        self.pins = self._pins()
        self.pool = set(pool) | {item for _, item in self.pins.values()}
        rules: tuple[Soft | None, ...] = (*self.rules.dedup, self.rules.frequency_cap)
        self.soft_rules = [rule for rule in rules if rule is not None and rule.soft]  # in order of precedence
        self.soft = frozenset(self.soft_rules)

    def _pins(self) -> dict[SlotKey, tuple[Pin, int]]:
        pins = {}
        for pin in self.rules.pin:
            item = self.facts.catalog.index(pin.item)
            if pin.active(self.facts.now) and item != NO_ITEM and not self.facts.excluded(item) and item not in self.banned:
                pins[self.layout.place(pin.slot)] = (pin, item)
        return pins

    # What an item breaks

    def broken(self, item: int, slot: SlotKey, before: Placed) -> tuple[dict[str, str], set[Soft]]:
        """Hard rules that the item would break in this slot, with the reason, and soft rules that it would break."""
        others = {place: other for place, other in before.items() if place != slot}
        hard = self._static(item, slot) | self._counted(item, slot, others)
        soft: set[Soft] = set()
        for rule in self.rules.dedup:
            mine = self.facts.unit(item, rule.unit)
            near = [other for place, other in others.items() if rule.scope == "page" or place[0] == slot[0]]
            if mine is not None and any(self.facts.unit(other, rule.unit) == mine for other in near):
                if rule.soft:
                    soft.add(rule)
                else:
                    hard[rule.name] = f"shares its {rule.unit} with another item"
        cap = self.rules.frequency_cap
        if cap is not None and self.shown[item] >= cap.shown:
            if cap.soft:
                soft.add(cap)
            else:
                hard[cap.name] = f"was shown {self.shown[item]} times"
        return hard, soft

    def _static(self, item: int, slot: SlotKey) -> dict[str, str]:
        hard = {}
        row = self.layout.rows[slot[0]]
        if item not in self.pool:
            hard["candidates"] = "is none of the candidates"
        if rule := self.facts.excluded(item):
            hard[rule] = "is excluded"
        if item in self.banned:
            hard["context"] = "is excluded for this context"
        if not self.facts.fills(item, row):
            hard["row"] = f"does not belong in row {row.id!r} ({row.source.words})"
        ads = self.rules.ads
        if ads is not None and ads.slots:
            ad_slot = slot in [self.layout.place(place) for place in ads.slots]
            if ad_slot != self.facts.sponsored(item):
                hard[ads.name] = "is not sponsored, the slot is for ads" if ad_slot else "is sponsored, the slot is not for ads"
        return hard

    def _counted(self, item: int, slot: SlotKey, others: Placed) -> dict[str, str]:
        hard = {}
        if item in others.values():
            hard["repeat"] = "stands on the page already"
        ads, limit = self.rules.ads, self.layout.ad_limit
        if ads is not None and limit is not None and self.facts.sponsored(item):
            count = sum(self.facts.sponsored(other) for other in others.values())
            if count >= limit:
                hard[ads.name] = f"would be sponsored item {count + 1}, the page may hold {limit}"
        for rule in self.rules.max_per:
            mine = self.facts.counted(item, rule)
            if mine is None or (rule.rows and self.layout.rows[slot[0]].id not in rule.rows):
                continue
            window = [other for place, other in others.items() if rule.window == "page" or place[0] == slot[0]]
            if sum(self.facts.counted(other, rule) == mine for other in window) >= rule.limit:
                hard[rule.name] = f"would be one {rule.field} = {mine!r} too many"
        return hard

    # What minimum rules ask for

    def windows(self) -> list[tuple[int, int]]:
        """(rule, row or PAGE) of each minimum rule, in the order in which they are served: hard ones first."""
        found = []
        for soft in (False, True):
            for place, rule in enumerate(self.rules.min_per):
                if rule.soft == soft:
                    rows = [r for r, row in enumerate(self.layout.rows) if not rule.rows or row.id in rule.rows]
                    found += [(place, row) for row in (rows if rule.window == "row" else [PAGE])]
        return found

    def full(self) -> Amounts:
        """What the layout asks for."""
        return {window: self.rules.min_per[window[0]].limit for window in self.windows()}

    def settle(self) -> Due:
        """Soft rules that hold and amounts that are due on a page for this context and pool.

        In order of precedence a hard minimum takes what it can get; a soft rule holds in full beside those before it, or not at all.
        """
        kept: frozenset[Soft] = frozenset()
        amounts: Amounts = {}
        start = {slot: item for slot, (_, item) in self.pins.items()}
        for window in self.windows():
            rule = self.rules.min_per[window[0]]
            for amount in (rule.limit, 0) if rule.soft else range(rule.limit, -1, -1):
                wish = {**amounts, window: amount}
                if self.can_meet(start, [], 0, Due(kept, wish), certain=window[1]):
                    amounts = wish
                    break
        for soft in self.soft_rules:
            if self.can_meet(start, [], 0, Due(kept | {soft}, amounts)):
                kept = kept | {soft}
        return Due(kept, amounts)

    def unmet(self, placed: Placed, rows: Collection[int], amounts: Amounts) -> list[tuple[MinPer, int, int]]:
        """Minimum rules that these rows fall short of: (rule, row or PAGE, amount due)."""
        short = []
        for (place, row), amount in amounts.items():
            rule = self.rules.min_per[place]
            window = [item for (at, _), item in placed.items() if row in (PAGE, at)]
            if (row == PAGE or row in rows) and sum(self.facts.meets(item, rule) for item in window) < amount:
                short.append((rule, row, amount))
        return short

    # What can still follow

    def level(self, bent: Collection[Soft]) -> int:
        """How much gives way: 0 nothing, 1 the frequency cap, 2 dedup, 3 both."""
        return any(isinstance(rule, FrequencyCap) for rule in bent) + 2 * any(isinstance(rule, Dedup) for rule in bent)

    def ways(self, slot: SlotKey, before: Placed, standing: list[int], due: Due) -> Iterator[tuple[int, int]]:
        """(level, item) of each candidate that may stand in the slot and leaves a way to meet the minimum rules."""
        for item in sorted(self.pool):
            hard, soft = self.broken(item, slot, before)
            if not hard and self.can_meet({**before, slot: item}, standing, slot[1] + 1, due):
                yield self.level(soft & due.kept), item

    def can_meet(self, placed: Placed, standing: list[int], col: int, due: Due, certain: int = PAGE) -> bool:
        """Whether some items in some slots ahead meet the amounts, slots left empty at will.

        Ahead lie the current row, the last of `standing`, from column `col`, and the rows that do not stand yet.
        """
        if not due.amounts:
            return True
        ahead = [row for row in range(len(self.layout.rows)) if row not in standing]
        required = {row for row in ahead if not self.layout.rows[row].optional} | ({certain} - {PAGE})
        for chosen in combinations(ahead, self.layout.shown - len(standing)):
            if required <= set(chosen):
                slots = [(row, c) for row in chosen for c in range(self.layout.rows[row].capacity)]
                if standing:
                    slots += [(standing[-1], c) for c in range(col, self.layout.rows[standing[-1]].capacity)]
                free = [slot for slot in slots if slot not in self.pins]
                if self._search(placed, free, {*standing, *chosen}, due):
                    return True
        return False

    def _search(self, placed: Placed, free: list[SlotKey], rows: set[int], due: Due) -> bool:
        short = self.unmet(placed, rows, due.amounts)
        if not short:
            return True
        rule, window, _ = short[0]
        tried = set()
        for item in sorted(self.pool):
            if not self.facts.meets(item, rule):
                continue
            for slot in free:
                barred = bool(self.facts.excluded(item)) or item in self.banned
                kind = (self.facts.signature(item), self.shown[item], barred, slot[0], self._ad(slot))
                if (window != PAGE and slot[0] != window) or kind in tried or item in placed.values():
                    continue
                tried.add(kind)
                hard, soft = self.broken(item, slot, placed)
                if hard or soft & due.kept:
                    continue
                if self._search({**placed, slot: item}, [s for s in free if s != slot], rows, due):
                    return True
        return False

    def _ad(self, slot: SlotKey) -> bool:
        ads = self.rules.ads
        return ads is not None and slot in [self.layout.place(place) for place in ads.slots]
