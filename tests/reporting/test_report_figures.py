"""Figures of the report carry their numbers: as a drawing, as a sentence, as CSV that a spreadsheet cannot run."""

from __future__ import annotations

import base64
import csv
import io

import pytest
from sample_shop import make_check, make_evaluation, make_figures

from pagellm.reporting.evidence import (
    accuracy_by_depth,
    calibration_figure,
    calibration_places,
    csv_of,
    exposure_curve,
    margin_histogram,
    over_optimization,
    trade_off,
)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_every_figure_says_how_to_read_it_and_on_what_it_rests():
    figures = make_figures(make_evaluation({"popularity": 0.02, "sasrec": 0.05}))
    assert [f.name for f in figures] == [
        "ndcg-by-depth", "trade-off", "margins", "calibration", "calibration-by-place", "over-optimization", "exposure", "places",
    ]  # fmt: skip
    for figure in figures:
        assert figure.reading.endswith(".")
        assert figure.note
        assert "<svg" in figure.drawing
        told = rows(figure.csv)
        assert tuple(told[0]) == figure.columns
        assert len(told) == 1 + len(figure.rows) > 2
        assert base64.b64decode(figure.link.partition(",")[2]).decode() == figure.csv


def test_the_numbers_of_a_figure_are_those_of_the_evaluation():
    evaluation = make_evaluation({"popularity": 0.02})
    depth = accuracy_by_depth(evaluation, ["pagellm", "popularity"])
    assert depth is not None
    assert depth.rows[1] == ("pagellm", 100, 0.12, pytest.approx(0.118), pytest.approx(0.122))
    both = trade_off(evaluation)
    assert both is not None
    assert both.rows[1][:2] == ("popularity", 3.02)
    assert both.rows[1][4] == 0.02


def test_depths_stand_in_their_order_whatever_the_order_of_the_metrics():
    evaluation = make_evaluation({"popularity": 0.02})
    for figures in evaluation["methods"].values():
        figures["ndcg@20"] = figures["ndcg@10"]
    depth = accuracy_by_depth(evaluation, ["pagellm"])
    assert depth is not None
    assert [row[1] for row in depth.rows] == [10, 20, 100]


def test_what_cannot_be_drawn_is_left_out():
    alone = make_evaluation({})
    assert trade_off(alone) is None
    del alone["methods"]["pagellm"]["ndcg@100"]
    assert accuracy_by_depth(alone, ["pagellm"]) is None
    assert calibration_figure({"calibration": {name: [1] for name in ("predicted", "realised", "low", "high", "pages")}}) is None
    assert calibration_figure({}) is None
    assert over_optimization({"curve": [{"step": 0, "root_kl": 0, "reward": 0, "value": 1}], "best": 0}) is None
    assert exposure_curve({}) is None


def test_exposure_runs_from_nothing_to_all_below_the_diagonal():
    figure = exposure_curve({"pagellm": [3, 0, 1, 0]})
    assert figure is not None
    assert [row[1:] for row in figure.rows] == [(0, 0), (0.25, 0), (0.5, 0), (0.75, 0.25), (1, 1)]


def test_calibration_stands_beside_what_was_promised():
    figure = calibration_figure(make_check())
    assert figure is not None
    assert figure.rows[0] == (1, 0.01, 0.01, pytest.approx(0.009), pytest.approx(0.011), 40, 0.01)
    assert figure.columns[-1] == "isotonic"
    old = make_check()
    del old["calibration"]["isotonic"]
    assert len(calibration_figure(old).rows[0]) == 6
    assert "400 pages" in figure.note


def test_margins_are_shares_between_their_edges():
    figure = margin_histogram(make_check())
    assert figure is not None
    assert figure.rows == (
        ("relevance", -0.75, 1, 0.1), ("relevance", -0.25, 2, 0.2), ("relevance", 0.25, 3, 0.3), ("relevance", 0.75, 4, 0.4),
    )  # fmt: skip
    assert figure.note.startswith("10 pairs")
    assert margin_histogram({}) is None
    assert calibration_places({}) is None


@pytest.mark.parametrize("text", ["=1+1", "+SUM(A1)", "-2", "@cmd", "=HYPERLINK('http://x')"])
def test_no_cell_of_a_csv_is_a_formula(text):
    assert rows(csv_of(("name", "value"), [(text, 1.5)]))[1] == [f"'{text}", "1.5"]
    assert rows(csv_of(("name",), [("plain, with comma",)]))[1] == ["plain, with comma"]
