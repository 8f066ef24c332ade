"""A page's reward receipt in words and numbers that add up. Takes what the rewards found, gives lines and a table; knows no reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pagellm.reporting.words import cut, plain

WORDS = {
    "relevance": "items that fit",
    "ranking": "their order",
    "diversity": "variety",
    "redundancy": "repetition",
    "item": "expected engagement",
}
"""What each part of the reward is called where people read it."""

_TITLE = 40  # characters of a title in a sentence


@dataclass(frozen=True, slots=True)
class SlotReceipt:
    """What one slot adds to the reward of its page."""

    row: int  # from 1
    slot: int  # from 1
    title: str
    parts: tuple[float, ...]  # in the order of WORDS
    alone: float  # what the page would lose without it

    @property
    def place(self) -> str:
        """As it is said in a sentence."""
        return f"row {self.row}, slot {self.slot}"

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(self.parts)


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """The receipt of a page, ready to be shown."""

    columns: tuple[str, ...]
    slots: tuple[SlotReceipt, ...]
    constant: float  # what every page pays or gets
    total: float  # the constant and all slots
    lines: tuple[str, ...]  # the same as sentences


def receipt_view(
    places: Sequence[tuple[int, int]],
    titles: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    constant: float,
    total: float,
    alone: Mapping[int, float],
    swap: tuple[int, int, float] | None,
    disagreement: float,
    ruled: bool = False,
) -> ReceiptView:
    """Builds the view. `places` (row and column from 0), `titles` and each of `parts` are of all slots, empty ones among them; `alone` and
    `swap` name slots by their place in these. `ruled`: whether `swap` is known to keep the layout's rules."""
    filled = sorted(alone)
    slots = tuple(
        SlotReceipt(
            places[s][0] + 1, places[s][1] + 1, plain(titles[s]), tuple(float(parts[name][s]) for name in WORDS), alone[s]
        )
        for s in filled
    )
    sums = {name: sum(float(value) for value in parts[name]) for name in WORDS}
    spoken = " ".join(f"{WORDS[name]} {value:+.2f}" + ("," if name != "item" else "") for name, value in sums.items())
    lines = [f"Reward {total:+.2f}: {spoken}, and {constant:+.2f} that every page gets."]
    if slots:
        best, least = max(slots, key=lambda s: s.alone), min(slots, key=lambda s: s.alone)
        lines.append(f"Worth most: {_named(best)}. Without it the page would lose {best.alone:.2f}.")
        if least.alone < 0:
            lines.append(f"Worth least: {_named(least)}. Without it the page would gain {-least.alone:.2f}.")
    if swap is not None:
        lines.append(_counter_swap(swap, places, titles, ruled))
    lines.append(f"How sure: the models that scored it differ by {disagreement:.2f}.")
    return ReceiptView(tuple(WORDS.values()), slots, constant, total, tuple(lines))


def _counter_swap(swap: tuple[int, int, float], places: Sequence[tuple[int, int]], titles: Sequence[str], ruled: bool) -> str:
    """What the best exchange of two slots would gain, if any gains."""
    a, b, gain = swap
    if gain <= 0:
        return f"No exchange of two slots {'that the rules allow ' if ruled else ''}would make it better."
    one, other = (f"{_words(places[s])} (“{cut(plain(titles[s]), _TITLE)}”)" for s in (a, b))
    return f"Exchanging {one} and {other} would gain {gain:.2f}{', and keeps the rules' if ruled else ', if the rules allow it'}."


def _named(slot: SlotReceipt) -> str:
    return f"{slot.place} (“{cut(slot.title, _TITLE)}”)"


def _words(place: tuple[int, int]) -> str:
    return f"row {place[0] + 1}, slot {place[1] + 1}"
