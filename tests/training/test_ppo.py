"""Reinforcement learning: a planted reward is found, bad rewards are named, guards act, and what is resumed has the same bits."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.config import PPOConfig, resolve
from pagellm.data.contexts import contexts_between
from pagellm.errors import RunError, TrainingError
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.models.run import Run
from pagellm.pipeline import stage_config, train_run
from pagellm.training.canary import Sighting
from pagellm.training.later_feedback import LaterFeedback, look_ndcg
from pagellm.training.learner import Learner, NotFiniteError, set_rates
from pagellm.training.ppo import Stats, next_kl_coef, ppo
from pagellm.training.rollouts import Asked, Desk, ask, likeliest_pages
from pagellm.training.slot_rewards import Mixed, at_last_slot, slot_rewards
from pagellm.training.watch import Watch
from pagellm.types import F32, NO_ITEM, PageBatch, PageReward
from tiny_run import SETTINGS, fresh_run

SLOTS = 4
FAST = PPOConfig(
    learn="page",
    iterations=40,
    contexts=16,
    group=8,
    candidates=20,
    minibatch=16,
    lr=2e-2,
    temperature=1.0,
    kl_coef=0.0,
    kl_target=0,
)


@pytest.fixture(scope="module")
def run() -> Run:
    run = fresh_run(small_catalog(), small_log())
    torch.nn.init.zeros_(run.net.page_head.weight)
    return run


def stage(run: Run, config: PPOConfig, seed: int = 0) -> tuple[Learner, Callable[[int], Asked], Desk, Asked]:
    rules = compile_layout(Layout.single_row(SLOTS), run.catalog, int(1.6e9))
    desk = Desk(rules, 20)
    every = contexts_between(run.split.log, int(1.5e9), int(1.6e9))
    asked = ask(run, every.take(np.flatnonzero(every.warm)[::7]), np.zeros(40, np.int64), rules, config.candidates)
    net = copy.deepcopy(run.net)
    net.page_evidence.attach(run.likeness)

    def contexts_of(iteration: int) -> Asked:
        some = np.random.default_rng((seed, iteration)).choice(len(asked), config.contexts, replace=False)
        return asked.take(np.sort(some))

    return Learner.start(net, run.net, config, seed), contexts_of, desk, asked


def brands_differ(pages: PageBatch) -> F32:
    """Number of different brands on the page (items are of brand i % 3, so at most 3): no item has it, only a page."""
    return np.array([len(np.unique(items[items != NO_ITEM] % 3)) for items in pages.items], np.float32)


def one_theme(pages: PageBatch) -> F32:
    """1 for each slot with tea."""
    return ((pages.items % 4 == 0) & (pages.items != NO_ITEM)).astype(np.float32)


def tea_within_reach(run: Run) -> float:
    """Slots with tea on a page that takes all that its candidates hold of it: mean over contexts."""
    pool = stage(run, FAST)[-1].pool
    return float(np.minimum(((pool % 4 == 0) & (pool != NO_ITEM)).sum(1), SLOTS).mean())


def learned(run: Run, reward: PageReward, config: PPOConfig, seed: int = 0) -> tuple[float, float, list[Stats]]:
    learner, contexts_of, desk, asked = stage(run, config, seed)
    before = float(np.sum(slot_rewards(reward, likeliest_pages(run.net, asked, desk)).numpy(), 1).mean())
    stats = list(ppo(learner, contexts_of, reward, config, desk, seed))
    after = float(np.sum(slot_rewards(reward, likeliest_pages(learner.net, asked, desk)).numpy(), 1).mean())
    return before, after, stats


@pytest.mark.parametrize(
    "algorithm", ["ppo", "grpo-slot", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rloo", "grpo"))]
)
def test_a_reward_of_whole_pages_is_found(run: Run, algorithm: str) -> None:
    before, after, stats = learned(run, brands_differ, FAST.model_copy(update={"algorithm": algorithm}))
    assert before < 2.6
    assert after > 2.9, f"{before:.2f} -> {after:.2f}"
    assert stats[-1].reward > stats[0].reward + 0.3


def test_a_reward_of_slots_is_found(run: Run) -> None:
    before, after, stats = learned(run, one_theme, FAST)
    assert after > max(0.95 * tea_within_reach(run), before + 1)
    assert stats[-1].kl > 0.5


def test_a_high_price_keeps_the_policy_near_the_reference(run: Run) -> None:
    free, _, far = learned(run, one_theme, FAST)
    _, after, near = learned(run, one_theme, FAST.model_copy(update={"kl_coef": 5.0}))
    assert near[-1].kl < far[-1].kl / 4
    assert after < free + 2


def test_everything_can_be_trained(run: Run) -> None:
    config = FAST.model_copy(update={"learn": "all", "context_lr": 1e-3, "iterations": 2})
    learner, contexts_of, desk, _ = stage(run, config)
    list(ppo(learner, contexts_of, one_theme, config, desk, 0))
    changed = {n for n, p in learner.net.named_parameters() if not torch.equal(p, dict(run.net.named_parameters())[n])}
    assert {"ids.weight", "evidence.inner.weight", "page_head.weight", "page_evidence.linear.weight"} <= changed
    config = FAST.model_copy(update={"learn": "repetition", "iterations": 2})
    page_only, contexts_of, desk, _ = stage(run, config)
    list(ppo(page_only, contexts_of, one_theme, config, desk, 0))
    changed = {n for n, p in page_only.net.named_parameters() if not torch.equal(p, dict(run.net.named_parameters())[n])}
    assert changed
    assert all(name.startswith("page_evidence") for name in changed)


@pytest.mark.parametrize(("learn", "rests"), [("repetition", True), ("evidence", True), ("page", False), ("all", False)])
def test_a_language_model_that_rests_is_read_once_and_says_the_same(
    run: Run, learn: Literal["repetition", "evidence", "page", "all"], rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, found = FAST.model_copy(update={"learn": learn, "iterations": 2}), []
    for never in (False, True):
        learner, contexts_of, desk, _ = stage(run, config)
        assert learner.rests == rests
        if never:
            monkeypatch.setattr(Learner, "rests", False)
        stats = list(ppo(learner, contexts_of, one_theme, config, desk, 0))[-1]
        found.append((stats.policy_loss, stats.value_loss, stats.kl, stats.grad_norm))
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-5)


def test_equal_seeds_give_equal_bits(run: Run) -> None:
    config = FAST.model_copy(update={"iterations": 3})
    found = []
    for seed in (0, 0, 1):
        learner, contexts_of, desk, _ = stage(run, config, seed)
        found.append(
            (list(ppo(learner, contexts_of, one_theme, config, desk, seed)), learner.net.page_evidence.linear.weight.detach())
        )
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


def test_a_reward_of_another_shape_is_named(run: Run) -> None:
    with pytest.raises(TrainingError, match=r"one number a page, shape \((\d+),\), or one a slot, shape \(\1, 4\)\. Got \(3,\)"):
        learned(run, lambda pages: np.zeros(3, np.float32), FAST)


def test_updates_that_are_not_finite_are_skipped_and_then_end_it(run: Run) -> None:
    config = FAST.model_copy(update={"iterations": 4, "ppo_epochs": 1, "minibatch": 4})
    learner, contexts_of, desk, _ = stage(run, config)
    weights = copy.deepcopy(learner.net.state_dict())
    with pytest.raises(NotFiniteError, match="3 updates in a row were not finite, at iteration 1"):
        list(ppo(learner, contexts_of, lambda pages: np.full(len(pages), np.nan, np.float32), config, desk, 0))
    assert all(torch.equal(value, weights[name]) for name, value in learner.net.state_dict().items())


def test_a_reference_over_other_items_is_refused(run: Run) -> None:
    other = fresh_run(small_catalog(44), small_log())
    with pytest.raises(TrainingError, match="pages of 40 items and its reference of 44"):
        Learner.start(copy.deepcopy(run.net), other.net, FAST, 0)


def test_pages_that_leave_nothing_to_choose_end_it_in_words(run: Run) -> None:
    config = FAST.model_copy(update={"candidates": 2})
    learner, _, desk, asked = stage(run, config)
    lone = Asked(asked.contexts, np.where(np.arange(asked.pool.shape[1]) == 0, asked.pool, NO_ITEM), asked.evidence)
    with pytest.raises(TrainingError, match=r"iteration 1 there was a slot with two candidates .*raise ppo\.candidates"):
        next(ppo(learner, lambda iteration: lone.take(np.arange(16)), one_theme, config, desk, 0))


def test_one_bad_iteration_does_no_harm(run: Run) -> None:
    config = FAST.model_copy(update={"iterations": 3, "ppo_epochs": 1})
    learner, contexts_of, desk, _ = stage(run, config)
    calls = []

    def sometimes(pages: PageBatch) -> F32:
        calls.append(0)
        return np.full(len(pages), np.inf, np.float32) if len(calls) == 2 else brands_differ(pages)

    stats = list(ppo(learner, contexts_of, sometimes, config, desk, 0))
    assert [s.skipped for s in stats] == [0, 1, 0]
    assert all(bool(p.isfinite().all()) for p in learner.net.parameters())


def test_rewards_of_pages_stand_at_their_last_filled_slot(run: Run) -> None:
    asked = stage(run, FAST)[3]
    items = np.array([[1, 2, NO_ITEM, NO_ITEM], [NO_ITEM] * 4, [1, 2, 3, 4]], np.int32)
    where = np.zeros((2, 3, 4), np.int16)
    batch = PageBatch(asked.contexts, np.zeros(3, np.int64), items, *where)
    assert at_last_slot(np.array([1, 2, 3], np.float32), batch).tolist() == [[0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 3]]
    mixed = Mixed([(2.0, one_theme), (0.5, brands_differ)])(batch)
    assert mixed.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2 + 0.5 * 3]]  # i4 is tea


def test_later_feedback_is_ndcg(run: Run) -> None:
    from pagellm.data.look import Look

    asked = stage(run, FAST)[3]
    target = np.unique(asked.contexts.target(0))
    other = next(i for i in range(40) if i not in target)
    items = np.array([[other, target[0], target[0], other]], np.int32)
    batch = PageBatch(
        asked.contexts, np.zeros(1, np.int64), items, np.zeros((1, 4), np.int16), np.arange(4, dtype=np.int16)[None]
    )
    ideal = sum(1 / np.log2(r + 2) for r in range(min(len(target), 4)))
    assert look_ndcg(batch, Look())[0].tolist() == pytest.approx([0, 1 / np.log2(3) / ideal, 0, 0])
    assert LaterFeedback(Look())(batch).shape == (1, 4)


def test_the_price_follows_the_distance() -> None:
    config = PPOConfig(kl_target=4.0, kl_gain=0.5)
    assert next_kl_coef(0.1, 4.0, config) == 0.1
    assert next_kl_coef(0.1, 40.0, config) == pytest.approx(0.11)
    assert next_kl_coef(0.1, 0.0, config) == pytest.approx(0.09)
    assert next_kl_coef(0.1, 40.0, PPOConfig(kl_target=0)) == 0.1


def test_learning_rates_rise_and_then_fall_along_a_line(run: Run) -> None:
    for warmup, rates in ((4, [0.25, 0.5 * 0.91, 0.75 * 0.82, 0.73, 0.64]), (0, [1.0, 0.91, 0.82, 0.73, 0.64])):
        config = FAST.model_copy(update={"learn": "all", "iterations": 10, "warmup": warmup})
        learner = stage(run, config)[0]
        found = []
        for learner.step in range(5):
            set_rates(learner, config)
            found.append([group["lr"] for group in learner.optimizer.param_groups])
        np.testing.assert_allclose(found, np.outer(rates, [config.lr, config.context_lr]))


def sighting(step: int, value: float, **more: float) -> Sighting:
    return Sighting(
        step, **{"kl": 1.0, "reward": 0.1 * step, "hits": 0.1, "duplicates": 0.4, "distinct": 1.0, **more}, value=value
    )


def test_the_watch_keeps_the_best_and_stops_in_words() -> None:
    watch = Watch(PPOConfig(patience=2, collapse=0.1))
    assert [watch.see(sighting(s, v)) for s, v in ((0, 1.0), (5, 1.1), (10, 1.05))] == [True, True, False]
    assert not watch.stopped
    watch.see(sighting(15, 1.04))
    assert "was below its best for 2 looks" in watch.stopped
    health, cause, following = watch.verdict
    assert (health, watch.curve[watch.best].step) == ("watch", 5)
    assert "over-optimized" in cause
    assert "iteration 5" in following
    collapsed = Watch(PPOConfig(collapse=0.1))
    collapsed.see(sighting(0, 1.0))
    collapsed.see(sighting(5, 1.2, distinct=0.01))
    assert collapsed.verdict[0] == "sick"
    assert collapsed.best == 0, "a policy that writes one page for all is not kept, whatever its value"
    assert "collapsed: 1.0% of the pages" in collapsed.stopped
    useless = Watch(PPOConfig())
    useless.see(sighting(0, 1.0))
    useless.see(sighting(5, 0.9, error=0.04))
    assert useless.verdict[0] == "sick"
    assert "policy at the start is kept" in useless.verdict[2]
    unsure = Watch(PPOConfig())
    unsure.see(sighting(0, 1.0))
    unsure.see(sighting(5, 0.9, error=0.06))
    assert unsure.verdict[0] == "watch"
    assert "though not surely at the end (0.9000, 1.96 standard errors are 0.1176)" in unsure.verdict[1]
    assert "policy at the start is kept" in unsure.verdict[2]


def test_what_was_learned_is_kept_where_it_cannot_be_told_from_the_best_and_not_where_it_is_lower() -> None:
    rising = Watch(PPOConfig())
    looks = ((0, 1.0, 0.0), (5, 1.2, 0.03), (10, 1.18, 0.03), (15, 1.16, 0.03), (20, 1.16, 0.05))
    assert [rising.see(sighting(step, value, error=error)) for step, value, error in looks] == [True, True, True, False, True]
    watch = Watch(PPOConfig())
    looks = ((0, 1.0, 0.0), (5, 0.96, 0.03), (10, 0.98, 0.03), (15, 0.96, 0.03), (20, 0.99, 0.03))
    assert [watch.see(sighting(step, value, error=error)) for step, value, error in looks] == [True, False, True, False, True]
    health, cause, following = watch.verdict
    assert health == "watch"
    assert "do not tell what was learned from the start: the page value went from 1.0000 to 0.9900 ± 0.0588" in cause
    assert "iteration 20 is kept" in following


PPO = (
    *SETTINGS, "reward.min_steps=20", "split.reward_at=0.6", "ppo.iterations=12", "ppo.contexts=8", "ppo.group=4", "ppo.candidates=20",
    "ppo.canary_every=3", "ppo.patience=9", "pairs.slots=4", "split.held_out=0.3",
)  # fmt: skip


def trained(shop: Path, run: Path, *more: str, steps: int | None = None, resume: bool = False) -> list[object]:
    """Trains until ppo; `steps` leaves the training there, as a kill would."""
    config = stage_config("ppo", "tiny", [*PPO, *more], 0)
    training = train_run(shop, run, config, resume=resume, tell=lambda line: None, until="ppo")
    out = []
    for step in training:
        out.append(step)
        if steps is not None and step.stage == "ppo" and step.step >= steps:
            training.close()
            break
    return out


@pytest.fixture(scope="module")
def run_with_ppo(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("ppo") / "run"
    trained(tiny_shop, run, "sft.checkpoint_s=0")
    return run


def test_a_stage_that_is_left_anywhere_goes_on_to_the_same_bits(tiny_shop: Path, run_with_ppo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begun = False
    for steps in (1, 4, 5, 9, 12):
        trained(tiny_shop, run, "sft.checkpoint_s=0", steps=steps, resume=begun)
        begun = True
        metrics = run / "metrics.jsonl"
        metrics.write_bytes(metrics.read_bytes() + b'{"stage": "ppo", "st')  # a line that a kill cut off
    trained(tiny_shop, run, "sft.checkpoint_s=0", resume=True)
    names = ("ppo.safetensors", "ppo.json", "metrics.jsonl", "policy.safetensors", "reward.safetensors")
    for name in names:
        assert (run / name).read_bytes() == (run_with_ppo / name).read_bytes(), name
    assert {p.name for p in run.iterdir()} == {p.name for p in run_with_ppo.iterdir()}


def test_a_training_that_was_stopped_and_then_killed_learns_nothing_more(tiny_shop: Path, tmp_path: Path) -> None:
    settings = ("sft.checkpoint_s=0", "ppo.canary_every=1", "ppo.kl_budget=0.001", "ppo.kl_coef=0")
    trained(tiny_shop, tmp_path / "whole", *settings)
    facts = json.loads((tmp_path / "whole" / "ppo.json").read_text())
    last = facts["curve"][-1]["step"]
    assert "budget of 0.001 nats" in facts["stopped"]
    trained(tiny_shop, tmp_path / "killed", *settings, steps=last)
    assert not trained(tiny_shop, tmp_path / "killed", *settings, resume=True)
    for name in ("ppo.safetensors", "ppo.json", "metrics.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_with_ppo_serves_it_and_keeps_the_reference(run_with_ppo: Path) -> None:
    from pagellm.composition import compose_for
    from pagellm.models.run import load_run

    run = load_run(run_with_ppo)
    assert run.tuned is not None
    facts = json.loads((run_with_ppo / "ppo.json").read_text())
    assert facts["curve"][0]["step"] == 0
    assert facts["health"] in ("healthy", "watch", "sick")
    pages = {stage: compose_for(run, user="u3", slots=6, stage=stage) for stage in ("sft", "ppo")}
    assert [p.facts["policy"] for p in pages.values()] == ["pagellm, sft", "pagellm, ppo"]
    assert compose_for(run, user="u3", slots=6).pages == pages["ppo"].pages
    assert {len(p.pages[0].items) for p in pages.values()} == {6}


def test_a_finished_run_has_nothing_to_do_and_a_run_with_rewards_goes_on(
    tiny_shop: Path, run_with_ppo: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    config = stage_config("ppo", "tiny", [*PPO, "sft.checkpoint_s=0"], 0)
    for _ in train_run(tiny_shop, run_with_ppo, config, resume=True, tell=said.append, until="ppo"):
        pass
    assert "nothing to do" in said[-1]
    other = stage_config("ppo", "tiny", [*PPO, "sft.checkpoint_s=0", "ppo.warmup=1"], 0)
    with pytest.raises(RunError, match="was begun with other settings in: ppo"):
        list(train_run(tiny_shop, run_with_ppo, other, resume=True, tell=said.append, until="ppo"))
    run = tmp_path / "run"
    shutil.copytree(run_with_ppo, run)
    for name in ("ppo.safetensors", "ppo.json", "manifest.json"):
        (run / name).unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(line for line in lines if b'"stage": "ppo"' not in line))
    steps = trained(tiny_shop, run, "sft.checkpoint_s=0", resume=True)
    assert {step.stage for step in steps} == {"ppo"}
    assert (run / "ppo.safetensors").read_bytes() == (run_with_ppo / "ppo.safetensors").read_bytes()


def test_what_is_to_come_may_have_other_settings(tiny_shop: Path, run_with_ppo: Path, tmp_path: Path) -> None:
    from pagellm.models.run import load_run

    run = tmp_path / "run"
    shutil.copytree(run_with_ppo, run)
    (run / "manifest.json").unlink()
    with pytest.raises(RunError, match="other settings in: ppo"):
        trained(tiny_shop, run, "sft.checkpoint_s=0", "ppo.lr=1e-4", resume=True)
    for name in ("ppo.safetensors", "ppo.json"):
        (run / name).unlink()
    trained(tiny_shop, run, "sft.checkpoint_s=0", "ppo.lr=1e-4", resume=True)
    assert load_run(run).config.ppo.lr == 1e-4
    (run / "manifest.json").unlink()
    with pytest.raises(RunError, match="other settings in: reward"):
        trained(tiny_shop, run, "sft.checkpoint_s=0", "ppo.lr=1e-4", "reward.lr=1e-4", resume=True)


def test_settings_are_bounded() -> None:
    assert resolve("tiny", ["ppo.algorithm=grpo"]).ppo.algorithm == "grpo"
