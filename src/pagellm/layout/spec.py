"""What a layout file says, as frozen records: rows with their slots, and rules. Knows no catalog and no items' values.

Each record checks itself; `Layout` checks what concerns several of them. How text becomes records stands in `reading`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pagellm.errors import LayoutError
from pagellm.layout.where import parse_where

MAX_SLOTS = 2_000
"""Slots of all rows together; a page longer than this is a mistake in the file."""

SlotPlace = tuple[int, int]
"""Row of the layout file and column in it, both from 0."""

_SLOT = re.compile(r"r(?P<number>\d{1,3})c(?P<col>\d{1,4})|(?P<row>[A-Za-z0-9_-]+)\.c(?P<col2>\d{1,4})", re.ASCII)

Id = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Words = Annotated[str, Field(strict=True, min_length=1, max_length=2_000)]
FieldName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}(\[\d{1,4}\])?$")]
Count = Annotated[int, Field(strict=True, ge=1, le=10_000)]
Switch = Annotated[bool, Field(strict=True)]
FieldValue = (
    Annotated[bool, Field(strict=True)] | Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True, max_length=200)]
)


class Record(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _expression(text: str | None) -> str | None:
    if text is not None:
        try:
            parse_where(text)
        except LayoutError as error:
            raise ValueError(str(error)) from None
    return text


class Source(Record):
    """What may fill a row: any item (`"model"`), the items of one theme, or those that a filter selects."""

    theme: Text | None = None  # an entry of the catalog's `categories`
    filter: Words | None = None  # a `where` expression

    _parse = field_validator("filter")(_expression)

    @model_validator(mode="after")
    def _one(self) -> Source:
        if self.theme is not None and self.filter is not None:
            raise ValueError("a source has a theme or a filter, not both: a filter can say 'name' in categories")
        return self

    @property
    def words(self) -> str:
        """For tables and reasons."""
        if self.theme is not None:
            return f"theme {self.theme!r}"
        return f"filter {self.filter}" if self.filter is not None else "model"


class Row(Record):
    """An ordered group of slots."""

    id: Id
    kind: Literal["hero", "carousel", "grid", "banner"] = "carousel"
    capacity: Count = 1  # slots
    visible: Count | None = None  # slots seen without scrolling; None = all. For display and examination, not for rules
    title: Text | tuple[Text, ...] = ""  # one title, or several of which one is shown
    source: Source = Source()
    optional: Switch = False  # the policy may leave the row out (order = "policy")

    @field_validator("source", mode="before")
    @classmethod
    def _source(cls, value: object) -> object:
        if value == "model":
            return {}
        if isinstance(value, dict) and value:
            return value
        if isinstance(value, Source):
            return value
        raise ValueError('a source is "model", { theme = "…" } or { filter = "…" }')

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles to choose from, at least one; the id where the file gives none."""
        return (self.title or self.id,) if isinstance(self.title, str) else self.title or (self.id,)


class Exclude(Record):
    """These items stand on no page."""

    where: Words | None = None
    items: tuple[Text, ...] = ()

    _parse = field_validator("where")(_expression)

    @model_validator(mode="after")
    def _some(self) -> Exclude:
        if self.where is None and not self.items:
            raise ValueError("exclude needs `where` or `items`")
        return self

    @property
    def name(self) -> str:
        """For tables and reasons."""
        return f"exclude {self.where}" if self.where is not None else f"exclude {len(self.items)} items"


class Pin(Record):
    """This item stands in this slot, until a moment."""

    item: Text
    slot: Text  # "r0c3" (row and column from 0) or "picks.c3"
    until: date | datetime | None = None  # a bare date means its first second, UTC

    def active(self, now: int) -> bool:
        """Whether the pin holds at `now`, unix seconds."""
        return self.ends is None or now < self.ends

    @property
    def ends(self) -> float | None:
        """Unix seconds at which the pin ends."""
        if self.until is None:
            return None
        moment = self.until if isinstance(self.until, datetime) else datetime(self.until.year, self.until.month, self.until.day)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    @property
    def name(self) -> str:
        """For tables and reasons."""
        return f"pin {self.item} at {self.slot}"


