"""From the text of a layout file to a `Layout`. Text in, record or one clear message out. Knows no catalog."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pagellm.errors import LayoutError
from pagellm.layout.spec import Ads, Boost, Dedup, Exclude, FrequencyCap, Layout, MaxPer, MinPer, Pin, Record, Row, Rules, Source

MAX_BYTES = 1_000_000
"""A layout is written by people; beyond this the file is something else."""

_KINDS: dict[str, type[Record]] = {
    "exclude": Exclude,
    "pin": Pin,
    "ads": Ads,
    "max_per": MaxPer,
    "min_per": MinPer,
    "dedup": Dedup,
    "frequency_cap": FrequencyCap,
    "boost": Boost,
    "bury": Boost,
}


def load_layout(path: Path) -> Layout:
    """The layout of a TOML file. Raises LayoutError that names the file, the key and the next step."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LayoutError(f"Layout {path} has {path.stat().st_size:,} bytes, above {MAX_BYTES:,}. Name a layout file.")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LayoutError(f"Layout {path} cannot be read: {error.strerror or error}. Name a TOML file.") from None
    except UnicodeDecodeError as error:
        raise LayoutError(f"Layout {path} is not UTF-8 at byte {error.start}. Save it as UTF-8 text.") from None
    return parse_layout(text, str(path))


def parse_layout(text: str, name: str = "layout") -> Layout:
    """The layout that a TOML text describes; `name` stands in messages. Raises LayoutError."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LayoutError(f"Layout {name} is not valid TOML: {error}.") from None
    except (RecursionError, ValueError) as error:  # arrays nested a thousand deep; numbers of five thousand digits
        raise LayoutError(f"Layout {name} is not valid TOML: {type(error).__name__}. Write it as docs/layout.md shows.") from None
    return layout_of(content, name)


def layout_of(content: dict[str, Any], name: str = "layout") -> Layout:
    """The layout of a parsed TOML document; `name` stands in messages. Raises LayoutError."""
    try:
        return Layout.model_validate(content)
    except ValidationError as error:
        faults = [_sentence(fault) for fault in error.errors(include_url=False)]
        unique = list(dict.fromkeys(faults))
        more = f"\n  and {len(unique) - 5} more" if len(unique) > 5 else ""
        raise LayoutError(f"Layout {name} cannot be used:\n  " + "\n  ".join(unique[:5]) + more) from None


def _sentence(fault: Any) -> str:
    place = [part for part in fault["loc"] if isinstance(part, int) or not _is_branch(str(part))]
    if fault["type"] == "extra_forbidden":
        return _unknown_key(place)
    where = _dotted(place) or "layout"
    if fault["type"] == "missing":
        return f"{where} is missing. Add it."
    message = str(fault["msg"]).removeprefix("Value error, ")
    if "\n" in message:  # an expression with its caret
        return f"{where}: {message}"
    message = message.rstrip(".")
    given = "" if isinstance(fault["input"], dict | list | Record) else f" Got {str(fault['input'])[:60]!r}."
    return f"{where}: {message}.{given}" if fault["type"] != "value_error" else f"{where}: {message}."


def _is_branch(part: str) -> bool:
    # pydantic names the branch of a union in the path: value.constrained-str, title.tuple[...]
    return part.startswith(("constrained-", "tuple[", "function-")) or part in ("bool", "int", "str", "float", "date", "datetime")


def _unknown_key(place: list[str | int]) -> str:
    *parents, key = place
    known = list(_record_at(parents).model_fields)
    near = get_close_matches(str(key), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    inside = f" in {_dotted(parents)}" if parents else ""
    return f"Unknown key {str(key)[:60]!r}{inside}.{hint} It takes: {', '.join(known)}."


def _record_at(place: Iterable[str | int]) -> type[Record]:
    names = [part for part in place if isinstance(part, str)]
    if not names:
        return Layout
    if names[0] == "rows":
        return Source if "source" in names[1:] else Row
    return _KINDS[names[1]] if len(names) > 1 else Rules


def _dotted(place: Iterable[str | int]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
