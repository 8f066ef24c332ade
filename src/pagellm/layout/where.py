"""The small language of `where` and `filter`: text in, a tree of frozen records out. Errors point at the character.

Comparisons of one catalog column with a value, joined by `and`, `or`, `not` and brackets:
`price < 20 and brand in ('Lune', 'Ost') or not hidden`. Knows no catalog: whether a column exists is asked later.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import NoReturn

from pagellm.errors import LayoutError

MAX_CHARS = 2_000
MAX_DEPTH = 40

Value = bool | float | str

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?)|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>==|!=|<=|>=|[<>()\[\],-])",
    re.ASCII,
)
_WORDS = ("and", "or", "not", "in", "is", "missing", "true", "false")
_SIGNS = ("==", "!=", "<=", ">=", "<", ">")


@dataclass(frozen=True, slots=True)
class Field:
    """A catalog column, or one part of a list column: `categories[0]`."""

    name: str
    part: int | None
    at: int  # place in the text, from 0


@dataclass(frozen=True, slots=True)
class Compare:
    """`field sign value`. False where the item has no value, whatever the sign."""

    field: Field
    sign: str  # == != < <= > >=
    value: Value


@dataclass(frozen=True, slots=True)
class Within:
    """`field in (value, …)`. False where the item has no value."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Holds:
    """`'text' in field`: a list column holds this text."""

    text: str
    field: Field


@dataclass(frozen=True, slots=True)
class Missing:
    """`field is missing`."""

    field: Field


