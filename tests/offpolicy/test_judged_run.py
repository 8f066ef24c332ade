"""A run judged on logged pages of the simulated shop: its figures beside the truth, and every way in which a log or a run does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pagellm.catalog import Catalog
from pagellm.cli.main import run as command
from pagellm.data.contexts import contexts_at
from pagellm.data.log import Log
from pagellm.data.readers import read_log
from pagellm.errors import PagellmError, RunError, UsageError
from pagellm.layout.spec import Layout
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.run import Run
from pagellm.offpolicy.judged_run import Asked, judge_pages
from pagellm.offpolicy.logged_pages import learned_until
from pagellm.offpolicy.verdict import OffPolicy
from pagellm.simulation.disk import write_world
from pagellm.simulation.shop_log import simulate_log
from pagellm.simulation.spec import profile
from pagellm.simulation.world import World
from pagellm.types import NO_ITEM, Context
from tiny_run import fresh_run, wake_page, write_shop

WARM = 4.0
"""A temperature at which the drawn policy is near enough to a uniform draw."""


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(profile("tiny", items=40, users=300, pages=1_500, rows=2, cols=2, later_days=1), 5)


@pytest.fixture(scope="module")
def shop(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "uniform"
    write_world(world, simulate_log(world, "uniform"), folder)
    return folder


@pytest.fixture(scope="module")
def log(shop: Path) -> Log:
    return read_log(shop)


@pytest.fixture(scope="module")
def run(log: Log) -> Run:
    run = fresh_run(log.catalog, log.interactions, "split.valid_at=0.3", "split.test_at=0.4")
    wake_page(run.net, run)
    return run


@pytest.fixture(scope="module")
def layout(shop: Path) -> Layout:
    return replace_rules(Layout.load(shop / "layout.toml"))


def replace_rules(layout: Layout) -> Layout:
    """Without limits a brand or a share of ads, which a uniform draw does not keep."""
    return layout.model_copy(update={"rules": layout.rules.model_copy(update={"max_per": (), "ads": None, "exclude": ()})})


@pytest.fixture(scope="module")
def found(run: Run, log: Log, layout: Layout) -> OffPolicy:
    return judge_pages(run, log, Asked(temperature=WARM, layout=layout), lambda line: None)


def true_clicks(world: World, run: Run, log: Log, layout: Layout) -> float:
    """Exact expected clicks of pages that the policy draws for the judged pages' users and moments."""
    shown = log.impressions
    assert shown is not None
    late = np.flatnonzero(shown.time >= learned_until(run))
    policy = LanguagePolicy(run, layout, Writing(WARM), int(shown.time[late].min()))
    who = contexts_at(log.interactions, shown.user[late], shown.time[late])
    pages = []
    for place in range(len(who)):
        past = slice(who.start[place], who.stop[place])
        known = (who.log.item[past], who.log.event[past], who.log.time[past])
        pages.append(Context(int(who.time[place]), *known, baskets=who.log.basket[past]))
    written = policy.compose_many(pages, np.random.default_rng(0))
    items = np.array([[slot.item for slot in group[0].slots] for group in written], np.int32)
    assert (items != NO_ITEM).all()
    users = np.array([int(str(log.interactions.user_ids[u])[1:]) for u in shown.user[late]], np.int32)
    return float(world.expected(items, users, shown.time[late]).clicks.mean())


def test_figures_hold_the_truth(world: World, run: Run, log: Log, layout: Layout, found: OffPolicy) -> None:
    truth = true_clicks(world, run, log, layout)
    answered = {f.name: f for f in found.judgement.figures if f.refusal is None}
    assert {"iips", "sniips", "pi", "rips"} <= answered.keys(), [f.refusal for f in found.judgement.figures]
    for figure in answered.values():
        assert figure.bernstein is not None
        assert figure.bootstrap is not None
        assert figure.bernstein.low < truth < figure.bernstein.high
        assert abs(figure.value - truth) < 2 * (figure.bootstrap.high - figure.bootstrap.low)
        assert figure.overlap is not None
        assert figure.overlap.support == pytest.approx(1, abs=0.2)
    assert "no later than what the run learned from" in found.notes[0]


