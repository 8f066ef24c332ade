"""Over-optimization, planted: a proxy that is wrong on a quarter of the items is pushed until pages get worse; the guards stop before."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.config import PPOConfig
from pagellm.data.contexts import contexts_between
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.models.run import Run
from pagellm.training.canary import Sighting
from pagellm.training.learner import Learner
from pagellm.training.ppo import ppo
from pagellm.training.rollouts import Asked, Desk, ask, likeliest_pages
from pagellm.training.watch import Watch
from pagellm.types import F32, F64, I64, NO_ITEM, PageBatch
from tiny_run import fresh_run

SEEDS, SLOTS, ITEMS = 20, 4, 40
RARE = 4.0  # logits
CONFIG = PPOConfig(
    learn="page", iterations=40, contexts=16, group=8, candidates=ITEMS, minibatch=16, lr=2e-2, temperature=1.0, kl_coef=0.0,
    kl_target=0, canary_every=2, patience=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    run = fresh_run(small_catalog(), small_log())
    torch.nn.init.zeros_(run.net.page_head.weight)
    return run


@dataclass
class Planted:
    """What items are worth, and what the proxy believes: the same, but for a quarter, worth least and believed best. The reference hardly
    ever shows those, as a reward is wrong where it has seen little."""

    gold: F64
    proxy: F64
    wrong: I64
    rng: np.random.Generator

    @classmethod
    def draw(cls, seed: int) -> Planted:
        rng = np.random.default_rng(seed)
        gold = rng.random(ITEMS)
        wrong = rng.permutation(ITEMS)[: ITEMS // 4]
        gold[wrong] *= 0.1
        proxy = gold.copy()
        proxy[wrong] = 1 + 0.2 * rng.random(len(wrong))
        return cls(gold, proxy, wrong, rng)

    def reward(self, pages: PageBatch) -> F32:
        return np.where(pages.items == NO_ITEM, 0, self.proxy[pages.items]).astype(np.float32)

    def worth(self, pages: PageBatch) -> float:
        """True value of a slot."""
        return float(np.where(pages.items == NO_ITEM, 0, self.gold[pages.items]).mean())

    def feedback(self, pages: PageBatch) -> F64:
        """[page] what a canary sees of it: one engagement or none a slot."""
        chance = np.where(pages.items == NO_ITEM, 0, self.gold[pages.items])
        return (self.rng.random(chance.shape) < chance).mean(1)


def course(run: Run, seed: int) -> tuple[list[float], int]:
    """(true value at every look of a training without any guard, the look at which the guards keep the policy)."""
    planted = Planted.draw(seed)
    desk = Desk(compile_layout(Layout.single_row(SLOTS), run.catalog, int(1.6e9)), 20)
    every = contexts_between(run.split.log, int(1.5e9), int(1.6e9))
    reference = copy.deepcopy(run.net)
    with torch.no_grad():
        reference.bias[torch.from_numpy(planted.wrong)] -= RARE
    run = replace(run, net=reference)
    asked = ask(run, every.take(np.flatnonzero(every.warm)), np.zeros(ITEMS, np.int64), desk.rules, CONFIG.candidates)
    order = np.random.default_rng((seed, 1)).permutation(len(asked))
    learned, watched = asked.take(np.sort(order[::2])), asked.take(np.sort(order[1::2])[:200])
    net = copy.deepcopy(run.net)
    net.page_evidence.attach(run.likeness)

    def contexts_of(iteration: int) -> Asked:
        some = np.random.default_rng((seed, iteration)).choice(len(learned), CONFIG.contexts, replace=False)
        return learned.take(np.sort(some))

    learner, watch, true, kept = Learner.start(net, run.net, CONFIG, seed), Watch(CONFIG), [], 0
    at_first = planted.feedback(likeliest_pages(net, watched, desk))

    def look(step: int, kl: float, reward: float) -> int:
        pages = likeliest_pages(net, watched, desk)
        true.append(planted.worth(pages))
        if not watch.stopped:
            seen = planted.feedback(pages)
            value, error = float(seen.mean()), float((seen - at_first).std() / len(seen) ** 0.5)
            watch.see(Sighting(step, kl, reward, value, 0.0, 1.0, value, error))
        return watch.best

    look(0, 0.0, 0.0)
    for stats in ppo(learner, contexts_of, planted.reward, CONFIG, desk, seed):
        if stats.step % CONFIG.canary_every == 0:
            kept = look(stats.step, stats.kl, stats.reward)
    return true, kept


def test_the_canary_keeps_a_policy_from_before_the_fall(run: Run) -> None:
    true, kept = course(run, 0)
    assert true[kept] >= 0.95 * max(true)
    assert true[-1] < 0.9 * max(true), "how far it falls depends on the last bit of each sum, that it falls does not"


@pytest.mark.slow
def test_guarded_trainings_keep_the_peak_that_unguarded_ones_leave(run: Run) -> None:
    guarded, unguarded = [], []
    for seed in range(SEEDS):
        true, kept = course(run, seed)
        guarded.append(true[kept] / max(true))
        unguarded.append(true[-1] / max(true))
    assert min(guarded) >= 0.95, guarded
    assert sum(u < g for u, g in zip(unguarded, guarded, strict=True)) >= 15, unguarded