@dataclass(frozen=True, slots=True)
class Flag:
    """`field`: a true/false column that is true."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    """`not part`: true exactly where the part is false."""

    part: Expression


@dataclass(frozen=True, slots=True)
class Both:
    """`left and right`."""

    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Either:
    """`left or right`."""

    left: Expression
    right: Expression


Expression = Compare | Within | Holds | Missing | Flag | Not | Both | Either


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number text name word sign end
    text: str
    at: int


def pointed(text: str, at: int, message: str) -> str:
    """The message over the part of the text around `at`, with a caret below the character."""
    start = max(0, at - 60)
    shown = "".join(c if c.isprintable() else " " for c in text[start : at + 40])
    lead, tail = ("…" if start else ""), ("…" if at + 40 < len(text) else "")
    return f"{message}\n    {lead}{shown}{tail}\n    {' ' * (len(lead) + at - start)}^"


def fail(text: str, at: int, message: str) -> NoReturn:
    """Raises LayoutError with the message, pointing at character `at` of the text."""
    raise LayoutError(pointed(text, at, message))


@lru_cache(maxsize=1024)
def parse_where(text: str) -> Expression:
    """The tree of an expression. Raises LayoutError that points at the first character that cannot be read."""
    if len(text) > MAX_CHARS:
        fail(text, MAX_CHARS, f"An expression may have {MAX_CHARS:,} characters. Got {len(text):,}. Split it into two rules.")
    reader = _Reader(text, _tokens(text))
    tree = reader.either(0)
    if reader.now.kind != "end":
        reader.stop("Expected `and`, `or` or the end of the expression.")
    return tree


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            fail(text, at, _stray(text[at]))
        kind, part = str(match.lastgroup), match.group()
        if kind == "name" and part in _WORDS:
            kind = "word"
        if kind != "space":
            found.append(_Token(kind, part, at))
        at = match.end()
    return [*found, _Token("end", "", len(text))]


def _stray(character: str) -> str:
    hints = {
        "=": "Write == to compare.",
        "'": "This text has no closing quote.",
        '"': "This text has no closing quote.",
        "&": "Write `and`.",
        "|": "Write `or`.",
        "!": "Write `not`, or != to compare.",
    }
    return f"Cannot read {character!r} here. " + hints.get(
        character, "Columns, numbers, quoted text and comparisons are allowed."
    )


class _Reader:
    """Recursive descent over the tokens; one method a level of binding."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text, self.tokens, self.place = text, tokens, 0

    @property
    def now(self) -> _Token:
        return self.tokens[self.place]

    def stop(self, message: str, at: int | None = None) -> NoReturn:
        got = f" Got {self.now.text[:40]!r}." if self.now.kind != "end" else " The expression ends here."
        fail(self.text, self.now.at if at is None else at, message + (got if at is None else ""))

    def take(self, *texts: str) -> bool:
        """Steps over the token if it is one of these words or signs."""
        hit = self.now.kind in ("word", "sign") and self.now.text in texts
        self.place += hit
        return hit

    def need(self, text: str, message: str) -> None:
        if not self.take(text):
            self.stop(message)

    def either(self, depth: int) -> Expression:
        return self._chain(depth, "or", self.both, Either)

    def both(self, depth: int) -> Expression:
        return self._chain(depth, "and", self.single, Both)

    def _chain(self, depth: int, word: str, part: Callable[[int], Expression], join: type[Both] | type[Either]) -> Expression:
        parts = [part(depth)]
        while self.take(word):
            parts.append(part(depth))
        return _balanced(parts, join)

    def single(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            self.stop(f"Brackets and `not` may nest {MAX_DEPTH} deep.", self.now.at)
        if self.take("not"):
            return Not(self.single(depth + 1))
        if self.take("("):
            inner = self.either(depth + 1)
            self.need(")", "Expected ')'.")
            return inner
        if self.now.kind == "text":
            return self.holds()
        return self.test(self.field())

    def holds(self) -> Expression:
        text = self.now.text[1:-1]
        self.place += 1
        denied = self.take("not")
        self.need(
            "in",
            "After a quoted text comes `in` and a list column, as in 'Shoes' in categories. For other tests write the column first.",
        )
        found = Holds(text, self.field(whole=True))
        return Not(found) if denied else found

    def field(self, whole: bool = False) -> Field:
        token = self.now
        if token.kind != "name":
            self.stop("Expected the name of a column.")
        self.place += 1
        if whole or not self.take("["):
            return Field(token.text, None, token.at)
        number = self.now
        if number.kind != "number" or not number.text.isdigit() or len(number.text) > 4:
            self.stop("Expected a whole number from 0 in the square brackets.")
        self.place += 1
        self.need("]", "Expected ']'.")
        return Field(token.text, int(number.text), token.at)

    def test(self, field: Field) -> Expression:
        if self.now.kind == "sign" and self.now.text in _SIGNS:
            sign = self.now.text
            self.place += 1
            return Compare(field, sign, self.value())
        if self.take("is"):
            denied = self.take("not")
            self.need("missing", "After `is` comes `missing` or `not missing`.")
            return Not(Missing(field)) if denied else Missing(field)
        denied = self.take("not")
        if self.take("in"):
            return Not(Within(field, self.values())) if denied else Within(field, self.values())
        if denied:
            self.stop("After `not` comes `in`.")
        if self.now.kind == "name":
            self.stop(_near_word(self.now.text))
        return Flag(field)

    def values(self) -> tuple[Value, ...]:
        opened = self.now.text
        if not self.take("(", "["):
            self.stop("After `in` comes a list of values in brackets, as in brand in ('Lune', 'Ost').")
        found = [self.value()]
        while self.take(","):
            found.append(self.value())
        self.need(")" if opened == "(" else "]", "Expected ',' or the closing bracket.")
        return tuple(found)

    def value(self) -> Value:
        negative = self.take("-")
        token = self.now
        if token.kind == "number":
            self.place += 1
            return -float(token.text) if negative else float(token.text)
        if negative:
            self.stop("Expected a number after '-'.")
        if token.kind == "text":
            self.place += 1
            return token.text[1:-1]
        if self.take("true", "false"):
            return token.text == "true"
        return self.stop("Expected a number, a quoted text, true or false.")


def _balanced(parts: list[Expression], join: type[Both] | type[Either]) -> Expression:
    # halves instead of a left-leaning chain: 500 joined comparisons nest 9 deep, not 500
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return join(_balanced(parts[:half], join), _balanced(parts[half:], join))


def _near_word(text: str) -> str:
    near = get_close_matches(text.lower(), (*_WORDS, *_SIGNS), n=1)
    return "Expected a comparison." + (f" Did you mean {near[0]!r}?" if near else "")