class Ads(Record):
    """Where sponsored items may stand, and how many of them."""

    slots: tuple[Text, ...] = ()  # if given: these take sponsored items only, and sponsored items stand nowhere else
    max_share: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] | None = None  # of the page's slots
    label: Text = "Sponsored"

    @property
    def name(self) -> str:
        """For tables and reasons."""
        share = f" max_share {self.max_share:g}" if self.max_share is not None else ""
        return "ads" + share + (f" in {', '.join(self.slots)}" if self.slots else "")


class _PerField(Record):
    field: FieldName
    limit: Count
    window: Literal["row", "page"] = "page"
    value: FieldValue | None = None
    rows: tuple[Id, ...] = ()  # window = "row": only these rows; empty = every row

    @model_validator(mode="after")
    def _window(self) -> _PerField:
        if self.rows and self.window == "page":
            raise ValueError('`rows` goes with window = "row"')
        return self

    @property
    def name(self) -> str:
        """For tables and reasons."""
        verb, sign = ("max_per", "≤") if isinstance(self, MaxPer) else ("min_per", "≥")
        value = "" if self.value is None else f" = {str(self.value).lower() if isinstance(self.value, bool) else self.value}"
        window = self.window + (f" {', '.join(self.rows)}" if self.rows else "")
        return f"{verb} {self.field}{value} {sign} {self.limit} ({window})"


class MaxPer(_PerField):
    """At most `limit` items of one value in a window; without `value` this holds for each value of the field."""


class MinPer(_PerField):
    """At least `limit` items with the value in a window; `value` may be left out for a true/false field."""

    soft: Switch = False


class Dedup(Record):
    """No two items of one unit in a scope. Items without the unit are never duplicates. No item ever repeats, rule or not."""

    unit: Literal["group_id", "item", "title"]
    scope: Literal["page", "row"] = "page"
    soft: Switch = False

    @property
    def name(self) -> str:
        """For tables and reasons."""
        return f"dedup {self.unit} ({self.scope})"


class FrequencyCap(Record):
    """An item that the user was shown `shown` times in the last `days` days stands on no page."""

    shown: Count
    days: Annotated[int, Field(strict=True, ge=1, le=3_650)]
    soft: Switch = False

    @property
    def name(self) -> str:
        """For tables and reasons."""
        return f"frequency_cap {self.shown} in {self.days} days"


class Boost(Record):
    """Raises the odds of the items: log(factor) is added to their logits. No page becomes valid or invalid by it."""

    where: Words
    factor: Annotated[float, Field(strict=True, gt=0, le=1e6, ge=1e-6, allow_inf_nan=False)]

    _parse = field_validator("where")(_expression)


class Rules(Record):
    """Everything that a page of the layout keeps."""

    exclude: tuple[Exclude, ...] = ()
    pin: tuple[Pin, ...] = ()
    ads: Ads | None = None
    max_per: tuple[MaxPer, ...] = ()
    min_per: tuple[MinPer, ...] = ()
    dedup: tuple[Dedup, ...] = ()
    frequency_cap: FrequencyCap | None = None
    boost: tuple[Boost, ...] = ()
    bury: tuple[Boost, ...] = ()

    @model_validator(mode="after")
    def _directions(self) -> Rules:
        for kind, factors, good in (("boost", self.boost, "1 or more"), ("bury", self.bury, "1 or less")):
            for rule in factors:
                if (rule.factor < 1) if kind == "boost" else (rule.factor > 1):
                    raise ValueError(f"the factor of {kind} is {good}, got {rule.factor:g}")
        return self


