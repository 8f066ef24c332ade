"""A page as a Unicode grid for the terminal. Takes a `PageView` and a width in columns, returns styled text.

Width is counted in terminal cells (a Chinese character takes two). The text is plain: no markup is ever read from a title.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from pagellm.reporting.receipt import ReceiptView, SlotReceipt
from pagellm.reporting.view import Card, PageView, RowView

_LEAST_CELL, _MOST_CELL = 17, 30  # columns inside a box: below, titles say nothing; above, the eye loses the row
_TITLE_LINES = 2
_LEAST_TITLE, _MOST_TITLE = 12, 40  # columns of a title in the table of a receipt; with fewer each slot is a sentence
_HEADING = 10  # columns that a heading of that table takes before it goes on in a second line


def page_grid(view: PageView, width: int = 100) -> Text:
    """The whole page: heading, rows of boxes, notes, facts. No line is wider than `width`, at least 20 columns."""
    width = max(width, _LEAST_CELL + 3)
    out = Text(no_wrap=True, overflow="ignore", end="")
    _heading(out, view, width)
    for row in view.rows:
        _row(out, row, width, view.explained)
    for note in view.notes:
        _wrapped(out, f"! {note}", width, "yellow")
    if view.receipt:
        _receipt(out, view.receipt, width)
    facts = " · ".join(f"{name} {value}" for name, value in view.facts)
    if facts:
        _wrapped(out, facts, width, "dim")
    out.rstrip()
    return out


def _heading(out: Text, view: PageView, width: int) -> None:
    out.append(_fit(f"{view.shop} · results for “{view.query}”" if view.query else view.shop, width).rstrip() + "\n", "bold")
    for past in view.history[:3]:
        out.append(_fit(f"  {past.verb} {past.age}: {past.card.title}", width).rstrip() + "\n", "dim")


def _row(out: Text, row: RowView, width: int, explained: bool) -> None:
    filled = sum(not card.empty for card in row.cards)
    out.append("\n" + _fit(f"{row.title}  ({filled} of {len(row.cards)} slots)", width).rstrip() + "\n", "bold cyan")
    per_line, inner = _columns(len(row.cards), width)
    for start in range(0, len(row.cards), per_line):
        _band(out, row.cards[start : start + per_line], inner, explained)


def _columns(cards: int, width: int) -> tuple[int, int]:
    """How many boxes stand side by side and how wide each is inside its borders."""
    most = max(1, (width - 1) // (_LEAST_CELL + 1))
    lines = -(-cards // most)
    per_line = max(1, min(most, -(-cards // max(lines, 1))))
    return per_line, min(_MOST_CELL, (width - 1) // per_line - 1)


def _band(out: Text, cards: tuple[Card, ...], inner: int, explained: bool) -> None:
    bodies = [_body(card, inner - 2, explained) for card in cards]
    out.append("┌" + "┬".join("─" * inner for _ in cards) + "┐\n", "dim")
    for line in range(len(bodies[0])):
        for body in bodies:
            text, style = body[line]
            out.append("│", "dim").append(" " + _fit(text, inner - 2) + " ", style)
        out.append("│\n", "dim")
    out.append("└" + "┴".join("─" * inner for _ in cards) + "┘\n", "dim")


def _body(card: Card, inner: int, explained: bool) -> list[tuple[str, str]]:
    """The lines of one box with their styles; equally many for every card."""
    if card.empty:
        lines = [("(empty)", "yellow"), *((part, "dim") for part in _wrap(card.reason, inner, _TITLE_LINES))]
        return [*lines, *([("", "")] * (_TITLE_LINES + 1 + 2 * explained - len(lines)))]
    title = _wrap(card.title, inner, _TITLE_LINES)
    lines = [(part, "") for part in title] + [("", "")] * (_TITLE_LINES - len(title))
    lines.append((" ".join(filter(None, (card.price, card.badge))), "green"))
    if explained:
        score = "" if card.score is None else f"{card.score:.2f}"
        chance = "" if card.propensity is None else f"p={card.propensity:.3f}"
        lines.append((" ".join(filter(None, (score, chance))), "dim"))
        lines.append((f"{card.parts[0][1]:+.2f} {card.parts[0][0]}" if card.parts else "", "dim"))
    return lines


def _receipt(out: Text, receipt: ReceiptView, width: int) -> None:
    """The sentences, then the slots: as a table where it fits, else a sentence each."""
    for line in receipt.lines:
        _wrapped(out, line, width, "")
    table = _slot_table(receipt, width)
    for number, line in enumerate(table):
        out.append(line.rstrip() + "\n", "dim" if number < 2 else "")
    for slot in () if table else receipt.slots:
        _wrapped(out, _spelled(slot, receipt.columns), width, "")


def _slot_table(receipt: ReceiptView, width: int) -> list[str]:
    """One line a slot under two lines of headings: its place and item, what it brings, what would be lost without it. Empty where a
    title would have no room."""
    if not receipt.slots:
        return []
    heads = [_wrap(name, _HEADING, 2) for name in (*receipt.columns, "lost without it")]
    tops = ["" if len(head) == 1 else head[0].strip() for head in heads]
    lines = [("row,", "", tops), ("slot", "item", [head[-1].strip() for head in heads])]
    lines += [
        (f"{slot.row}, {slot.slot}", slot.title, [*(f"{part:+.3f}" for part in slot.parts), f"{slot.alone:.3f}"])
        for slot in receipt.slots
    ]
    first = max(len(place) for place, _, _ in lines)
    sizes = [max(map(len, column)) for column in zip(*(numbers for _, _, numbers in lines), strict=True)]
    room = min(_MOST_TITLE, width - first - 1 - sum(size + 1 for size in sizes))
    if room < _LEAST_TITLE:
        return []
    return [
        " ".join((place.ljust(first), _fit(title, room), *(n.rjust(size) for n, size in zip(numbers, sizes, strict=True))))
        for place, title, numbers in lines
    ]


def _spelled(slot: SlotReceipt, names: Sequence[str]) -> str:
    """The same as a sentence. The title comes last: it alone may be cut."""
    parts = ", ".join(f"{name} {part:+.3f}" for name, part in zip(names, slot.parts, strict=True))
    return f"{slot.place}: {parts}; lost without it {slot.alone:.3f}: {slot.title}"


def _wrap(text: str, inner: int, lines: int) -> list[str]:
    """The text broken at spaces into at most this many lines of this many cells; the last one ends in … where it is cut."""
    words, found = text.split(" "), [""]
    for place, word in enumerate(words):
        joined = f"{found[-1]} {word}".strip()
        if cell_len(joined) <= inner:
            found[-1] = joined
        elif found[-1] and len(found) < lines:
            found.append(word)
        else:
            found[-1] = " ".join([joined, *words[place + 1 :]])
            break
        if cell_len(found[-1]) > inner:
            break
    return [_fit(part, inner) for part in found]


def _fit(text: str, inner: int) -> str:
    """Exactly `inner` cells: filled up with spaces, or cut with an ellipsis."""
    if cell_len(text) <= inner:
        return set_cell_size(text, inner)
    return set_cell_size(set_cell_size(text, inner - 1).rstrip() + "…", inner)


def _wrapped(out: Text, text: str, width: int, style: str) -> None:
    for line in _wrap(text, width, 6):
        out.append(line.rstrip() + "\n", style)
