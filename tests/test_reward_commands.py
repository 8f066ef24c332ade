"""`pagellm train --until reward`, `pagellm rewards check` and receipts, as people type them, on a simulated shop with logged pages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pagellm.cli.main import run
from pagellm.types import PageBatch

COLUMNS = ("held_out_users", "reference_logprob_probe", "unseen_operators", "reference_logprob_probe_unseen")
FEW = ["--profile", "tiny", "--until", "reward", "--set", "reward.min_steps=60", "--set", "split.held_out=0.3"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated shop with logged pages."""
    folder = tmp_path_factory.mktemp("world") / "shop"
    assert run(["simulate", "world", str(folder), "--profile", "tiny", "--seed", "7", "--pages", "6000"]) == 0
    return folder


@pytest.fixture(scope="module")
def rewarded(world: Path) -> Path:
    """A run with rewards on that shop."""
    folder = world.with_name("run")
    assert run(["train", str(world), "--run", str(folder), *FEW]) == 0
    return folder


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "180")


def test_check_prints_laws_and_accuracies_and_writes_them(
    rewarded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "check.json"
    code = run(["rewards", "check", str(rewarded), "--json", str(file)])
    out = capsys.readouterr().out
    found = json.loads(file.read_text())
    broken = [name for name, law in found["laws"].items() if not law["holds"]]
    assert code == (4 if broken else 0)
    assert ("Broken: " + ", ".join(broken) in out) == bool(broken)
    assert {"duplicate_lowers", "engaged_up_raises", "equal_swap", "order_of_pages", "consumed_never_raises"} < set(found["laws"])
    assert {"impossible_is_an_error", "unseen_defects"} < set(found["laws"])
    for law in found["laws"].values():
        least = law["rate"] if law["tolerance"] == 1 else max(law["rate"], law["ci95"][1])
        assert law["holds"] == (law["n"] == 0 or least >= law["tolerance"])
        assert len(law["ci95"]) == 2
    for exact in ("equal_swap", "equal_items", "order_of_pages", "order_of_candidates", "impossible_is_an_error"):
        assert found["laws"][exact]["rate"] == 1
    assert set(found["pair_accuracy"]) == {"relevance", "ranking", "diversity", "redundancy", "swap"}
    assert set(found["pair_accuracy"]["redundancy"]["held_out_users"]["kinds"]) == {
        "near_duplicate",
        "repeat",
        "consumed",
        "alike",
    }
    assert {"rotation"} == set(found["pair_accuracy"]["ranking"]["unseen_operators"]["kinds"])
    assert found["pair_accuracy"]["swap"]["reference_logprob_probe"]["kinds"]["exchange"]["n"] > 0
    assert found["pair_accuracy"]["swap"]["held_out_users"]["n"] == found["pair_accuracy"]["swap"]["reference_logprob_probe"]["n"]
    for family, columns in found["pair_accuracy"].items():
        assert list(columns) == list(COLUMNS), f"{family} has every key, whatever there was to judge"
        assert all(columns[name] is None or columns[name]["n"] > 0 for name in COLUMNS)
    assert found["pair_accuracy"]["swap"]["unseen_operators"] is None, "no held-out defect is a swap"
    assert found["pair_accuracy"]["swap"]["reference_logprob_probe_unseen"] is None
    assert "a second copy of an item lowers the page reward" in out
    assert "calibration error" in out


def test_a_reward_that_likes_copies_breaks_a_law_and_exits_4(
    rewarded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pagellm.models.multi_grained import MultiGrainedReward, RewardModel, Scores
    from pagellm.models.reward_files import RewardFacts, load_rewards
    from pagellm.models.run import Run
    from pagellm.rewarding import check

    class Backwards(RewardModel):
        def scores(self, pages: PageBatch, logged: bool = False) -> Scores:
            found = super().scores(pages, logged)
            return replace(found, page=-found.page)

    def wrong(run: Run) -> tuple[MultiGrainedReward, RewardFacts]:
        reward, facts = load_rewards(run)
        model = reward.model
        return replace(reward, model=Backwards(model.net, model.reader, model.look, model.config)), facts

    monkeypatch.setattr(check, "load_rewards", wrong)
    assert run(["rewards", "check", str(rewarded)]) == 4
    assert "Broken: duplicate_lowers" in capsys.readouterr().out


def test_a_check_of_fewer_pages_says_how_many_of_how_many(
    rewarded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for pages in (30, 20_000):
        file = tmp_path / f"{pages}.json"
        assert run(["rewards", "check", str(rewarded), "--pages", str(pages), "--json", str(file)]) in (0, 4)
        judged = found[pages] = json.loads(file.read_text())["judged"]
        words = f"{judged['pages']:,} of {judged['of_pages']:,} pages, of {judged['users']:,} of {judged['of_users']:,} users"
        said = capsys.readouterr()
        assert f"Judged on {words}" in said.out
        assert words in said.err
    few, every = found[30], found[20_000]
    assert few["pages"] <= 30 < every["pages"] == every["of_pages"] == few["of_pages"]
    assert few["users"] < every["users"] == every["of_users"]


def test_pairs_of_the_run_come_from_users_who_are_not_held_out(rewarded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pagellm.data.cohorts import held_out_users

    pairs = pl.read_parquet(rewarded / "pairs.parquet")
    assert not held_out_users(pairs["user_id"].to_numpy(), 0.3).any()
    assert run(["pairs", "show", str(rewarded / "pairs.parquet"), "--n", "1"]) == 0
    assert "chosen" in capsys.readouterr().out


def test_a_receipt_is_shown_in_words_and_adds_up(rewarded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(["compose", str(rewarded), "--user", "u000003", "--explain", "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "Reward " in out
    assert "that every page gets" in out
    assert "Worth most: row " in out
    html = page.read_text()
    assert "What the rewards find" in html
    assert "lost without it" in html
    assert run(["compose", str(rewarded), "--user", "u000003", "--explain", "--json"]) == 0
    receipt = json.loads(capsys.readouterr().out)["receipt"]
    total = receipt["constant"] + sum(sum(slots.values()) for slots in receipt["parts"].values())
    assert total == pytest.approx(receipt["total"], abs=1e-6)
    assert receipt["best_swap"]["slots"][0] in receipt["without"]
    assert "if the rules allow it" not in out
    assert run(["compose", str(rewarded), "--user", "u000003", "--json"]) == 0
    assert "receipt" not in json.loads(capsys.readouterr().out)


def test_what_cannot_be_checked_is_said(tiny_run: Path, rewarded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rewards", "check", str(tiny_run)]) == 1
    assert "--until reward" in capsys.readouterr().err
    assert run(["rewards", "check", str(rewarded), "--on", "yesterday"]) == 2
    assert "choices, test" in capsys.readouterr().err


def altered(world: Path, folder: Path, impressions: pl.Expr | None = None, events: pl.Expr | None = None) -> Path:
    """The shop with only those pages and events."""
    folder.mkdir()
    for path in world.iterdir():
        if path.is_file() and path.suffix != ".toml":
            (folder / path.name).write_bytes(path.read_bytes())
    for name, kept in (("impressions", impressions), ("events", events)):
        if kept is not None:
            pl.read_parquet(world / f"{name}.parquet").filter(kept).write_parquet(folder / f"{name}.parquet")
    return folder


def test_feedback_of_one_user_is_refused_before_training(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = pl.read_parquet(world / "events.parquet")["user_id"].value_counts(sort=True)["user_id"][0]
    only = pl.col("user_id") == one
    shop = altered(world, tmp_path / "one", only, only)
    assert run(["train", str(shop), "--run", str(tmp_path / "run"), *FEW]) == 3
    said = capsys.readouterr().err
    assert "column user_id" in said
    assert "split.reward_at" in said
    assert not (tmp_path / "run").exists(), "told before anything is trained"


def test_what_was_hidden_later_stops_neither_learning_nor_checking(world: Path, tmp_path: Path) -> None:
    shop = altered(world, tmp_path / "hidden")
    items = pl.read_parquet(world / "items.parquet")
    clicked = pl.read_parquet(world / "events.parquet")["item_id"].value_counts(sort=True)["item_id"][:3].to_list()
    items.with_columns(hidden=pl.col("item_id").is_in(clicked)).write_parquet(shop / "items.parquet")
    assert run(["train", str(shop), "--run", str(tmp_path / "run"), *FEW]) == 0
    assert run(["rewards", "check", str(tmp_path / "run")]) in (0, 4)


def test_an_empty_page_has_a_receipt(rewarded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compose", str(rewarded), "--user", "u000003", "--query", "zzzz qqqq", "--explain"]) == 0
    assert "Reward " in capsys.readouterr().out