class Layout(Record):
    """The rows and rules of a page."""

    id: Id
    version: Annotated[int, Field(strict=True, ge=1)] = 1
    order: Literal["fixed", "policy"] = "fixed"
    rows_shown: Count | None = None  # order = "policy": rows on a page; None = all
    rows: Annotated[tuple[Row, ...], Field(max_length=50)]
    rules: Rules = Rules()

    @staticmethod
    def load(path: str | Path) -> Layout:
        """The layout of a TOML file. Raises LayoutError that names the file, the key and the next step."""
        from pagellm.layout.reading import load_layout

        return load_layout(Path(path))

    @staticmethod
    def single_row(slots: int) -> Layout:
        """One row with this many slots and no rule."""
        return Layout(id="single", rows=(Row(id="items", kind="grid", capacity=slots),))

    @property
    def shown(self) -> int:
        """Rows on a page."""
        return len(self.rows) if self.rows_shown is None else self.rows_shown

    @property
    def fewest_slots(self) -> int:
        """Slots of the smallest page that the layout allows: what shares count from, so that they never depend on the choice."""
        required = [row.capacity for row in self.rows if not row.optional]
        spare = sorted(row.capacity for row in self.rows if row.optional)
        return sum(required) + sum(spare[: self.shown - len(required)])

    @property
    def ad_limit(self) -> int | None:
        """Sponsored items that a page may hold, or None if there is no such limit."""
        ads = self.rules.ads
        if ads is None or ads.max_share is None:
            return None
        return math.floor(ads.max_share * self.fewest_slots + 1e-9)  # .15 · 20 is 3, not 2.999…

    def place(self, slot: str) -> SlotPlace:
        """Row and column that a rule's slot names. Raises ValueError with the reason."""
        match = _SLOT.fullmatch(slot)
        if match is None:
            raise ValueError(f"a slot is written r0c3 (row and column from 0) or {self.rows[0].id}.c3, got {slot!r}")
        if match["number"] is not None and self.order == "policy":
            raise ValueError(f'with order = "policy" a slot names its row by id, as in {self.rows[0].id}.c0, got {slot!r}')
        names = [row.id for row in self.rows]
        row = int(match["number"]) if match["number"] is not None else names.index(match["row"]) if match["row"] in names else -1
        col = int(match["col"] or match["col2"])
        if not 0 <= row < len(self.rows):
            raise ValueError(f"slot {slot!r} names no row: the layout has {', '.join(names)}")
        if col >= self.rows[row].capacity:
            raise ValueError(f"slot {slot!r} lies outside row {names[row]!r}, which has {self.rows[row].capacity} slots")
        return row, col

    @model_validator(mode="after")
    def _whole(self) -> Layout:
        names = [row.id for row in self.rows]
        if not names:
            raise ValueError("a page needs at least one row")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rows have the id {name!r}: give each its own")
        if sum(row.capacity for row in self.rows) > MAX_SLOTS:
            raise ValueError(f"a page may have {MAX_SLOTS:,} slots, these rows have {sum(row.capacity for row in self.rows):,}")
        self._check_order()
        self._check_rules(names)
        return self

    def _check_order(self) -> None:
        optional = sum(row.optional for row in self.rows)
        required = len(self.rows) - optional
        if self.order == "fixed" and (optional or self.rows_shown is not None):
            raise ValueError('`optional` and `rows_shown` go with order = "policy"')
        if not required <= self.shown <= len(self.rows):
            raise ValueError(f"rows_shown lies between the {required} required rows and all {len(self.rows)}, got {self.shown}")
        if optional and self.shown == required:
            raise ValueError(f"the {required} required rows fill rows_shown = {self.shown}: optional rows could never stand")

    def _check_rules(self, names: list[str]) -> None:
        for pin in self.rules.pin:
            row, _ = self.place(pin.slot)
            if self.rows[row].optional:
                raise ValueError(f"{pin.name}: row {names[row]!r} is optional. A pin needs a required row")
        if self.rules.ads is not None:
            places = [self.place(slot) for slot in self.rules.ads.slots]
            if len(set(places)) < len(places):
                raise ValueError("rules.ads.slots names a slot twice")
        for rule in (*self.rules.max_per, *self.rules.min_per):
            if strange := [name for name in rule.rows if name not in names]:
                raise ValueError(f"{rule.name}: {strange[0]!r} is no row. The layout has {', '.join(names)}")
