"""The report says what the figures say: the verdict in all its cases, intervals everywhere, nothing fetched."""

from __future__ import annotations

import pytest
from html_reader import Reader
from sample_shop import HOSTILE, full_report, make_evaluation

from pagellm.errors import PagellmError
from pagellm.reporting.report import RunReport, flat, report_html
from pagellm.reporting.tables import customer_table, headline_table, metric_tables, online_words
from pagellm.reporting.training import training_figures
from pagellm.reporting.verdict import Estimate, judge, number


def test_the_verdict_is_about_the_strongest_rival():
    verdict = judge(make_evaluation({"popularity": 0.02, "sasrec": 0.05}), "pagellm", "ndcg@10")
    assert verdict.level == "good"
    assert verdict.headline == "pagellm foresees what customers take next better than the best of the 2 other methods, sasrec."
    assert verdict.sentences[0] == (
        "ndcg@10: 0.0600 [0.0580, 0.0620] against 0.0500 [0.0480, 0.0520]; difference +0.0100 [+0.0080, +0.0120] over 1,234 customers."
    )


@pytest.mark.parametrize(
    ("rival", "level", "word"), [(0.05, "good", "better"), (0.07, "bad", "worse"), (0.0595, "open", "cannot be told apart")]
)
def test_only_an_interval_beside_zero_decides(rival, level, word):
    verdict = judge(make_evaluation({"sasrec": rival}), "pagellm", "ndcg@10")
    assert verdict.level == level
    assert word in verdict.headline
    assert "the only other method, sasrec" in verdict.headline


def test_what_learning_pages_changed_is_told_apart_from_other_methods():
    verdict = judge(make_evaluation({"popularity": 0.05, "sft": 0.0601}), "pagellm", "ndcg@10")
    assert verdict.headline.endswith("better than the only other method, popularity.")
    assert verdict.sentences[-1].startswith(
        "Learning from its own pages changed: ndcg@10 -0.0001 [-0.0021, +0.0019], near_duplicates@10 "
    )
    alone = judge(make_evaluation({"sft": 0.05}), "pagellm", "ndcg@10")
    assert alone.headline.endswith("better than the only other method, sft.")


def test_near_duplicates_are_worse_when_there_are_more():
    more = judge(make_evaluation({"sasrec": 0.05}), "pagellm", "ndcg@10")
    fewer = judge(make_evaluation({"sasrec": 0.07}), "pagellm", "ndcg@10")
    assert more.sentences[1].startswith("Near-duplicates on the page: more, which is worse")
    assert fewer.sentences[1].startswith("Near-duplicates on the page: fewer, which is better")


def test_a_lower_is_better_headline_turns_the_verdict():
    assert judge(make_evaluation({"sasrec": 0.05}), "pagellm", "near_duplicates@10").level == "bad"


def test_the_ratio_is_told_where_there_is_one():
    evaluation = make_evaluation({"sasrec": 0.05}) | {"ratio": {"sasrec": {"ndcg@10": {"ratio": 1.2, "ci95": [1.1, 1.3]}}}}
    assert "That is 1.20 [1.10, 1.30] times as much." in judge(evaluation, "pagellm", "ndcg@10").sentences[0]


def test_without_a_rival_or_a_paired_figure_nothing_is_claimed():
    assert judge(make_evaluation({}), "pagellm", "ndcg@10").level == "open"
    unpaired = make_evaluation({"sasrec": 0.01}) | {"paired": {}}
    assert judge(unpaired, "pagellm", "ndcg@10").level == "open"


def test_a_figure_without_interval_is_refused():
    evaluation = make_evaluation({"sasrec": 0.05})
    evaluation["methods"]["sasrec"]["ndcg@10"] = {"mean": 0.05}
    with pytest.raises(PagellmError, match=r"ndcg@10 of sasrec has no 95 % interval"):
        report_html(RunReport("Run", evaluation))


def test_a_missing_headline_is_named():
    with pytest.raises(PagellmError, match="no hit@10 of pagellm"):
        report_html(RunReport("Run", make_evaluation({}), headline="hit@10"))


def test_tables_hold_every_method_best_first_and_every_cut():
    evaluation = make_evaluation({"popularity": 0.02, "sasrec": 0.05})
    assert [name for name, _ in headline_table(evaluation, "ndcg@10").rows] == ["pagellm", "sasrec", "popularity"]
    assert [name for name, _ in headline_table(evaluation, "near_duplicates@10").rows] == ["popularity", "sasrec", "pagellm"]
    tables = metric_tables(evaluation)
    assert [table.columns for table in tables] == [("ndcg@10", "ndcg@100"), ("near_duplicates@10",)]
    cell = tables[0].rows[0][1][1]
    assert (cell.text, cell.ends) == ("0.1200", "[0.1180, 0.1220]")


