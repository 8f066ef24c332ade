"""`pagellm reproduce ablation` on the small shop: every arm is learned and judged, the files are written, what is done stays done."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import pagellm.reproduction.ablation as ablation
import pagellm.reproduction.arms as arms
from pagellm.cli.main import run
from pagellm.models.run import load_run
from pagellm.reproduction.stand import Stand
from tiny_run import SETTINGS

FEW = (
    *SETTINGS,
    "split.held_out=0.3",
    "reward.min_steps=20",
    "ppo.contexts=6",
    "ppo.group=3",
    "ppo.candidates=20",
    "ppo.most_contexts=40",
)


def command(shop: Path, out: Path, *more: str) -> list[str]:
    settings = [word for setting in FEW for word in ("--set", setting)]
    return ["reproduce", "ablation", str(shop), "--out", str(out), "--seeds", "1", "--profile", "tiny", *settings, *more]


@pytest.fixture(scope="module")
def matrix(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole matrix of one seed, with one iteration an arm and pages that are drawn twice instead of 64 times."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "BUDGET", ("ppo.iterations=1", "ppo.kl_target=5", "ppo.kl_gain=2"))
        patch.setattr(ablation, "BEST_OF", 2)
        assert run(command(tiny_shop, out)) == 0
    return out


def test_every_arm_and_control_is_in_the_table_with_its_interval(matrix: Path) -> None:
    table = pl.read_parquet(matrix / "ablation.parquet")
    assert set(table["arm"]) >= {arm.name for arm in arms.learned_arms(arms.GROUPS)}
    assert {arm: set(some["reward"]) for (arm,), some in table.group_by("arm")} == {
        **{arm: {"none"} for arm in table.filter(pl.col("reward") == "none")["arm"]},
        **{arm.name: {arm.reward} for arm in arms.learned_arms(arms.GROUPS)},
    }
    assert set(table.filter(table["method"] == "sft")["base"]) == {"start", "head", "refreshed", "both"}
    assert set(table.filter(table["method"] == "mmr")["setting"]) == {f"λ={value:g}" for value in arms.DIALS[0].values}
    assert table["mean"].is_between(table["lo"] - 1e-9, table["hi"] + 1e-9).all()
    assert table.filter(table["method"] == "ppo")["kl"].null_count() == 0
    assert set(table["part"]) == {"choices", "test"}
    own = table.filter((table["method"] == "sft") & (table["base"] == "start"))
    assert own["paired_diff"].abs().max() == 0
    assert pl.read_csv(matrix / "ablation.csv").height == table.height


def test_what_learned_repetition_leaves_alone_is_not_read_again(matrix: Path, tiny_shop: Path) -> None:
    made = load_run(matrix / "runs" / "shop-0")
    stand = Stand.of(made, tiny_shop)
    base, net = stand.base(made.net), copy.deepcopy(made.net)
    net.page_evidence.attach(stand.likeness)
    torch.manual_seed(0)
    torch.nn.init.normal_(net.page_evidence.linear.weight)
    quick, slow = stand.figures(base, net, "repetition"), stand.figures(base, net, "all")
    plain = stand.figures(base, made.net, "nothing")
    for name, values in slow.items():
        assert np.array_equal(quick[name], values), name
    assert any((plain[name] != values).any() for name, values in slow.items())
    torch.nn.init.normal_(net.evidence.outer[-1].weight)
    quick, slow = stand.figures(base, net, "evidence"), stand.figures(base, net, "all")
    assert all(np.array_equal(quick[name], values) for name, values in slow.items())


def test_no_dial_turned_to_nothing_changes_the_order(matrix: Path) -> None:
    """The mildest position of every dial stands near the policy itself, the hardest repeats least."""
    table = pl.read_parquet(matrix / "ablation.parquet").filter(pl.col("seed").is_null() & (pl.col("part") == "test"))
    doubles = table.filter(pl.col("metric") == "near_duplicates@10")
    for dial in arms.DIALS:
        mild, hard = (
            doubles.filter(pl.col("arm") == f"{dial.name}.start.{value:g}")["mean"][0]
            for value in (dial.values[0], dial.values[-1])
        )
        assert hard <= mild


def test_the_page_and_the_claims_are_written(matrix: Path) -> None:
    html = (matrix / "ablation.html").read_text()
    assert "Accuracy against repetition" in html
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    saved = json.loads((matrix / "claims.json").read_text())
    assert saved["facts"]["command"].startswith("pagellm reproduce ablation ")
    assert {claim["claim"] for claim in saved["claims"]} >= {"rewards"}


def test_what_is_done_is_not_done_again(matrix: Path, tiny_shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in (matrix / "jobs").rglob("*.safetensors")}

    def never(*args: object, **more: object) -> None:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(ablation, "train_run", never)
    monkeypatch.setattr(ablation.Bench, "learned", never)
    assert run(command(tiny_shop, matrix)) == 0
    assert {path: path.stat().st_mtime_ns for path in (matrix / "jobs").rglob("*.safetensors")} == before


def test_names_of_folders_become_plain(tmp_path: Path) -> None:
    assert ablation.plain_name(tmp_path / "Amazon 2018: Büro/") == "amazon-2018-b-ro"
    assert ablation.plain_name(tmp_path / "shop_v1.2") == "shop_v1.2"


def test_bad_input_is_named(matrix: Path, tiny_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(tiny_shop, tmp_path / "a", "--only", "clams")) == 2
    assert "The group 'clams' is not known. Groups: controls" in capsys.readouterr().err
    assert run(command(tiny_shop, matrix, "--set", "ppo.group=4")) == 2
    assert "was begun with another settings" in capsys.readouterr().err
    assert run(command(tiny_shop, tmp_path / "c", str(tiny_shop))) == 2
    assert "Two data folders are named 'shop'" in capsys.readouterr().err
    assert run(command(tmp_path / "nothing", tmp_path / "b")) == 3
    assert not (tmp_path / "b").exists()
