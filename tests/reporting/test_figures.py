"""Charts: round ticks, positions that can be computed by hand, names that stay text."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pagellm.reporting.figures import interval_bar, line_chart, thinned, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.012, 0.049, [0.01, 0.02, 0.03, 0.04, 0.05]), (-3, 7, [-4, -2, 0, 2, 4, 6, 8])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
@example(0.0, -5e-324)
@example(0.05, 0.05)
def test_ticks_cover_the_range_and_are_few(a, b):
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 8


def test_an_interval_lies_where_it_should():
    # a drawing of 108 units maps 0..10 to 4..104, so 5 stands at 54, 2.5 at 29 and 10 at 104
    bar = interval_bar(5, 2.5, 10, (0, 10), width=108)
    assert 'd="M29.0 8H104.0"' in bar
    assert 'cx="54.0"' in bar
    assert 'class="zero" d="M4.0 0v16"' in interval_bar(5, 2.5, 10, (0, 10), zero=0.0, width=108)


def test_a_line_runs_through_its_points():
    # 440 x 260: x from 56 to 426 over 0..10, y from 216 down to 30 over 0..10
    chart = line_chart({"loss": [(0, 10), (5, 5), (10, 0)]}, "step", "loss")
    assert 'd="M56.0 30.0L241.0 123.0L426.0 216.0"' in chart


def test_what_is_not_finite_is_left_out_and_nothing_is_said():
    chart = line_chart({"loss": [(0, 1), (1, math.nan), (2, math.inf), (3, 2)]}, "step", "loss")
    assert len(re.findall("L", re.search(r'<path d="(M[^"]+)"', chart)[1])) == 1
    assert "No finite points" in line_chart({"loss": [(0, math.nan)]}, "step", "loss")
    assert "No finite points" in line_chart({}, "step", "loss")


def test_names_are_text():
    chart = line_chart({"<script>": [(0, 1), (1, 2)]}, "<b>", '"&')
    assert "<script>" not in chart
    assert "<b>" not in chart
    assert "&lt;script&gt;" in chart


def test_thinning_keeps_the_ends():
    points = [(float(i), 0.0) for i in range(10_000)]
    kept = thinned(points)
    assert (kept[0], kept[-1], len(kept)) == (points[0], points[-1], 300)
    assert thinned(points[:5]) == points[:5]
