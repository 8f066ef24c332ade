"""Logs that cannot be learned from, as people meet them: each is one error that names the column, the count and what to change."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl
import pytest

from pagellm.cli.main import run
from tiny_run import SETTINGS

QUICK = ["--profile", "tiny", *(word for setting in SETTINGS for word in ("--set", setting))]
REWARDS = ["--set", "split.reward_at=0.7", "--set", "reward.min_steps=20", "--set", "split.held_out=0.3"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated shop with logged pages."""
    folder = tmp_path_factory.mktemp("world") / "shop"
    assert run(["simulate", "world", str(folder), "--profile", "tiny", "--seed", "7", "--pages", "6000"]) == 0
    return folder


def altered(world: Path, folder: Path, pages: pl.DataFrame | None = None, events: pl.DataFrame | None = None) -> Path:
    """The shop with these pages and events."""
    folder.mkdir()
    (folder / "items.parquet").write_bytes((world / "items.parquet").read_bytes())
    for name, frame in (("impressions", pages), ("events", events)):
        (pl.read_parquet(world / f"{name}.parquet") if frame is None else frame).write_parquet(folder / f"{name}.parquet")
    return folder


def with_propensity(pages: pl.DataFrame, value: float, first: int, count: int) -> pl.DataFrame:
    """The pages with this propensity in all slots of `count` of them, from row `first` (from 1) on."""
    chosen = pl.int_range(pl.len()).is_between(first - 1, first + count - 2)
    slots = pl.col("slots").list.eval(pl.element().struct.with_fields(propensity=pl.lit(value, pl.Float32)))
    return pages.with_columns(slots=pl.when(chosen).then(slots).otherwise("slots"))


CASES = {
    "no positive feedback": (3, ["no_positive_feedback", "column event", "none of the 5,595 rows", "Write select_item"]),
    "one user": (3, ["column user_id", "1 with those held out", "a smaller split.reward_at"]),
    "only clicks": (0, ["All 3,694 engagements", "column event of the events file", "Add add_to_cart and purchase"]),
    "propensity 0": (3, ["propensity_out_of_range 90 (first in row 11)", "90 of 6,000 rows", "Write the column propensity"]),
    "propensity above 1": (
        3,
        ["propensity_out_of_range 90 (first in row 11)", "90 of 6,000 rows", "Write the column propensity"],
    ),
    "pages without slots": (3, ["page_without_slots 6,000 (first in row 1)", "6,000 of 6,000 rows", "Fill the column slots"]),
    "feedback before its page": (3, ["event_before_page 5,595 (first in row 1)", "column timestamp", "look at the clocks"]),
}


def broken(case: str, world: Path, folder: Path) -> Path:
    """The shop with this fault."""
    pages, events = (pl.read_parquet(world / f"{name}.parquet") for name in ("impressions", "events"))
    if case == "no positive feedback":
        return altered(world, folder, events=events.with_columns(event=pl.lit("dismiss")))
    if case == "one user":
        one = pl.col("user_id") == events["user_id"].mode()[0]
        return altered(world, folder, pages.filter(one), events.filter(one))
    if case == "only clicks":
        return altered(world, folder, events=events.filter(event="select_item"))
    if case.startswith("propensity"):
        return altered(world, folder, with_propensity(pages, 0.0 if case.endswith("0") else 1.5, 11, 90))
    if case == "pages without slots":
        return altered(world, folder, pages.with_columns(slots=pl.col("slots").list.head(0)))
    assert case == "feedback before its page"
    return altered(world, folder, events=events.with_columns(ts=pl.col("ts").dt.offset_by("-900d")))


@pytest.mark.parametrize("case", CASES)
def test_a_log_that_says_too_little_is_told_with_column_count_and_change(
    case: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop, (code, words) = broken(case, world, tmp_path / "a shop"), CASES[case]
    assert run(["train", str(shop), "--run", str(tmp_path / "run"), "--until", "reward", *QUICK, *REWARDS]) == code
    said = capsys.readouterr().err
    for word in words:
        assert word in said
    assert (tmp_path / "run").exists() == (code == 0), "told before anything is trained"
    assert "--max-reject-share" not in said, "train has no such option"
    if "rows (" in said:
        assert f"`pagellm data check {shlex.quote(str(shop))} --quarantine FILE`" in said


def test_left_out_rows_are_told_a_line_a_reason(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages, events = (pl.read_parquet(world / f"{name}.parquet") for name in ("impressions", "events"))
    early = events.filter(event="select_item").tail(4)
    early = early.with_columns(event_id=pl.format("early {}", "event_id"), ts=pl.col("ts").dt.offset_by("-900d"))
    shop = altered(world, tmp_path / "shop", with_propensity(pages, 0.0, 5, 3), pl.concat([events, early]))
    assert run(["pairs", "mine", str(shop), "--out", str(tmp_path / "pairs.parquet")]) == 0
    page, event = (line for line in capsys.readouterr().err.splitlines() if " left out " in line)
    rows = len(events) + 4
    assert page.startswith("impressions.parquet: 3 of 6,000 rows left out as propensity_out_of_range, first row 5. Write")
    assert event.startswith(f"events.parquet: 4 of {rows:,} rows left out as event_before_page, first row {rows - 3:,}. Feedback")


def test_a_window_without_feedback_names_the_columns(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = pl.read_parquet(world / "events.parquet")
    looked = events.with_columns(event=pl.when(pl.int_range(pl.len()) < 3000).then("event").otherwise(pl.lit("view_item")))
    shop = altered(world, tmp_path / "shop", events=looked)
    for large in ([], ["--large"]):
        assert run(["pairs", "mine", str(shop), "--out", str(tmp_path / "p.parquet"), "--from", "0.9", "--to", "1", *large]) == 3
        said = capsys.readouterr().err
        assert "pages in the window has an engaged slot" in said
        assert "column event" in said
        assert "--from and --to" in said


def test_a_policy_stays_whole_where_its_feedback_is_too_little_for_rewards(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages, events = (pl.read_parquet(world / f"{name}.parquet") for name in ("impressions", "events"))
    few = pl.col("user_id").is_in(events["user_id"].value_counts(sort=True)["user_id"][:8].to_list())
    shop, folder = altered(world, tmp_path / "shop", pages.filter(few), events.filter(few)), tmp_path / "run"
    train = ["train", str(shop), "--run", str(folder), *QUICK, *REWARDS]
    assert run(train) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert run([*train, "--until", "reward", "--resume"]) == 3
    said = capsys.readouterr().err
    assert "The reward window holds feedback of" in said
    assert "column user_id" in said
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run(["compose", str(folder), "--user", pages.filter(few)["user_id"][0], "--json"]) == 0
