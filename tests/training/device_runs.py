"""A tiny run on one device or another, and what two such runs have in common: the steps and, but for rounding, the figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pagellm.data.contexts import contexts_of
from pagellm.data.preferences.pairs import read_pairs
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.reward_files import load_rewards
from pagellm.models.run import PAIRS, load_run
from pagellm.training.alternatives import best_of_n, rejection_sampling
from pagellm.training.dpo import dpo, duels_of
from pagellm.training.pair_sources import known_since
from pagellm.training.ppo import ppo
from pagellm.types import Context, PageBatch
from training.test_ppo import FAST, stage
from training.test_renewal import trained as train_until

UNTIL = {"ppo": ("ppo.iterations=4", "ppo.learn=all"), "renew": ("ppo.iterations=2",)}


def trained(shop: Path, run: Path, until: str, *more: str, stop: tuple[str, int] | None = None) -> Path:
    """Trains, or goes on; `stop` leaves it at that step of that stage, as a kill would."""
    train_until(shop, run, until, *UNTIL[until], *more, stop=stop)
    return run


def close_figures(one: Path, other: Path, rel: float = 1e-3, but: str = "") -> None:
    """Both runs logged the same steps, with figures that differ by rounding: another order of sums is all that a device may bring.

    The stage `but` is left out: where pages are drawn, rounding may draw another."""
    ours, theirs = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other))
    assert [(line["stage"], line["step"]) for line in ours] == [(line["stage"], line["step"]) for line in theirs]
    for line, same in zip(ours, theirs, strict=True):
        for name, value in line.items() if line["stage"] != but else ():
            expected = value if isinstance(value, str | None) else pytest.approx(value, rel=rel, abs=rel / 10)
            assert same[name] == expected, (line["stage"], line["step"], name)


def composed(folder: Path) -> tuple[list[int], list[float]]:
    """(items of pages, the numbers behind them)."""
    run, items, numbers = load_run(folder), [], []
    log, some = run.split.log, slice(40, 52)
    context = Context(int(log.time.max()) + 1, log.item[some], log.event[some], np.sort(log.time[some]))
    for writing in (Writing(), Writing(hybrid=3), Writing(temperature=0.7)):
        policy = LanguagePolicy(run, writing=writing)
        page = policy.compose(context, np.random.default_rng(1))
        items += [slot.item for slot in page.slots]
        numbers += policy.log_prob(context, page).tolist()
        numbers += [n for parts in policy.parts(policy.draw([context]), page).values() for n in parts.values()]
        rewards, _ = load_rewards(run)
        slots = np.array([[slot.item for slot in page.slots]], np.int32)
        col = np.arange(slots.shape[1], dtype=np.int16)[None]
        batch = PageBatch(contexts_of([context]), np.zeros(1, np.int64), slots, np.zeros_like(col), col)
        rewards.caution, rewards.stepwise = 0.5, True
        numbers += rewards(batch)[0].tolist()
    return items, numbers


def never_tied(pages: PageBatch) -> np.ndarray:
    """A reward that no two pages share: between equals rounding would choose."""
    return np.asarray((np.sin(pages.items) / (1 + pages.col)).sum(1), np.float32)


def learned(folder: Path) -> dict[str, list[float]]:
    """Loss and gradient of each way of learning, in two iterations."""
    run = load_run(folder)
    config = FAST.model_copy(update={"iterations": 2, "kl_coef": 0.2, "learn": "evidence"})
    out: dict[str, list[float]] = {}
    for name in ("ppo", "grpo", "rloo", "grpo-slot", "rejection", "dpo"):
        told = config if name in ("rejection", "dpo") else config.model_copy(update={"algorithm": name})
        learner, contexts_of, desk, asked = stage(run, told)
        if name == "dpo":
            pairs = read_pairs(run.folder / PAIRS, run.catalog, run.split.log.user_ids, None)
            steps = dpo(learner, duels_of(run, pairs, known_since(run.split.log, None, run.catalog), desk, told, 0), told, 0)
        else:
            way = rejection_sampling if name == "rejection" else ppo
            steps = way(learner, contexts_of, never_tied, told, desk, 0)
        out[name] = [figure for step in steps for figure in (step.loss, step.grad_norm)]
    _, _, desk, asked = stage(run, config)
    pages = best_of_n(run.net, asked, desk, never_tied, 4, 1.0, np.random.default_rng(0))
    return out | {"best of n": pages.items.ravel().tolist()}
