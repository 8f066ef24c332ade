"""Small charts as inline SVG. Takes numbers and names, returns `Markup`; every name is escaped on its way in.

Colors are classes that the page's style sheet sets, so that a chart follows light, dark and print. Knows no metric and no page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

T = TypeVar("T")

Points = Sequence[tuple[float, float]]
Bands = Sequence[tuple[float, float, float, float]]
"""x, y, and the ends of y's interval."""

Cross = tuple[tuple[float, float, float], tuple[float, float, float]]
"""x and y, each a value with the ends of its interval."""

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
    lines = {name: thinned([p for p in points if _finite(p)]) for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    frame = _Frame.around([p for points in lines.values() for p in points], size)
    drawn = Markup('<path d="M{}"/><circle cx="{:.1f}" cy="{:.1f}" r="3"/>')
    return frame.chart(
        {name: drawn.format(frame.path(points), *frame.at(*points[-1])) for name, points in lines.items()}, x_label, y_label
    )


def band_chart(series: Mapping[str, Bands], x_label: str, y_label: str, size: tuple[int, int] = (440, 260)) -> Markup:
    """Lines with their intervals as bands around them. Points that are not finite are left out."""
    known = {name: [p for p in points if _finite(p)] for name, points in series.items()}
    known = {name: points for name, points in known.items() if points}
    frame = _Frame.around([(x, y) for points in known.values() for x, *ys in points for y in ys], size)
    drawn = {}
    for name, points in known.items():
        around = [(x, high) for x, _, _, high in points] + [(x, low) for x, _, low, _ in reversed(points)]
        middle = [(x, y) for x, y, _, _ in points]
        drawn[name] = Markup('<path class="band" d="M{}Z"/><path d="M{}"/>').format(frame.path(around), frame.path(middle))
    return frame.chart(drawn, x_label, y_label)


def scatter_chart(series: Mapping[str, Cross], x_label: str, y_label: str, size: tuple[int, int] = (440, 300)) -> Markup:
    """Points with an interval along each axis, each with its name, since colors come again. Those that are not finite are left out."""
    known = {name: (x, y) for name, (x, y) in series.items() if _finite((*x, *y))}
    frame = _Frame.around([(a, b) for x, y in known.values() for a, b in zip(x, y, strict=True)], size)
    drawn = {}
    for name, ((x, *x_ends), (y, *y_ends)) in known.items():
        lines = [frame.path([(end, y) for end in x_ends]), frame.path([(x, end) for end in y_ends])]
        at_x, at_y = frame.at(x, y)
        point = Markup(
            '<path d="M{}M{}"/><circle cx="{:.1f}" cy="{:.1f}" r="4"/><text class="tick" x="{:.1f}" y="{:.1f}">{}</text>'
        )
        drawn[name] = point.format(*lines, at_x, at_y, at_x + 6, at_y - 5, name)
    return frame.chart(drawn, x_label, y_label)


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


def thinned(points: Sequence[T], most: int = _MOST_POINTS) -> list[T]:
    """At most this many of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


@dataclass(frozen=True)
class _Frame:
    """Axes with round ticks around points, and where a point stands between them."""

    x_ticks: list[float]
    y_ticks: list[float]
    size: tuple[int, int]

    @classmethod
    def around(cls, points: Points, size: tuple[int, int]) -> _Frame:
        """Axes that hold all of these points."""
        xs, ys = ([p[axis] for p in points] or [0.0, 1.0] for axis in (0, 1))
        return cls(ticks(min(xs), max(xs)), ticks(min(ys), max(ys)), size)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point, in units of the drawing."""
        width, height = self.size
        across = _scale((self.x_ticks[0], self.x_ticks[-1]), 56, width - 14)
        up = _scale((self.y_ticks[0], self.y_ticks[-1]), height - 44, 30)
        return across(x), up(y)

    def path(self, points: Points) -> str:
        """Straight lines from point to point."""
        return "L".join("{:.1f} {:.1f}".format(*self.at(x, y)) for x, y in points)

    def chart(self, drawn: Mapping[str, Markup], x_label: str, y_label: str) -> Markup:
        """The drawing of each series in its color, with axes and a legend."""
        if not drawn:
            return Markup("<p>No finite points to draw.</p>")
        width, height = self.size
        series = [Markup('<g class="line s{}">{}</g>').format(_color(i), part) for i, part in enumerate(drawn.values(), start=1)]
        parts = [self._axes(), _labels(x_label, y_label, self.size), *series]
        told = f"{y_label} over {x_label}: {', '.join(drawn)}"
        drawing = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
        return drawing.format(width, height, told, Markup("").join(parts)) + _legend(list(drawn))

    def _axes(self) -> Markup:
        width, height = self.size
        line = Markup(
            '<path class="gridline" d="M56 {:.1f}H{}"/><text class="tick" x="50" y="{:.1f}" text-anchor="end">{:g}</text>'
        )
        mark = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>')
        heights = [(tick, self.at(self.x_ticks[0], tick)[1]) for tick in self.y_ticks]
        lines = [line.format(y, width - 14, y + 4, tick) for tick, y in heights]
        return Markup("").join(
            lines + [mark.format(self.at(tick, self.y_ticks[0])[0], height - 26, tick) for tick in self.x_ticks]
        )


def _scale(span: tuple[float, float], start: float, end: float) -> _Scale:
    low, high = span
    width = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / width


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


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
