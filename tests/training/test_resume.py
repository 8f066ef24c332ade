"""A training that is killed anywhere and resumed ends with the very bits of one that was left alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.small_shop import small_catalog, small_log
from pagellm.config import resolve
from pagellm.errors import RunError, UsageError
from pagellm.pipeline import train_run

SETTINGS = [
    "threads=1",
    "sft.checkpoint_s=0.05",
    "sft.epochs=12",
    "sft.batch=16",
    "sft.min_steps=0",
    "sft.head_min_steps=60",
    "model.dims=32",
]


PAGES = [
    "--until",
    "renew",
    *(
        part
        for setting in (
            *("split.reward_at=0.6", "split.valid_at=0.75", "split.held_out=0.5", "pairs.slots=4", "reward.min_steps=20"),
            *("ppo.iterations=20", "ppo.contexts=8", "ppo.group=4", "ppo.candidates=20", "ppo.canary_every=4", "ppo.patience=9"),
        )
        for part in ("--set", setting)
    ),
]
"""What leads on to rewards, pages and a policy that is fitted on."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of the small shop."""
    folder = tmp_path_factory.mktemp("shop")
    log, catalog = small_log(80), small_catalog()
    catalog.frame.write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": log.user_ids[log.user],
            "item_id": [f"i{i}" for i in log.item],
            "timestamp": log.time,
            "basket_index": log.basket,
        }
    ).write_parquet(folder / "interactions.parquet")
    return folder


def command(shop: Path, run: Path, *more: str) -> list[str]:
    """The command line of one training."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [sys.executable, "-m", "pagellm", "train", str(shop), "--run", str(run), "--profile", "tiny", *settings, *more]


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of what must not depend on interruptions."""
    names = ("policy.safetensors", "metrics.jsonl", "config.json", "card.json", "content.safetensors")
    later = [
        name
        for name in ("pairs.parquet", "reward.safetensors", "reward.json", "ppo.safetensors", "ppo.json", "renewed.safetensors")
        if (run / name).exists()
    ]
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in (*names, *later)}


def train_alone(shop: Path, run: Path, *more: str) -> dict[str, str]:
    """An unbroken training in a process of its own."""
    subprocess.run(command(shop, run, *more), check=True, capture_output=True)
    return digests(run)


def killed_after(shop: Path, run: Path, lines: int, *more: str) -> bool:
    """Starts a training and kills it once its metrics have this many lines; False if it ended before."""
    process = subprocess.Popen(command(shop, run, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics = run / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    assert process.returncode == 0, process.stderr.read().decode() if process.stderr else ""
    return False


@pytest.fixture(scope="module")
def unbroken(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], int]:
    """Digests of an unbroken run and the number of its steps."""
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    found = train_alone(shop, run)
    return found, (run / "metrics.jsonl").read_bytes().count(b"\n")


def check_kills(
    shop: Path, folder: Path, unbroken: tuple[dict[str, str], int], kills: int, seed: int, *until: str, first: int = 1
) -> None:
    """Kills a training that often, at lines of its metrics from `first` on, and lets it end."""
    expected, steps = unbroken
    rng = np.random.default_rng(seed)
    run = folder / "killed"
    survived = 0
    for place in np.sort(rng.integers(first, steps, kills)):
        more = ["--resume"] if run.exists() else []
        survived += not killed_after(shop, run, int(place), *until, *more)
    subprocess.run(command(shop, run, "--resume", *until), check=True, capture_output=True)
    assert survived <= kills // 2, "most kills must have hit a running training"
    assert digests(run) == expected


def test_three_kills_change_no_bit(shop: Path, tmp_path: Path, unbroken: tuple[dict[str, str], int]) -> None:
    check_kills(shop, tmp_path, unbroken, 3, seed=1)


@pytest.fixture(scope="module")
def unbroken_pages(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], int, int]:
    """The same of a run that goes on to all later stages, and how many of its steps come before them."""
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    found = train_alone(shop, run, *PAGES)
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["lm", "head", "refresh", "reward", "ppo", "renewed head", "renewed refresh"]
    return found, len(stages), stages.index("reward")


def test_five_kills_in_later_stages_change_no_bit(
    shop: Path, tmp_path: Path, unbroken_pages: tuple[dict[str, str], int, int]
) -> None:
    found, steps, first = unbroken_pages
    assert {"ppo.safetensors", "renewed.safetensors"} <= set(found)
    check_kills(shop, tmp_path, (found, steps), 5, 2, *PAGES, first=first)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_fifty_kills_anywhere_change_no_bit(
    shop: Path, tmp_path: Path, unbroken_pages: tuple[dict[str, str], int, int], seed: int
) -> None:
    check_kills(shop, tmp_path, unbroken_pages[:2], 5, 200 + seed, *PAGES)


@pytest.mark.slow
def test_two_threads_give_the_same_bits_each_time(shop: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        subprocess.run(command(shop, tmp_path / name, "--set", "threads=2"), check=True, capture_output=True)
        found.append(digests(tmp_path / name))
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_twenty_kills_change_no_bit(shop: Path, tmp_path: Path, unbroken: tuple[dict[str, str], int], seed: int) -> None:
    check_kills(shop, tmp_path, unbroken, 4, seed=100 + seed)


def start(shop: Path, run: Path, steps: int, *more: str) -> None:
    """Trains a few steps and stops."""
    training = train_run(shop, run, resolve("tiny", [*SETTINGS, *more]), tell=lambda line: None)
    for _ in range(steps):
        next(training)
    training.close()


def test_resuming_with_other_settings_or_data_is_refused(shop: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(shop, run, 3)
    with pytest.raises(RunError, match=r"other settings in: seed"):
        next(train_run(shop, run, resolve("tiny", SETTINGS, seed=1), resume=True, tell=lambda line: None))
    other = tmp_path / "other"
    other.mkdir()
    for path in shop.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    frame = pl.read_parquet(shop / "interactions.parquet")
    frame.head(len(frame) - 1).write_parquet(other / "interactions.parquet")
    with pytest.raises(RunError, match="fingerprint"):
        next(train_run(other, run, resolve("tiny", SETTINGS), resume=True, tell=lambda line: None))


def test_a_folder_with_something_in_it_is_not_written_over(shop: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(shop, run, 3)
    before = (run / "config.json").read_bytes()
    with pytest.raises(UsageError, match="--resume"):
        next(train_run(shop, run, resolve("tiny", SETTINGS, seed=5), tell=lambda line: None))
    assert (run / "config.json").read_bytes() == before


def test_a_checkpoint_that_is_cut_short_is_told(shop: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(shop, run, 4, "sft.checkpoint_s=0")
    path = run / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="cannot be read"):
        next(train_run(shop, run, resolve("tiny", [*SETTINGS, "sft.checkpoint_s=0"]), resume=True, tell=lambda line: None))


def test_metrics_say_what_happened(shop: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for _ in train_run(shop, run, resolve("tiny", SETTINGS), tell=lambda line: None):
        pass
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["stage"] == "lm"] == list(range(1, rows[0]["steps"] + 1))
    assert {r["stage"] for r in rows} == {"lm", "head", "refresh"}
    losses = [r["loss"] for r in rows if r["stage"] == "lm"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
