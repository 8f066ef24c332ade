"""Proximal policy optimization on pages (Schulman et al. 2017), and its relatives that need no value head.

    for stats in ppo(learner, contexts_of, reward, config, desk, seed):

One iteration: contexts, pages by the current policy, rewards of their slots, advantages, a few passes of clipped updates. Yields what
each iteration did; writes no file, prints nothing and does not decide when to stop. Every iteration draws its randomness from the seed
and its own number, so a learner that is saved and loaded goes on with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pagellm.config import PPOConfig
from pagellm.errors import TrainingError
from pagellm.models.whole_pages import distributions, logprobs_of, page_hidden, page_logits, read_once
from pagellm.training.advantages import gae, group_relative, leave_one_out, penalized, rewards_to_go, whiten
from pagellm.training.learner import Learner, Update, descend, set_rates
from pagellm.training.losses import clipped_policy_loss, clipped_value_loss, entropy_of, mean_of
from pagellm.training.rollouts import Asked, Desk, Rollout, write_rollout
from pagellm.training.slot_rewards import slot_rewards
from pagellm.types import PageReward


@dataclass(frozen=True, slots=True)
class Stats:
    """What one iteration did. docs/ppo.md says what a healthy and a sick run look like."""

    stage: str
    step: int  # from 1
    steps: int
    loss: float  # policy loss + vf_coef · value loss - ent_coef · entropy, mean over the updates
    lr: float
    grad_norm: float  # before clipping, mean over the updates
    reward: float  # mean over pages of the sum over slots, without the KL penalty
    reward_spread: float  # standard deviation of the same within a context
    kl: float  # nats a page, policy against reference, sampled when the pages were written
    kl_coef: float  # that this iteration was learned with
    policy_loss: float
    value_loss: float
    entropy: float  # nats a slot
    clip_fraction: float  # share of slots that the clip held back
    update_kl: float  # nats a slot between the policy before and after this iteration, on its pages
    explained: float  # 1 - variance of (return - value) / variance of return
    distinct: float  # different pages over pages, within contexts
    skipped: int  # updates left out because something was not finite

    @property
    def figures(self) -> dict[str, float]:
        """What people watch."""
        return {"reward": self.reward, "kl": self.kl}


def ppo(
    learner: Learner,
    contexts_of: Callable[[int], Asked],
    reward: PageReward,
    config: PPOConfig,
    desk: Desk,
    seed: int,
) -> Iterator[Stats]:
    """Learns from pages for the contexts of `contexts_of(iteration)`; yields after every iteration.

    Raises TrainingError where rewards are of another shape, or where three updates in a row are not finite.
    """
    yield from rounds(learner, contexts_of, reward, config, desk, seed, Way("ppo", advantages_of, learn))


def rounds(
    learner: Learner,
    contexts_of: Callable[[int], Asked],
    reward: PageReward,
    config: PPOConfig,
    desk: Desk,
    seed: int,
    way: Way,
) -> Iterator[Stats]:
    """What all ways to learn from one's own pages have in common, see `ppo`."""
    while learner.step < config.iterations:
        rng = np.random.default_rng((seed, 7, learner.step))
        asked = contexts_of(learner.step)
        rollout = write_rollout(learner.net, learner.reference, asked, desk, config.group, config.temperature, rng)
        if learner.rests:
            rollout = replace(rollout, pages=read_once(learner.net, rollout.pages, config.minibatch))
        rewards = slot_rewards(reward, rollout.batch).view(rollout.logprobs.shape).to(rollout.logprobs.device)
        told = way.told(learner, rollout, rewards, config)
        if not bool(told.real.any()):
            raise TrainingError(
                f"In none of the {len(rollout.batch):,} pages of iteration {learner.step + 1} there was a slot with two candidates to "
                "choose from. Look at `pagellm layout check`, or raise ppo.candidates."
            )
        set_rates(learner, config)
        update = Update()
        for some in minibatches(len(asked), config, rng):
            way.learn(learner, rollout, told, torch.from_numpy(some), config, update)
        stats = summary(way.stage, learner, rollout, rewards, told, update, config)
        learner.kl_coef = next_kl_coef(learner.kl_coef, stats.kl, config)
        learner.step += 1
        yield stats


@dataclass(frozen=True)
class Told:
    """What the pages of a rollout say to the policy. Axes: context, page, slot."""

    advantages: Tensor
    returns: Tensor
    values: Tensor  # before the update
    real: Tensor  # where there was anything to choose


