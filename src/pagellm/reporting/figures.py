"""Small charts as inline SVG. Takes numbers and names, returns `Markup`; every name is escaped on its way in.

Colors are classes that the page's style sheet sets, so that a chart follows light, dark and print. Knows no metric and no page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

Points = Sequence[tuple[float, float]]
_Scale = Callable[[float], float]

_COLORS = 6  # of lines; beyond them they come again
_MOST_POINTS = 300  # of one line: beyond it no screen shows more, and a long training would swell the report
_NO_RANGE = 1e-9  # ends that lie closer, relative to their size, are one value: rounding would eat the ticks between


def interval_bar(
    mean: float, low: float, high: float, span: tuple[float, float], zero: float | None = None, width: int = 150
) -> Markup:
    """A point with its interval on an axis that runs over `span`; a line at `zero` where differences are shown."""
    place = _scale(span, 4, width - 4)
    line = Markup('<path class="zero" d="M{0:.1f} 0v16"/>').format(place(zero)) if zero is not None else Markup("")
    return Markup(
        '<svg class="interval" viewBox="0 0 {w} 16" width="{w}" height="16" aria-hidden="true">{line}'
        '<path class="track" d="M0 8h{w}"/><path class="range" d="M{low:.1f} 8H{high:.1f}"/>'
        '<circle class="dot" cx="{mean:.1f}" cy="8" r="4"/></svg>'
    ).format(w=width, line=line, low=place(low), high=place(high), mean=place(mean))


def line_chart(series: Mapping[str, Points], x_label: str, y_label: str, size: tuple[int, int] = (440, 260)) -> Markup:
    """Lines over one x axis, with round ticks and a legend. Points that are not finite are left out."""
    lines = {
        name: thinned([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]) for name, points in series.items()
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return Markup("<p>No finite points to draw.</p>")
    width, height = size
    x_ticks = ticks(*_reach([x for points in lines.values() for x, _ in points]))
    y_ticks = ticks(*_reach([y for points in lines.values() for _, y in points]))
    across = _scale((x_ticks[0], x_ticks[-1]), 56, width - 14)
    up = _scale((y_ticks[0], y_ticks[-1]), height - 44, 30)
    parts = [_axes(x_ticks, y_ticks, across, up, size), _labels(x_label, y_label, size)]
    for place, points in enumerate(lines.values(), start=1):
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in points)
        end = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(across(points[-1][0]), up(points[-1][1]))
        parts.append(Markup('<g class="line s{}"><path d="M{}"/>{}</g>').format(_color(place), path, end))
    drawing = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, f"{y_label} over {x_label}: {', '.join(lines)}", Markup("").join(parts)
    )
    return drawing + _legend(list(lines))


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten. A range that is no range is widened."""
    if high - low <= _NO_RANGE * max(abs(low), abs(high), 1.0):
        half = (abs(low) if abs(low) > _NO_RANGE else 1.0) / 2
        low, high = low - half, high + half
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def thinned(points: Points, most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most this many of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _scale(span: tuple[float, float], start: float, end: float) -> _Scale:
    low, high = span
    width = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / width


def _reach(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _axes(x_ticks: list[float], y_ticks: list[float], across: _Scale, up: _Scale, size: tuple[int, int]) -> Markup:
    width, height = size
    line = Markup('<path class="gridline" d="M56 {:.1f}H{}"/><text class="tick" x="50" y="{:.1f}" text-anchor="end">{:g}</text>')
    mark = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>')
    lines = [line.format(up(tick), width - 14, up(tick) + 4, tick) for tick in y_ticks]
    return Markup("").join(lines + [mark.format(across(tick), height - 26, tick) for tick in x_ticks])


def _labels(x_label: str, y_label: str, size: tuple[int, int]) -> Markup:
    width, height = size
    return Markup(
        '<text class="label" x="{}" y="{}" text-anchor="end">{}</text><text class="label" x="0" y="12">{}</text>'
    ).format(width - 14, height - 8, x_label, y_label)


def _legend(names: list[str]) -> Markup:
    items = [Markup('<li class="s{}">{}</li>').format(_color(place), name) for place, name in enumerate(names, start=1)]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _color(place: int) -> int:
    return (place - 1) % _COLORS + 1
