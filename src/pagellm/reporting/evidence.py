"""The figures of a report: a drawing, one sentence that says how to read it, what it rests on, and its numbers as CSV.

Takes the JSON of evaluation, reward check and training as plain values. Computes no metric, reads no file.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pagellm.reporting.figures import Cross, band_chart, line_chart, scatter_chart
from pagellm.reporting.verdict import metric_of, read_estimate
from pagellm.reporting.words import plain

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Figure:
    """One figure with all that it needs to stand alone."""

    name: str  # plain, of its CSV
    title: str
    reading: str  # one sentence
    note: str  # n and the method of the interval
    drawing: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    @property
    def csv(self) -> str:
        """Its numbers."""
        return csv_of(self.columns, self.rows)

    @property
    def link(self) -> str:
        """The same as a link that downloads without any request."""
        return "data:text/csv;base64," + base64.b64encode(self.csv.encode()).decode()


def csv_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated, with a header. Text that a spreadsheet would take as a formula is quoted as text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def accuracy_by_depth(evaluation: Mapping[str, Any], methods: Sequence[str], measure: str = "ndcg") -> Figure | None:
    """A measure over its cut-offs, a line with its band for each method; None where there is one cut-off at most."""
    names = [name for name in evaluation["methods"][methods[0]] if name.startswith(f"{measure}@")]
    names.sort(key=lambda name: int(name.partition("@")[2]))
    rows = []
    for method in methods:
        for name in names:
            e = read_estimate(evaluation["methods"], method, name, "mean")
            if e is not None:
                rows.append((method, int(name.partition("@")[2]), e.value, e.low, e.high))
    if len(names) < 2:
        return None
    series = {m: [(float(k), v, low, high) for mine, k, v, low, high in rows if mine == m] for m in methods}
    label = metric_of(measure).label
    return Figure(
        f"{measure}-by-depth",
        f"{label} by depth",
        "A line above another one's band is better at that depth, whoever chose the cut-off.",
        f"{evaluation['users']:,} customers; bands are 95 % bootstrap intervals over them",
        band_chart(series, "places that are looked at", label),
        ("method", "k", "mean", "low", "high"),
        tuple(rows),
    )


def trade_off(evaluation: Mapping[str, Any], accuracy: str = "ndcg@10", repeated: str = "near_duplicates@10") -> Figure | None:
    """Accuracy against repetition, a point for each method; None where either was not measured."""
    rows: list[tuple[object, ...]] = []
    series = {}
    for method in evaluation["methods"]:
        y = read_estimate(evaluation["methods"], method, accuracy, "mean")
        x = read_estimate(evaluation["methods"], method, repeated, "mean")
        if x and y:
            series[plain(method, 40)] = ((x.value, x.low, x.high), (y.value, y.low, y.high))
            rows.append((method, x.value, x.low, x.high, y.value, y.low, y.high))
    if len(series) < 2:
        return None
    return Figure(
        "trade-off",
        "Accuracy against repetition",
        "Up is better, left is better: a point above and left of another one beats it on both.",
        f"{evaluation['users']:,} customers; lines are 95 % bootstrap intervals over them. Beaten on both by none: {_front(series)}",
        scatter_chart(series, f"{metric_of(repeated).label}, of ten", metric_of(accuracy).label),
        ("method", "repeated", "repeated_low", "repeated_high", "accuracy", "accuracy_low", "accuracy_high"),
        tuple(rows),
    )


def _front(points: Mapping[str, Cross]) -> str:
    """Names of the methods that no other one beats in repetition and accuracy alike, by the means."""
    means = {name: (x[0], y[0]) for name, (x, y) in points.items()}
    return ", ".join(
        n for n, (x, y) in means.items() if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in means.values())
    )


def calibration_figure(check: Mapping[str, Any]) -> Figure | None:
    """Predicted against realised engagement by decile; None where there is nothing to draw."""
    found = check.get("calibration") or {}
    groups = list(zip(*(found.get(name, ()) for name in ("predicted", "realised", "low", "high", "pages")), strict=True))
    if len(groups) < 2:
        return None
    rows = [(at + 1, *map(float, group[:4]), int(group[4])) for at, group in enumerate(groups)]
    fitted = [float(value) for value in found.get("isotonic", ())]
    far = max(row[1] for row in rows)
    lines = {"realised": [(row[1], row[2], row[3], row[4]) for row in rows], "as predicted": [(x, x, x, x) for x in (0.0, far)]}
    if fitted:
        lines["best rising fit"] = [(row[1], y, y, y) for row, y in zip(rows, fitted, strict=True)]
        rows = [(*row, y) for row, y in zip(rows, fitted, strict=True)]
    return Figure(
        "calibration",
        "Does the reward mean what it says?",
        "Where the band leaves the straight line, the reward promises more or less than customers did.",
        f"{sum(row[5] for row in rows):,} pages of held-out customers in ten groups; 95 % bootstrap intervals over pages; "
        f"expected calibration error {found['ece']:.4f}",
        band_chart(lines, "predicted engagement of a page", "realised"),
        ("decile", "predicted", "realised", "low", "high", "pages", *(("isotonic",) if fitted else ())),
        tuple(rows),
    )


def calibration_places(check: Mapping[str, Any]) -> Figure | None:
    """Predicted against realised engagement by slot of the page; None where there is nothing to draw."""
    found = check.get("calibration_by_place") or {}
    names = ("predicted", "realised", "low", "high", "pages")
    rows = [(at + 1, *group) for at, group in enumerate(zip(*(found.get(name, ()) for name in names), strict=True))]
    if len(rows) < 2:
        return None
    return Figure(
        "calibration-by-place",
        "Does it mean so in every slot?",
        "Where the lines part, the reward favors or wrongs what stands there, and pages would be built around a place that is worth less.",
        f"{max(row[5] for row in rows):,} pages of held-out customers; 95 % bootstrap intervals over pages; slots in reading order",
        band_chart(
            {"realised": [(row[0], *row[2:5]) for row in rows], "predicted": [(row[0], row[1], row[1], row[1]) for row in rows]},
            "slot",
            "engagement with what stands there",
        ),
        ("slot", *names),
        tuple(rows),
    )


def margin_histogram(check: Mapping[str, Any]) -> Figure | None:
    """By how much the rewards tell pairs apart, a line a family; None where the check has no pairs."""
    found = check.get("margins")
    if not found or not found["pairs"]:
        return None
    edges = found["edges"]
    half = (edges[1] - edges[0]) / 2
    middles = [edges[0] - half, *(edge + half for edge in edges)]
    rows: list[tuple[object, ...]] = []
    series = {}
    for family, counts in found["pairs"].items():
        total = sum(counts) or 1
        series[plain(family, 40)] = [(x, n / total) for x, n in zip(middles, counts, strict=True)]
        rows += [(family, x, n, n / total) for x, n in zip(middles, counts, strict=True)]
    return Figure(
        "margins",
        "By how much is the better page better?",
        "What lies left of 0 is told apart wrongly; a heap at 0 says that the reward hardly knows which page is better.",
        f"{sum(map(sum, found['pairs'].values())):,} pairs of held-out customers, counted, without intervals; both ends are open",
        line_chart(series, "score of the better page minus that of the worse, in log-odds", "share of the family's pairs"),
        ("family", "middle", "pairs", "share"),
        tuple(rows),
    )


def over_optimization(course: Mapping[str, Any]) -> Figure | None:
    """Learned reward and page value of held-out users against the root of the distance; None without two looks at them.

    `course` as in ppo.json. Each line is drawn from where it began, in its own range, since one is in units of the reward and the other in
    hits (Gao, Schulman and Hilton 2023 draw a learned and a true reward over the root of the distance).
    """
    rows = [tuple(float(look[name]) for name in ("step", "root_kl", "reward", "value")) for look in course["curve"]]
    if len(rows) < 2:
        return None
    series = {}
    for at, name in ((2, "learned reward"), (3, "page value of held-out customers")):
        values = [row[at] for row in rows]
        spread = (max(values) - min(values)) or 1.0
        series[name] = [(row[1], (row[at] - values[0]) / spread) for row in rows]
    kept = next((place for place, row in enumerate(rows) if row[0] == course["best"]), 0)
    series["the policy that was kept"] = [series["learned reward"][kept], series["page value of held-out customers"][kept]]
    return Figure(
        "over-optimization",
        "Better pages, or only a better score?",
        "Where the score goes on rising and the value falls, the policy exploits its reward; what follows was not kept.",
        f"{len(rows)} looks at held-out customers, without intervals: read the shape; the policy after step {course['best']} was kept",
        line_chart(series, "distance from the supervised policy, root of nats a page", "change, in its own range"),
        ("step", "root_kl", "reward", "page_value"),
        tuple(rows),
    )


def exposure_curve(counts: Mapping[str, Sequence[int]]) -> Figure | None:
    """Lorenz curves: which share of all slots goes to which share of the items, the least shown first (Lorenz 1905)."""
    rows: list[tuple[object, ...]] = []
    series: dict[str, list[tuple[float, float]]] = {}
    for method, shown in counts.items():
        ordered = sorted(shown)
        total, running = sum(ordered) or 1, 0
        points = [(0.0, 0.0)]
        for place, count in enumerate(ordered, start=1):
            running += count
            points.append((place / len(ordered), running / total))
        step = max(1, len(points) // 200)
        series[plain(method, 40)] = [*points[:-1:step], points[-1]]
        rows += [(method, *point) for point in series[plain(method, 40)]]
    if not series:
        return None
    return Figure(
        "exposure",
        "Who is shown at all?",
        "The nearer a line is to the diagonal, the more evenly items are shown; a line that hugs the floor shows few items to everybody.",
        "items that may be shown; first ten places for at most 2,000 drawn customers, for the log's own policy the pages that it showed "
        "in the same time; counts, no interval",
        line_chart(series, "share of the items, least shown first", "share of the slots"),
        ("method", "items", "slots"),
        tuple(rows),
    )


def places_seen(found: Mapping[str, Any]) -> Figure:
    """How likely each place is seen, a line with its band a row of the page. `found` as `judging.looked_at` gives it."""
    columns = ("row", "col", "seen", "low", "high", "slots", "ess")
    rows = list(zip(*(found[name] for name in columns), strict=True))
    series = {f"row {row}": [(float(r[1]), *r[2:5]) for r in rows if r[0] == row] for row in dict.fromkeys(found["row"])}
    return Figure(
        "places",
        "Where do customers look?",
        "Feedback from a place that is seldom seen stands for more than itself: pairs are weighted by the inverse of these chances.",
        f"{sum(found['slots']):,} slots on {found['pages']:,} logged pages, from {found['why']}; "
        "95 % jackknife intervals over twenty groups of customers",
        band_chart(series, "place in the row", "chance to be seen"),
        columns,
        tuple(rows),
    )