def test_a_colder_policy_is_refused_and_told_how_far_it_can_be_judged(run: Run, log: Log, layout: Layout) -> None:
    cold = judge_pages(run, log, Asked(temperature=0.2, layout=layout), lambda line: None)
    refused = {f.name: f.refusal for f in cold.judgement.figures if f.refusal is not None}
    assert refused["ips"].code == "ess"
    assert all(f.value is None for f in cold.judgement.figures if f.name in refused)


def test_missing_propensities_can_be_estimated_and_are_flagged(run: Run, log: Log, layout: Layout, found: OffPolicy) -> None:
    assert log.impressions is not None
    blind = replace(log, impressions=replace(log.impressions, propensity=np.full(len(log.impressions.item), np.nan, np.float32)))
    refused = judge_pages(run, blind, Asked(temperature=WARM, layout=layout), lambda line: None)
    assert {f.refusal.code for f in refused.judgement.figures if f.refusal} == {"propensities_missing"}
    assert not refused.judgement.answered
    told = judge_pages(run, blind, Asked(temperature=WARM, layout=layout, estimate=True), lambda line: None)
    assert told.estimated
    assert "estimated" in told.words[-1]
    assert told.as_json()["estimated_propensities"] is True
    ours, known = ({f.name: f.value for f in o.judgement.figures}["sniips"] for o in (told, found))
    assert ours == pytest.approx(known, rel=0.2), "the logging policy is uniform, so its frequencies are its propensities"


def test_a_deterministic_log_is_refused(run: Run, log: Log, layout: Layout) -> None:
    assert log.impressions is not None
    fixed = replace(log, impressions=replace(log.impressions, propensity=np.ones(len(log.impressions.item), np.float32)))
    refused = judge_pages(run, fixed, Asked(layout=layout), lambda line: None)
    assert {f.refusal.code for f in refused.judgement.figures if f.refusal} == {"deterministic"}


def test_a_run_of_another_catalog_explains_itself(run: Run, log: Log, layout: Layout) -> None:
    other = replace(run, catalog=Catalog(log.catalog.frame.with_columns(title=pl.lit("a kettle"))))
    with pytest.raises(RunError, match="trained on another catalog: of 40 items of the log it knows 40, and 0 of these"):
        judge_pages(other, log, Asked(layout=layout), lambda line: None)


def test_logs_that_do_not_fit_explain_themselves(run: Run, log: Log, layout: Layout, tmp_path: Path) -> None:
    def told(changed: Log, asked: Asked) -> str:
        with pytest.raises(PagellmError) as stopped:
            judge_pages(run, changed, asked, lambda line: None)
        return str(stopped.value)

    assert log.impressions is not None
    assert "holds interactions and no pages" in told(replace(log, impressions=None), Asked())
    assert "one of its policies: uniform" in told(log, Asked(layout=layout, logged_by="nobody"))
    assert "does not have" in told(log, Asked(layout=Layout.single_row(2)))
    assert "first 9 cannot be judged" in told(log, Asked(layout=layout, slots=9))
    early = replace(log, impressions=log.impressions.where(log.impressions.time < learned_until(run)))
    assert "Name a later log" in told(early, Asked(layout=layout))


def test_a_run_without_a_past_cannot_be_judged(log: Log, layout: Layout) -> None:
    shuffled = fresh_run(log.catalog, log.interactions, "split.protocol=last-out")
    with pytest.raises(RunError, match="no moment parts into past and future"):
        judge_pages(shuffled, log, Asked(layout=layout), lambda line: None)


def test_layouts_that_logs_say_too_little_of(run: Run, log: Log, layout: Layout) -> None:
    with pytest.raises(UsageError, match="lets the policy choose rows"):
        judge_pages(run, log, Asked(layout=layout.model_copy(update={"order": "policy"})), lambda line: None)


def test_the_command_refuses_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = write_shop(tmp_path / "reviews")
    assert command(["ope", str(tmp_path / "run"), "--log", str(shop)]) == 1  # there is no run
    assert command(["ope", "--log", str(shop)]) == 2
    assert "Nothing says which policy is to be judged" in capsys.readouterr().err
    assert command(["ope", str(tmp_path), "--log", str(shop), "--target-by", "x"]) == 2
    assert command(["ope", str(tmp_path), "--log", str(shop), "--temperature", "0"]) == 2
    assert command(["ope", str(tmp_path), "--log", str(shop), "--reward", "smiles"]) == 2
