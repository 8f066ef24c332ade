"""Values as words that are safe to print: untrusted text, prices, ages, chances. Knows no page and no markup."""

from __future__ import annotations

import math
import unicodedata

from pagellm.catalog import clean_text
from pagellm.types import DAY

_SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_MAX_MARKS = 3  # marks on one letter: Vietnamese, Thai and Devanagari need at most three, more only paint over neighbors


def plain(text: object, limit: int = 200) -> str:
    """Any value as harmless text: `clean_text`, and at most three combining marks on a letter."""
    kept, marks = [], 0
    for char in clean_text(str(text), limit):
        marks = marks + 1 if unicodedata.combining(char) or unicodedata.category(char) == "Me" else 0
        if marks <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def cut(text: str, limit: int) -> str:
    """The text in at most `limit` characters, with an ellipsis where something is missing."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def price_text(price: object, currency: str = "") -> str:
    """A price with its currency; "" if it is missing or no finite number."""
    if not isinstance(price, int | float) or isinstance(price, bool) or not math.isfinite(price):
        return ""
    amount = f"{price:,.0f}" if currency in ("JPY", "KRW") else f"{price:,.2f}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{amount}" if symbol else f"{amount} {currency}".strip()


def age_text(seconds: int) -> str:
    """A length of time back from the page, in the largest unit that fits."""
    days = max(int(seconds), 0) // DAY
    for size, unit in ((365, "year"), (30, "month"), (7, "week"), (1, "day")):
        if days >= size:
            count = days // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "today"


def chance_text(chance: float) -> str:
    """A probability for people: percent down to a thousandth, then one in so many."""
    if chance >= 0.001:
        return f"{100 * chance:.1f} %"
    return f"1 in {1 / chance:,.0f}" if chance > 0 else "0 %"
