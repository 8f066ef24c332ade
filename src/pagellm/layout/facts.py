"""What the validator knows of items: one value at a time, in plain Python. Takes a layout, a catalog and the time.

Deliberately a second reading of the same records: it shares the parser of expressions with the compiler and nothing else.
"""

from __future__ import annotations

import math
import operator
from datetime import UTC, date, datetime
from typing import Any

from pagellm.catalog import Catalog
from pagellm.errors import LayoutError
from pagellm.layout.spec import Exclude, Layout, MaxPer, MinPer, Row
from pagellm.layout.where import (
    Both,
    Compare,
    Either,
    Expression,
    Field,
    Flag,
    Holds,
    Missing,
    Not,
    Within,
    parse_where,
)
from pagellm.types import DAY

_SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Facts:
    """Answers about single items."""

    def __init__(self, layout: Layout, catalog: Catalog, now: int) -> None:
        self.layout, self.catalog, self.now = layout, catalog, now
        self._columns: dict[str, list[Any]] = {}
        self._excluded: dict[int, str] = {}
        self._signatures: dict[int, tuple[Any, ...]] = {}

    def value(self, item: int, field: str) -> Any:
        """The item's value of `brand` or `categories[0]`; None where it has none."""
        name, _, part = field.partition("[")
        return self._value(item, name, int(part.rstrip("]")) if part else None)

    def _value(self, item: int, name: str, part: int | None) -> Any:
        value = self._column(name)[item]
        if part is not None:
            value = value[part] if value is not None and part < len(value) else None
        return None if isinstance(value, float) and math.isnan(value) else value

    def _column(self, name: str) -> list[Any]:
        if name not in self._columns:
            frame = self.catalog.frame
            if name in frame.columns:
                self._columns[name] = frame[name].to_list()
            elif name == "age_days" and "created_at" in frame.columns:
                self._columns[name] = [self._age(moment) for moment in frame["created_at"].to_list()]
            else:
                raise LayoutError(f"{name!r} is not a column of the catalog. Check the layout against this catalog first.")
        return self._columns[name]

    def _age(self, created: Any) -> float | None:
        if created is None:
            return None
        if isinstance(created, date) and not isinstance(created, datetime):
            created = datetime(created.year, created.month, created.day)
        if isinstance(created, datetime):
            created = (created if created.tzinfo else created.replace(tzinfo=UTC)).timestamp()
        return (self.now - float(created)) / DAY

    def excluded(self, item: int) -> str:
        """Name of the rule that keeps the item off every page, or nothing."""
        if item not in self._excluded:
            hidden = "hidden" in self.catalog.frame.columns and self.value(item, "hidden") is True
            names = [rule.name for rule in self.layout.rules.exclude if self._matches(rule, item)]
            self._excluded[item] = "hidden" if hidden else names[0] if names else ""
        return self._excluded[item]

    def _matches(self, rule: Exclude, item: int) -> bool:
        listed = str(self.catalog.item_ids[item]) in rule.items
        return listed or (rule.where is not None and self.holds(parse_where(rule.where), item))

    def fills(self, item: int, row: Row) -> bool:
        """Whether the row's theme or filter takes the item."""
        if row.source.filter is not None:
            return self.holds(parse_where(row.source.filter), item)
        if row.source.theme is not None:
            categories = self.value(item, "categories")
            return row.source.theme in categories if isinstance(categories, list) else row.source.theme == categories
        return True

    def sponsored(self, item: int) -> bool:
        """Whether the item counts as an ad; never without an ads rule."""
        return self.layout.rules.ads is not None and self.value(item, "sponsored") is True

    def counted(self, item: int, rule: MaxPer) -> Any:
        """What max_per counts the item under, or None."""
        value = self.value(item, rule.field)
        return value if rule.value is None or self._same(value, rule.value) else None

    def meets(self, item: int, rule: MinPer) -> bool:
        """Whether the item counts for min_per."""
        return self._same(self.value(item, rule.field), True if rule.value is None else rule.value)

    @staticmethod
    def _same(value: Any, wanted: Any) -> bool:
        return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted

    def unit(self, item: int, unit: str) -> Any:
        """What two duplicates share, or None."""
        if unit == "title":
            words = "".join(c if c.isalnum() else " " for c in self.catalog.titles[item].casefold()).split()
            return " ".join(words) or None
        return item if unit == "item" else self.value(item, unit)

    def signature(self, item: int) -> tuple[Any, ...]:
        """Items with equal signatures are interchangeable under every rule of the layout."""
        if item not in self._signatures:
            rules = self.layout.rules
            self._signatures[item] = (
                *(self.counted(item, rule) for rule in rules.max_per),
                *(self.meets(item, rule) for rule in rules.min_per),
                *(self.unit(item, rule.unit) for rule in rules.dedup if rule.unit != "item"),
                *(self.fills(item, row) for row in self.layout.rows),
                self.sponsored(item),
            )
        return self._signatures[item]

    def holds(self, tree: Expression, item: int) -> bool:
        """Whether an expression is true of the item."""
        match tree:
            case Both(left, right):
                return self.holds(left, item) and self.holds(right, item)
            case Either(left, right):
                return self.holds(left, item) or self.holds(right, item)
            case Not(part):
                return not self.holds(part, item)
            case Missing(field):
                return self._of(field, item) is None
            case Flag(field):
                return self._of(field, item) is True
            case Holds(text, field):
                value = self._of(field, item)
                return value is not None and text in list(value)
            case Within(field, values):
                return any(self.holds(Compare(field, "==", value), item) for value in values)
            case Compare(field, sign, wanted):
                value = self._of(field, item)
                return value is not None and bool(_SIGNS[sign](value, wanted))

    def _of(self, field: Field, item: int) -> Any:
        return self._value(item, field.name, field.part)
