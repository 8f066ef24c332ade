"""A simulated shop on disk: read back as any shop's data, and its world found again."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from pagellm.cli.main import app, run
from pagellm.data.readers import read_log
from pagellm.errors import RunError, UsageError
from pagellm.layout.reading import load_layout
from pagellm.simulation.disk import load_truth, load_world, write_world
from pagellm.simulation.logging_policies import POLICIES
from pagellm.types import Event


@pytest.fixture(scope="module")
def folder(tiny, tiny_log, tmp_path_factory):
    out = tmp_path_factory.mktemp("shops") / "tiny"
    write_world(tiny, tiny_log, out)
    return out


def test_the_reader_finds_what_was_simulated(tiny, tiny_log, folder):
    log = read_log(folder)
    shown = log.impressions
    assert shown is not None
    order = [int(p[1:]) for p in shown.page_ids]
    items = tiny_log.items[order].ravel()
    assert np.array_equal(log.catalog.item_ids[shown.item], tiny.shop.items["item_id"].to_numpy()[items])
    assert np.array_equal(shown.propensity, tiny_log.propensity[order].ravel())
    for field, truth in (
        (shown.viewed == 1, tiny_log.feedback.viewed),
        (shown.clicked, tiny_log.feedback.clicked),
        (shown.carted, tiny_log.feedback.carted),
        (shown.purchased, tiny_log.feedback.purchased),
    ):
        assert np.array_equal(field, truth[order].ravel())
    bought = tiny_log.feedback.purchased[order].ravel()
    np.testing.assert_allclose(shown.value, np.where(bought, tiny.shop.price[items], 0.0), rtol=1e-6)
    assert np.array_equal(shown.policy, np.array([p.name for p in POLICIES])[tiny_log.policy[order]])
    assert np.array_equal(shown.time, tiny_log.visits.time[order])
    assert (log.interactions.event == Event.PURCHASE).sum() == bought.sum()


def test_feedback_comes_after_its_page_and_before_the_next_of_the_session(folder):
    pages = pl.read_parquet(folder / "impressions.parquet")
    events = pl.read_parquet(folder / "events.parquet").join(pages.select("page_id", shown="ts"), on="page_id")
    delay = (events["ts"] - events["shown"]).dt.total_seconds()
    assert delay.min() > 0
    assert delay.max() < 180
    gaps = pages.sort("ts").select(pl.col("ts").diff().over("session_id")).to_series().drop_nulls().dt.total_seconds()
    assert gaps.min() >= 179


def test_events_are_a_funnel_with_money(folder):
    events = pl.read_parquet(folder / "events.parquet")
    keys = {name: set(events.filter(event=name).select("page_id", "slot_id").rows()) for name in events["event"].unique()}
    assert keys["purchase"] < keys["add_to_cart"] < keys["select_item"]
    assert events.filter(event="purchase").select(pl.col("value", "currency", "order_id").null_count()).row(0) == (0, 0, 0)
    assert events["event_id"].n_unique() == len(events)


def test_the_layout_beside_the_data_is_one(tiny, folder):
    layout = load_layout(folder / "layout.toml")
    assert [row.capacity for row in layout.rows] == [tiny.spec.cols] * tiny.spec.rows


def test_the_world_and_the_truth_come_back(tiny, tiny_log, folder):
    world, truth = load_world(folder), load_truth(folder)
    again = world.expected(truth["items"], truth["user"], truth["time"], owned=truth["owned"])
    first = tiny.expected(tiny_log.items, tiny_log.visits.user, tiny_log.visits.time, owned=tiny_log.owned)
    assert np.array_equal(again.money, first.money)


def test_equal_seeds_write_equal_bytes(tiny, tiny_log, folder, tmp_path):
    write_world(tiny, tiny_log, tmp_path / "again")
    for path in sorted(folder.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path.name


def test_a_folder_that_is_not_empty_is_left_alone(tiny, tiny_log, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        write_world(tiny, tiny_log, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_folder_without_or_with_another_world_is_told(tiny, tiny_log, tmp_path):
    with pytest.raises(RunError, match="no simulated shop"):
        load_world(tmp_path)
    write_world(tiny, tiny_log, tmp_path / "shop")
    path = tmp_path / "shop" / "truth" / "world.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 99}))
    with pytest.raises(RunError, match="another version"):
        load_world(tmp_path / "shop")


def test_the_command_writes_a_shop_and_says_what_comes_next(tmp_path):
    out = tmp_path / "shop"
    done = CliRunner().invoke(app, ["simulate", "world", str(out), "--profile", "tiny", "--pages", "300", "--policy", "uniform"])
    assert done.exit_code == 0, done.output
    assert f"Next: pagellm data check {out}" in done.stdout
    assert pl.read_parquet(out / "impressions.parquet")["policy_id"].unique().to_list() == ["uniform"]
    assert run(["data", "check", str(out)]) == 0


@pytest.mark.parametrize("words", [["--profile", "huge"], ["--policy", "clever"], ["--pages", "0"], ["--seed", "-3"]])
def test_the_command_declines_what_cannot_be(tmp_path, words, capsys):
    assert run(["simulate", "world", str(tmp_path / "shop"), "--profile", "tiny", *words]) == 2
    assert not (tmp_path / "shop").exists()
