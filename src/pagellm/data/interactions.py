"""From the interactions file of a review-type log to `Interactions`. Knows the catalog; knows no pages."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.data.assemble import Loose, assemble, day_keys, join
from pagellm.data.cells import bad_ids, missing, numbers, texts, times, whole_numbers
from pagellm.data.columns import EVENT_CODES, INTERACTIONS
from pagellm.data.files import batches
from pagellm.data.ids import Ids
from pagellm.data.quarantine import Quarantine, Rules
from pagellm.data.rows import Batch
from pagellm.types import F32, I8, I64, Bool, Event, Interactions

ENGAGEMENTS = tuple(e for e in Event if Event.VIEW_ITEM <= e <= Event.PURCHASE)
"""Events that make a history: what a user did with an item, not what was shown, refused or given back."""


@dataclass
class Money:
    """Currencies of the values seen so far."""

    currencies: Counter[str] = field(default_factory=Counter)
    without: int = 0  # values that name no currency

    def add(self, batch: Batch, valued: Bool) -> None:
        """Counts the currencies of the rows that have a value."""
        if valued.any():
            names = texts(batch.column("currency")).filter(pl.Series(valued)).str.to_uppercase()
            self.without += names.null_count()
            self.currencies.update(names.drop_nulls().str.slice(0, 8).to_list())


def read_interactions(
    path: Path, items: Ids, quarantine: Quarantine, names: dict[str, str] | None = None
) -> tuple[Interactions, Money]:
    """All accepted events of a review-type log, and the currencies of its values."""
    users, money = Ids(), Money()
    parts: list[Loose] = []
    for batch in batches(path, INTERACTIONS, names):
        rules = Rules(len(batch))
        user, item = texts(batch.column("user_id")), texts(batch.column("item_id"))
        item_code = items.find(item)
        time = check_time(batch, rules)
        for name, text in (("user_id", user), ("item_id", item)):
            rules.fail(missing(text), f"missing_{name}")
            rules.fail(bad_ids(text), f"bad_{name}")
        rules.fail(item_code < 0, "unknown_item")
        rating, value = float_column(batch, "rating", rules), float_column(batch, "value", rules)
        check_currency(batch, rules)
        event = event_codes(batch, rules)
        basket, no_basket, bad_basket = whole_numbers(batch.column("basket_index"), 0, 2**31 - 1)
        rules.fail(bad_basket, "bad_basket_index")
        event[event == -1] = Event.INTERACTION
        history = np.isin(event, ENGAGEMENTS)
        rules.fail(~history, "not_an_engagement")
        good = quarantine.take(path.name, batch, rules)
        money.add(batch, good & ~np.isnan(value))
        key = np.where(no_basket, day_keys(time), basket)
        codes = users.add(user.filter(pl.Series(good)))
        parts.append(Loose(codes, item_code[good], time[good], key[good], event[good], rating[good], value[good]))
    return assemble(join(parts), users)[0], money


def check_currency(batch: Batch, rules: Rules) -> None:
    """Rows whose currency is no code of three letters (ISO 4217) fail."""
    text = texts(batch.column("currency"))
    rules.fail((~text.str.contains("^[A-Za-z]{3}$")).fill_null(False).to_numpy(), "bad_currency")


def check_time(batch: Batch, rules: Rules) -> I64:
    """[row] the event's time; rows without a usable one fail."""
    time, unusable, outside = times(batch.column("timestamp"))
    rules.fail(missing(texts(batch.column("timestamp"))), "missing_timestamp")
    rules.fail(unusable, "bad_timestamp")
    rules.fail(outside, "time_out_of_range")
    return time


def event_codes(batch: Batch, rules: Rules) -> I8:
    """[row] code of `Event`, -1 where the log names none; unknown names fail."""
    text = texts(batch.column("event"))
    name = text.str.to_lowercase().str.replace_all("[^a-z0-9]", "")
    codes = name.replace_strict(EVENT_CODES, default=-2, return_dtype=pl.Int8)
    event = codes.set(text.is_null(), -1).to_numpy().astype(np.int8)
    rules.fail(event == -2, "unknown_event")
    return event


def float_column(batch: Batch, name: str, rules: Rules) -> F32:
    """[row] an optional number, NaN where missing; rows with what is none fail."""
    value, bad = numbers(batch.column(name))
    bad = bad | (np.abs(np.nan_to_num(value)) > np.finfo(np.float32).max)
    rules.fail(bad, f"bad_{name}")
    return np.where(bad, np.nan, value).astype(np.float32)
