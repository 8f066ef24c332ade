"""Runs that are judged together: seeds of one configuration on one log, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pagellm.cli.main import run
from pagellm.comparing import check_seeds
from pagellm.models.run import finish


def like(original: Path, folder: Path, seed: int, **changes: dict[str, object]) -> Path:
    """A copy of a run that says it was trained with another seed, and other things about it."""
    shutil.copytree(original, folder)
    config = json.loads((folder / "config.json").read_text())
    config["seed"] = seed
    for part, settings in changes.items():
        if part == "data":
            facts = json.loads((folder / "data.json").read_text())
            (folder / "data.json").write_text(json.dumps(facts | settings))
        else:
            config[part] |= settings
    (folder / "config.json").write_text(json.dumps(config))
    finish(folder)
    return folder


def test_seeds_are_read_from_the_runs(tiny_run: Path, tmp_path: Path) -> None:
    assert check_seeds([tiny_run, like(tiny_run, tmp_path / "b", 5)]) == [0, 5]


@pytest.mark.parametrize(
    ("seed", "changes", "code", "words"),
    [
        (1, {"sft": {"epochs": 9}}, 1, "trained with other settings in: sft"),
        (1, {"data": {"fingerprint": "0" * 64, "name": "elsewhere"}}, 1, "made from different data"),
        (0, {}, 2, "trained with seed 0, so they are one"),
    ],
)
def test_other_runs_are_refused(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seed: int,
    changes: dict[str, dict[str, object]],
    code: int,
    words: str,
) -> None:
    other = like(tiny_run, tmp_path / "b", seed, **changes)
    assert run(["evaluate", str(tiny_run), str(other), "--against", "popularity"]) == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_two_seeds_are_one_method_whose_intervals_draw_both(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, told = like(tiny_run, tmp_path / "b", 1), tmp_path / "told.json"
    assert run(["evaluate", str(tiny_run), str(other), "--against", "popularity", "--json", str(told)]) == 0
    assert "95 % intervals over users and 2 training seeds" in " ".join(capsys.readouterr().out.split())
    figures = json.loads(told.read_text())
    assert figures["card"]["seeds"] == [0, 1]
    assert set(figures["methods"]) == {"pagellm", "popularity"}
    assert figures["pages"]["rules"]["methods"]["pagellm"]["violations_served"]["mean"] == 0
    assert figures["pages"]["rules"]["methods"]["pagellm"]["order_sensitivity"]["mean"] == 0
    single = figures["pages"]["methods"]["pagellm"]["page_ndcg"]["mean"]
    assert single == pytest.approx(figures["methods"]["pagellm"]["ndcg@10"]["mean"], rel=1e-9)  # one row, no rules
