"""What stands beside PPO finds planted rewards and preferences, and leaves out what no policy writes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.config import PairConfig, PPOConfig
from pagellm.data.preferences.pairs import Family, Operator, Pairs
from pagellm.errors import TrainingError
from pagellm.layout.masks import PageMasks
from pagellm.models.decoding import Forced, Writing, write_pages
from pagellm.models.page_scorer import PageScorer
from pagellm.models.run import Run
from pagellm.training.alternatives import best_of_n, best_of_n_kl, kept_of, rejection_sampling
from pagellm.training.dpo import Duels, dpo, duel_logprobs, duels_of, united
from pagellm.training.learner import Learner, NotFiniteError
from pagellm.training.losses import dpo_loss
from pagellm.training.pair_sources import PairSource, known_since, mine_source, policy_candidates
from pagellm.training.rollouts import likeliest_pages, write, write_rollout
from pagellm.training.slot_rewards import slot_rewards
from pagellm.types import F32, NO_ITEM, Contexts, Event, PageBatch, PageReward
from tiny_run import fresh_run, wake_page
from training.test_ppo import FAST, SLOTS, brands_differ, one_theme, stage, tea_within_reach

KNOWN = np.zeros(40, np.int64)
DPO = FAST.model_copy(update={"iterations": 20, "kl_coef": 0.2, "minibatch": 8})


@pytest.fixture(scope="module")
def run() -> Run:
    run = fresh_run(small_catalog(), small_log())
    torch.nn.init.zeros_(run.net.page_head.weight)
    return run


def worth(reward: PageReward, pages: PageBatch) -> float:
    """Mean over pages."""
    return float(slot_rewards(reward, pages).sum(1).mean())


def best(run: Run, n: int, reward: PageReward = one_theme, seed: int = 0) -> PageBatch:
    _, _, desk, asked = stage(run, FAST)
    return best_of_n(run.net, asked, desk, reward, n, 1.0, np.random.default_rng(seed))


def test_more_draws_have_a_better_best_page(run: Run) -> None:
    found = [worth(one_theme, best(run, n)) for n in (1, 8, 32)]
    assert found[1] > found[0] + 0.5
    assert found[2] > found[1] + 0.2
    assert worth(brands_differ, best(run, 16, brands_differ)) > 2.95


def test_the_best_of_one_is_a_plain_draw_and_the_first_of_equals_is_taken(run: Run) -> None:
    _, _, desk, asked = stage(run, FAST)
    plain = write(run.net, asked, desk, 1, Writing(1.0), np.random.default_rng(0))[1]
    assert np.array_equal(best(run, 1).items, plain.items)
    three = write(run.net, asked, desk, 3, Writing(1.0), np.random.default_rng(0))[1]
    same = best(run, 3, lambda pages: np.ones(len(pages), np.float32))
    assert np.array_equal(same.items, three.items[::3])
    assert same.place.tolist() == list(range(len(asked)))
    assert np.array_equal(best(run, 3).items, best(run, 3).items)
    assert not np.array_equal(best(run, 3).items, best(run, 3, seed=1).items)


def test_what_no_best_page_can_be_found_for_is_named(run: Run) -> None:
    with pytest.raises(TrainingError, match=r"n of at least 1\. Got 0"):
        best(run, 0)
    with pytest.raises(TrainingError, match="not finite, so no page can be the best"):
        best(run, 2, lambda pages: np.full(len(pages), np.nan, np.float32))


def test_distance_of_the_best_of_n_by_brute_force() -> None:
    assert best_of_n_kl(1) == 0
    for n, pages in ((2, 2_000), (8, 2_000), (8, 10)):
        below = (np.arange(pages + 1) / pages) ** n  # chance that the best is among so many worst pages, all equally likely
        chance = np.diff(below)
        exact = float((chance * np.log(chance * pages)).sum())
        assert exact <= best_of_n_kl(n)
        if pages > 1_000:
            assert exact == pytest.approx(best_of_n_kl(n), abs=0.01)
    assert best_of_n_kl(8) == pytest.approx(math.log(8) - 7 / 8)


@pytest.mark.parametrize("reward", [brands_differ, one_theme])
def test_rejection_sampling_finds_rewards(run: Run, reward: PageReward) -> None:
    least = 2.9 if reward is brands_differ else 0.95 * tea_within_reach(run)
    config = FAST.model_copy(update={"iterations": 20})
    learner, contexts_of, desk, asked = stage(run, config)
    before = worth(reward, likeliest_pages(run.net, asked, desk))
    stats = list(rejection_sampling(learner, contexts_of, reward, config, desk, 0))
    after = worth(reward, likeliest_pages(learner.net, asked, desk))
    assert before < least - 0.2
    assert after > least, f"{before:.2f} -> {after:.2f}"
    assert stats[-1].reward > stats[0].reward + 0.3
    assert (stats[-1].stage, stats[-1].step, stats[-1].kl > 0.1) == ("rejection", 20, True)


def test_rejection_sampling_has_equal_bits_for_equal_seeds(run: Run) -> None:
    config, found = FAST.model_copy(update={"iterations": 2}), []
    for seed in (0, 0, 1):
        learner, contexts_of, desk, _ = stage(run, config, seed)
        stats = list(rejection_sampling(learner, contexts_of, one_theme, config, desk, seed))
        found.append((stats, learner.net.page_evidence.linear.weight.detach()))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


def test_rejection_sampling_shares_the_guard(run: Run) -> None:
    config = FAST.model_copy(update={"iterations": 3, "ppo_epochs": 1})
    learner, contexts_of, desk, _ = stage(run, config)
    calls = []

    def sometimes(pages: PageBatch) -> F32:
        calls.append(0)
        return np.full(len(pages), np.nan, np.float32) if len(calls) == 2 else brands_differ(pages)

    assert [s.skipped for s in rejection_sampling(learner, contexts_of, sometimes, config, desk, 0)] == [0, 1, 0]
    assert all(bool(p.isfinite().all()) for p in learner.net.parameters())
    learner = stage(run, config)[0]
    with pytest.raises(NotFiniteError, match="3 updates in a row were not finite, at iteration 3"):
        list(rejection_sampling(learner, contexts_of, lambda pages: np.full(len(pages), np.inf, np.float32), config, desk, 0))


def test_the_kept_page_is_the_best_less_the_price_of_distance(run: Run) -> None:
    learner, contexts_of, desk, _ = stage(run, FAST)
    wake_page(learner.net, run)
    rollout = write_rollout(learner.net, learner.reference, contexts_of(0), desk, FAST.group, 1.0, np.random.default_rng(0))
    rewards = slot_rewards(one_theme, rollout.batch).view(rollout.logprobs.shape)
    far = (rollout.logprobs - rollout.reference).sum(-1)
    for kl_coef, totals in ((0.0, rewards.sum(-1)), (1e6, -far)):
        learner.kl_coef = kl_coef
        told = kept_of(learner, rollout, rewards, FAST)
        kept = told.advantages[..., 0] == 1
        assert kept.sum(1).tolist() == [1] * len(kept)
        assert torch.equal(totals[kept], totals.max(1).values)
        assert float(told.advantages.sum()) == len(kept) * SLOTS
        assert kept.float().argmax(1).tolist() == totals.numpy().argmax(1).tolist()


def pairs_of(contexts: Contexts, chosen: np.ndarray, rejected: np.ndarray) -> Pairs:
    """One pair for each context, of pages in one row."""
    n, small = len(contexts), np.zeros(len(contexts), np.int8)
    ones, col = np.ones(n, np.float32), np.where(chosen == NO_ITEM, NO_ITEM, np.arange(chosen.shape[1]))
    return Pairs(
        contexts.user, contexts.time, np.full(n, -1), chosen.astype(np.int32), rejected.astype(np.int32),
        np.where(chosen == NO_ITEM, NO_ITEM, 0).astype(np.int16), col.astype(np.int16), small + Family.DIVERSITY,
        small + Operator.THEME, ones, ones, chosen[:, 0].astype(np.int32), small + Event.INTERACTION, ones, ones * 0,
    )  # fmt: skip


def planted(run: Run, config: PPOConfig, held: bool, seed: int = 0) -> Duels:
    """Pages of tea are chosen over others. `held` are users that the others are not."""
    _, _, desk, asked = stage(run, config)
    contexts = asked.contexts.take(np.flatnonzero((asked.contexts.user % 4 == 0) == held))
    rng, tea, other = np.random.default_rng(seed), np.arange(0, 40, 4), np.flatnonzero(np.arange(40) % 4)
    pages = [np.stack([rng.choice(some, SLOTS, replace=False) for _ in range(len(contexts))]) for some in (tea, other)]
    return duels_of(run, pairs_of(contexts, *pages), KNOWN, desk, config, 0)


def judged(learner: Learner, duels: Duels) -> tuple[float, float]:
    """(loss, mean margin)."""
    with torch.no_grad():
        ours, theirs = duel_logprobs(learner.net, learner.reference, duels, DPO.temperature)
    loss = dpo_loss(ours[:, 0], ours[:, 1], theirs[:, 0], theirs[:, 1], duels.weight, DPO.kl_coef)
    gained = ours - theirs
    return float(loss), float((gained[:, 0] - gained[:, 1]).mean())


def test_dpo_finds_a_preference_and_what_it_learns_holds_for_other_users(run: Run) -> None:
    learner, _, desk, asked = stage(run, DPO)
    held = planted(run, DPO, held=True)
    before = judged(learner, held), worth(one_theme, likeliest_pages(run.net, asked, desk))
    stats = list(dpo(learner, planted(run, DPO, held=False), DPO, 0))
    after = judged(learner, held), worth(one_theme, likeliest_pages(learner.net, asked, desk))
    assert before[0] == pytest.approx((math.log(2), 0.0), abs=1e-4)
    assert stats[-1].loss < stats[0].loss - 0.3
    assert after[0][0] < math.log(2) - 0.3
    assert after[0][1] > 5
    assert stats[-1].won > 0.9
    assert after[1] > before[1] + 1
    assert {s.skipped for s in stats} == {0}


def test_dpo_has_equal_bits_for_equal_seeds(run: Run) -> None:
    config, found = DPO.model_copy(update={"iterations": 2}), []
    for seed in (0, 0, 1):
        learner = stage(run, config, seed)[0]
        stats = list(dpo(learner, planted(run, config, held=False), config, seed))
        found.append((stats, learner.net.page_evidence.linear.weight.detach()))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_pages_of_pairs_have_the_log_probabilities_that_the_decoder_gives(run: Run, temperature: float) -> None:
    learner, _, desk, _ = stage(run, DPO)
    wake_page(learner.net, run)
    pages = (duels := planted(run, DPO, held=True)).pages
    groups = pages.choice.shape[:2]
    masks = PageMasks(desk.rules, np.repeat(pages.pool.numpy(), groups[1], 0))
    with torch.no_grad():
        prompt = learner.net.embed(pages.prompts, pages.codes)
        scorer = PageScorer(learner.net, prompt, pages.lengths, pages.pool, pages.evidence, groups[1], SLOTS)
        forced = Forced(pages.choice.numpy())
        told = write_pages(scorer, masks, groups, Writing(temperature), np.random.default_rng(0), forced).logprobs.sum(-1)
        ours, theirs = duel_logprobs(learner.net, learner.reference, duels, temperature)
    assert np.isfinite(told).all()
    assert np.abs(told - ours.numpy()).max() < 1e-4
    assert float((ours - theirs).abs().max()) > 0.1


def test_pages_that_repeat_an_item_are_left_out_and_counted(run: Run) -> None:
    _, _, desk, asked = stage(run, DPO)
    contexts = asked.contexts.take(np.arange(4))
    chosen = np.array([[1, 2, 3], [1, 2, 3], [5, 5, 3], [1, 2, NO_ITEM]])
    rejected = np.array([[4, 2, 3], [1, 2, 2], [1, 2, 3], [39, 2, NO_ITEM]])
    duels = duels_of(run, pairs_of(contexts, chosen, rejected), KNOWN, desk, DPO, 0)
    assert (len(duels), duels.left_out) == (2, 2)
    items = duels.pages.pool[:, None].expand(-1, 2, -1).gather(2, duels.pages.choice.clamp_min(0))
    items = torch.where(duels.pages.choice >= 0, items, NO_ITEM)
    assert items.tolist() == [[[1, 2, 3], [4, 2, 3]], [[1, 2, NO_ITEM], [39, 2, NO_ITEM]]]
    net = stage(run, DPO)[0].net
    ours, _ = duel_logprobs(net, run.net, duels, 1.0)
    assert bool((ours < 0).all())
    assert bool(ours.isfinite().all())
    with pytest.raises(
        TrainingError,
        match=r"None of 2 pairs can be learned from by DPO: the policy never writes a page that holds an item twice",
    ):
        duels_of(run, pairs_of(contexts.take(np.arange(2)), chosen[[2, 2]], rejected[[1, 1]]), KNOWN, desk, DPO, 0)


def test_mined_pairs_are_pages_that_the_policy_may_write(run: Run) -> None:
    _, _, desk, _ = stage(run, DPO)
    since = known_since(run.split.log, None, run.catalog)
    source = PairSource(run.split.log, None, policy_candidates(run, since), int(1.508e9), int(1.52e9), since)
    pairs = mine_source(source, run.likeness, PairConfig(slots=SLOTS), 0, repeats=False)[0]
    never = np.isin(pairs.operator, (Operator.REPEAT, Operator.CONSUMED))
    assert never.any()
    assert len(np.unique(pairs.family[~never])) >= 4
    duels = duels_of(run, pairs, since, desk, DPO, 0)
    assert (len(duels), duels.left_out) == (int((~never).sum()), int(never.sum()))
    items = duels.pages.pool[:, None].expand(-1, 2, -1).gather(2, duels.pages.choice.clamp_min(0)).numpy()
    both = np.stack([pairs.chosen, pairs.rejected], 1)[~never]
    assert np.array_equal(np.where(both != NO_ITEM, items, NO_ITEM), both)
    ours, theirs = duel_logprobs(stage(run, DPO)[0].net, run.net, duels, DPO.temperature)
    assert bool(ours.isfinite().all())
    assert torch.allclose(ours, theirs, atol=1e-4)  # nothing is learned yet


def test_pairs_are_capped_and_weigh_the_same_in_each_family(run: Run) -> None:
    _, _, desk, asked = stage(run, DPO)
    n = len(asked)
    pairs = pairs_of(asked.contexts, np.tile([1, 2, 3], (n, 1)), np.tile([4, 5, 6], (n, 1)))
    pairs.weight[:] = np.arange(1, n + 1)
    some = [duels_of(run, pairs, KNOWN, desk, DPO.model_copy(update={"most_contexts": 9}), seed) for seed in (0, 0, 1)]
    assert [len(duels) for duels in some] == [9, 9, 9]
    assert torch.equal(some[0].weight, some[1].weight)
    assert not torch.equal(some[0].weight, some[2].weight)
    assert float(some[0].weight.mean()) == pytest.approx(1)
    assert float(some[0].weight.std()) > 0.1


def test_dpo_needs_a_price_of_distance(run: Run) -> None:
    learner = stage(run, FAST)[0]
    with pytest.raises(TrainingError, match=r"must be above 0 for DPO, whose beta it is\. Got 0\. Set ppo\.kl_coef"):
        next(dpo(learner, planted(run, FAST, held=True), FAST, 0))


def test_pools_hold_each_item_once() -> None:
    pool = united(np.array([[2, 7, NO_ITEM], [1, 2, 3]], np.int32), np.array([[7, 0, 7, 7], [3, 9, NO_ITEM, NO_ITEM]], np.int32))
    assert pool.tolist() == [[0, 2, 7, NO_ITEM], [1, 2, 3, 9]]