@torch.no_grad()
def advantages_of(learner: Learner, rollout: Rollout, rewards: Tensor, config: PPOConfig) -> Told:
    """Advantages by `config.algorithm`, whitened over the iteration."""
    real = rollout.pages.free
    penalty = penalized(rewards, rollout.logprobs, rollout.reference, learner.kl_coef)
    values = torch.zeros_like(rewards)
    if config.algorithm == "ppo":
        values = torch.cat([learner.value(page_hidden(learner.net, some)[1]) for some in rollout.pages.chunks(config.minibatch)])
        advantages, returns = gae(penalty, values, config.gamma, config.gae_lambda)
        if config.center_groups:
            advantages = leave_one_out(advantages)
    else:
        returns = rewards_to_go(penalty)
        whole = returns[..., :1].expand_as(returns)
        advantages = {
            "rloo": lambda: leave_one_out(whole),
            "grpo": lambda: group_relative(whole),
            "grpo-slot": lambda: group_relative(returns),
        }[config.algorithm]()
    return Told(whiten(advantages, real), returns, values, real)


@dataclass(frozen=True)
class Way:
    """How one way of learning differs from others: what pages say, and what is done about it in one update."""

    stage: str  # its name in the statistics
    told: Callable[[Learner, Rollout, Tensor, PPOConfig], Told]  # of a rollout and the rewards of its slots
    learn: Callable[[Learner, Rollout, Told, Tensor, PPOConfig, Update], None]  # on the contexts at these places


def learn(learner: Learner, rollout: Rollout, told: Told, some: Tensor, config: PPOConfig, update: Update) -> None:
    """One update on the pages of some contexts. A step that is not finite is left out and counted."""
    pages, real = rollout.pages.take(some), told.real[some]
    logits = page_logits(learner.net, pages)
    every = distributions(logits, pages, config.temperature)
    logprobs = logprobs_of(every, logits, pages, config.temperature)
    policy_loss, held = clipped_policy_loss(logprobs, rollout.logprobs[some], told.advantages[some], real, config.clip_coef)
    entropy = mean_of(entropy_of(every if config.ent_coef else every.detach()), real)
    loss, value_loss = policy_loss - config.ent_coef * entropy, torch.zeros(())
    if config.algorithm == "ppo":
        values = learner.value(logits.hidden)
        value_loss = clipped_value_loss(values, told.values[some], told.returns[some], real, config.value_clip)
        loss = loss + config.vf_coef * value_loss
    norm = descend(learner, loss, config, update)
    if norm is None:
        return
    moved = mean_of(rollout.logprobs[some] - logprobs.detach(), real)
    update.add(
        loss=float(loss.detach()), policy=float(policy_loss.detach()), value=float(value_loss.detach()),
        entropy=float(entropy.detach()), held=float(held), norm=norm, moved=float(moved),
    )  # fmt: skip


def minibatches(contexts: int, config: PPOConfig, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Places of contexts, shuffled anew in each of the passes; pages of one context stay together, for they share its prompt."""
    for _ in range(config.ppo_epochs):
        order = rng.permutation(contexts)
        yield from (np.sort(order[at : at + config.minibatch]) for at in range(0, contexts, config.minibatch))


def summary(
    stage: str, learner: Learner, rollout: Rollout, rewards: Tensor, told: Told, update: Update, config: PPOConfig
) -> Stats:
    """The statistics of an iteration."""
    totals = rewards.sum(-1)
    variance = float(told.returns[told.real].var())
    left = float((told.returns - told.values)[told.real].var()) if variance else 0.0
    return Stats(
        stage, learner.step + 1, config.iterations, update.mean("loss"), learner.optimizer.param_groups[0]["lr"], update.mean("norm"),
        float(totals.mean()), float((totals - totals.mean(1, keepdim=True)).std()),
        float((rollout.logprobs - rollout.reference).sum(-1).mean()), learner.kl_coef,
        update.mean("policy"), update.mean("value"), update.mean("entropy"), update.mean("held"), update.mean("moved"),
        1 - left / variance if variance else 0.0, distinct_share(rollout), update.skipped,
    )  # fmt: skip


def distinct_share(rollout: Rollout) -> float:
    """Different pages over all pages, within contexts: a policy that always writes one page has 1 / group."""
    contexts, group = rollout.groups
    keys = np.concatenate([rollout.batch.place[:, None], rollout.batch.items], 1)
    return len(np.unique(keys, axis=0)) / (contexts * group)


def next_kl_coef(kl_coef: float, kl: float, config: PPOConfig) -> float:
    """The coefficient of the next iteration: up where the pages were farther from the reference than `kl_target`, else down.

    Ziegler et al. 2019, section 2.2, with their clip of .2 on the relative error.
    """
    if not config.kl_target:
        return kl_coef
    error = float(np.clip(kl / config.kl_target - 1, -0.2, 0.2))
    return kl_coef * (1 + config.kl_gain * error)
