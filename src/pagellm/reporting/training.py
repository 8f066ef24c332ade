"""Training as figures: for each stage what it minimized, what it was rewarded for, and how far it went. Takes rows of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pagellm.reporting.evidence import Figure
from pagellm.reporting.figures import line_chart, thinned
from pagellm.reporting.words import plain

_X_KEYS = ("step", "iteration", "epoch")

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Columns that share an axis."""

    title: str
    reading: str
    wanted: Callable[[str], bool]


_KINDS = (
    _Kind("loss", "A loss that rises for long, or leaps, has too large a learning rate.", lambda key: "loss" in key),
    _Kind("quality on held-out users", "Where it falls while the loss falls, the model overfits.", lambda key: "@" in key),
    _Kind(
        "reward",
        "It rises and levels off; what it is worth to customers is in the over-optimization figure.",
        {"reward"}.__contains__,
    ),
    _Kind(
        "distance from the supervised policy, nats a page",
        "It levels off where its price steers it; one that runs away exploits its reward.",
        {"kl"}.__contains__,
    ),
    _Kind(
        "exploration",
        "Entropy falls slowly; a clipped share above a fifth means updates that are too large.",
        {"entropy", "clip_fraction", "distinct"}.__contains__,
    ),
)


def training_figures(rows: Rows) -> list[Figure]:
    """A figure for each stage and kind that the rows have. They have no intervals: a training is one draw."""
    found = []
    for stage in dict.fromkeys(str(row.get("stage", "training")) for row in rows):
        part = [row for row in rows if str(row.get("stage", "training")) == stage]
        x_key = next((key for key in _X_KEYS if any(key in row for row in part)), None)
        for kind in _KINDS if x_key else ():
            lines = _lines(part, x_key or "", kind.wanted)
            if lines:
                found.append(_figure(stage, kind, lines, x_key or "", len(part)))
    return found


def _figure(stage: str, kind: _Kind, lines: dict[str, list[tuple[float, float]]], x_key: str, records: int) -> Figure:
    values = {(name, x): y for name, points in lines.items() for x, y in points}
    steps = sorted({x for _, x in values})
    name = "".join(c if c.isalnum() else "-" for c in plain(f"{stage} {kind.title}", 60).lower())
    return Figure(
        name,
        plain(f"{stage}: {kind.title}"),
        kind.reading,
        f"{records:,} records of one training, no interval",
        line_chart(lines, x_key, kind.title),
        (x_key, *lines),
        tuple((step, *(values.get((line, step), "") for line in lines)) for step in thinned(steps)),
    )


def _lines(rows: Rows, x_key: str, wanted: Callable[[str], bool]) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if wanted(key) and isinstance(value, int | float) and isinstance(row.get(x_key), int | float):
                lines.setdefault(plain(key, 40), []).append((float(row[x_key]), float(value)))
    return lines