def test_a_metric_that_one_method_lacks_is_a_gap():
    evaluation = make_evaluation({"sasrec": 0.05})
    del evaluation["methods"]["sasrec"]["ndcg@100"]
    assert metric_tables(evaluation)[0].rows[1][1][1] is None
    assert report_html(RunReport("Run", evaluation))


def test_training_is_drawn_by_stage_and_kind():
    rows = [{"stage": "sft", "step": i, "loss": 3 - i / 10, "valid_ndcg@10": i / 100, "lr": 1} for i in range(10)]
    rows += [{"stage": "reward", "step": 1, "loss": 1.0}, {"stage": "notes", "text": "no step"}]
    rows += [{"stage": "ppo", "step": i, "loss": 1.0, "reward": i / 2, "kl": i / 4, "entropy": 2.0} for i in range(1_000)]
    figures = training_figures(rows)
    assert [figure.title for figure in figures] == [
        "sft: loss",
        "sft: quality on held-out users",
        "reward: loss",
        "ppo: loss",
        "ppo: reward",
        "ppo: distance from the supervised policy, nats a page",
        "ppo: exploration",
    ]
    assert figures[4].columns == ("step", "reward")
    assert figures[4].rows[-1] == (999.0, 499.5)
    assert len(figures[4].rows) <= 300
    assert training_figures([]) == []


def test_cards_are_flattened():
    assert flat({"split": {"name": "temporal", "cuts": [0.8, 0.9]}, "share": 0.5, "users": 7}) == [
        ("split.name", "temporal"),
        ("split.cuts", "0.8, 0.9"),
        ("share", "0.5000"),
        ("users", "7"),
    ]


def test_numbers_and_estimates():
    assert [number(x) for x in (0.05471, 4.136, 12345.6, -0.5, float("nan"))] == ["0.0547", "4.14", "12,346", "-0.5000", "n/a"]
    assert (Estimate(1, 0.5, 2).side, Estimate(-1, -2, -0.5).side, Estimate(0, -1, 1).side, Estimate(0, 0, 0).side) == (
        1,
        -1,
        0,
        0,
    )


def test_the_report_is_whole_small_and_fetches_nothing():
    html = full_report()
    read = Reader(html)
    assert read.open == []
    assert len(html.encode()) < 500_000
    assert not {"script", "iframe", "img", "form", "object"} & set(read.tags)
    assert all(
        v.startswith(("#", "data:image/svg+xml,", "data:text/csv;base64,")) for k, v in read.attributes if k in ("href", "src")
    )
    assert "seed 7" in html
    for part in ("summary", "pages", "evidence", "training", "data", "repeat"):
        assert f'id="{part}"' in html


def test_every_mean_of_a_table_stands_beside_its_interval():
    html = full_report()
    assert html.count("<b>0.0600</b>") == html.count('<b>0.0600</b><span class="ends">[0.0580, 0.0620]</span>') == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_words_add_nothing_to_the_report(name):
    clean, dirty = Reader(full_report()), Reader(full_report(HOSTILE[name]))
    assert dirty.tags == clean.tags
    assert [k for k, _ in dirty.attributes] == [k for k, _ in clean.attributes]
    assert dirty.open == []


def test_what_changes_for_customers_is_told_against_the_page_before():
    cell = {"mean": 4.0, "ci95": [3.5, 4.5]}
    pages = {
        "users": 2000,
        "methods": {"pagellm": {"near_duplicates": cell | {"mean": 2.0}, "page_dcg": cell}, "sft": {"near_duplicates": cell}},
        "paired": {"sft": {"near_duplicates": {"diff": -2.0, "ci95": [-2.5, -1.5]}}},
    }
    table = customer_table({"pages": pages}, "pagellm", "sft")
    assert table is not None
    assert table.columns == ("change", "before (sft)", "after (pagellm)")
    ((label, cells),) = table.rows
    assert label == "Near-duplicates on the page"
    assert [cell.text for cell in cells if cell] == ["-2.00", "4.00", "2.00"]
    assert "2,000 customers" in table.note
    assert customer_table({"pages": pages}, "pagellm", "als") is None
    assert customer_table({}, "pagellm", "sft") is None


def test_what_may_be_expected_online_is_the_range_of_all_estimators_or_nothing():
    told = {"value": 0.5, "gain95": [-0.1, 0.2]}
    other = {"value": 0.6, "gain95": [0.05, 0.4]}
    found = {"estimators": {"ips": told, "dr": other, "snips": {"value": None}}}
    assert "between -0.1000 and +0.4000 reward a page" in online_words(found)
    assert "all 2 estimators" in online_words(found)
    assert "cannot be estimated from the log" in online_words({"estimators": {"ips": {"value": None}}})
    assert "--log" in online_words({})
