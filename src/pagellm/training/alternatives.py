"""What stands beside PPO where pages have rewards: the best of n pages, and supervised fine-tuning on the best pages of each round.

Takes what `ppo` takes, gives pages or statistics of each iteration. Writes no file and does not decide when to stop. DPO is in `dpo`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pagellm.config import PPOConfig
from pagellm.errors import TrainingError
from pagellm.models.decoding import Writing
from pagellm.models.policy import PolicyNet
from pagellm.models.whole_pages import distributions, logprobs_of, page_logits
from pagellm.training.advantages import penalized, rewards_to_go
from pagellm.training.learner import Learner, Update, descend
from pagellm.training.losses import entropy_of, mean_of
from pagellm.training.ppo import Stats, Told, Way, rounds
from pagellm.training.rollouts import Asked, Desk, Rollout, one_each, write
from pagellm.training.slot_rewards import slot_rewards
from pagellm.types import PageBatch, PageReward

_PAGES = 512  # that are written at once


def best_of_n(
    net: PolicyNet, asked: Asked, desk: Desk, reward: PageReward, n: int, temperature: float, rng: np.random.Generator
) -> PageBatch:
    """Of n pages drawn for each context the one whose slots have the largest sum of rewards, the first of equals. Nothing is learned.

    Stiennon et al. 2020, "Learning to summarize from human feedback". Raises TrainingError for rewards that are not finite.
    """
    if n < 1:
        raise TrainingError(f"The best of n pages needs n of at least 1. Got {n}.")
    parts, size = [], max(_PAGES // n, 1)
    for begin in range(0, len(asked), size):
        some = asked.take(np.arange(begin, min(begin + size, len(asked))))
        batch = write(net, some, desk, n, Writing(temperature, logprobs=False), rng)[1]
        totals = slot_rewards(reward, batch).view(len(some), n, -1).sum(-1).numpy()
        if not np.isfinite(totals).all():
            raise TrainingError("A reward gave a number that is not finite, so no page can be the best. Look at its inputs.")
        parts.append(batch.take(np.arange(len(some)) * n + totals.argmax(1)))
    return one_each(asked.contexts, parts)


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n: how far the best of n pages is from a plain draw, in nats a page.

    Stiennon et al. 2020, appendix G.3; an upper bound, which is loose where pages are few or rewards are equal (Beirami et al. 2024).
    """
    return float(np.log(n) - (n - 1) / n)


def rejection_sampling(
    learner: Learner, contexts_of: Callable[[int], Asked], reward: PageReward, config: PPOConfig, desk: Desk, seed: int
) -> Iterator[Stats]:
    """Supervised fine-tuning on the best page of each group, anew in every iteration; called and guarded as `ppo` is.

    Dong et al. 2023, "RAFT: Reward ranked finetuning for generative foundation model alignment", with the price of distance from the
    reference in the ranking.
    """
    yield from rounds(learner, contexts_of, reward, config, desk, seed, Way("rejection", kept_of, imitate))


def kept_of(learner: Learner, rollout: Rollout, rewards: Tensor, config: PPOConfig) -> Told:
    """Advantage 1 for the page of each context with the largest reward less the price of distance, the first of equals; 0 for others.

    A context with a reward that is not finite has no best page: its advantages are not finite either, so that its updates are left out.
    """
    penalty = penalized(rewards, rollout.logprobs, rollout.reference, learner.kl_coef)
    totals = penalty.sum(-1)
    best = torch.from_numpy(totals.cpu().numpy().argmax(1)).to(totals.device)
    kept = torch.nn.functional.one_hot(best, config.group).float()
    kept[~totals.isfinite().all(1)] = torch.nan
    advantages = kept[..., None].expand_as(rewards)
    return Told(advantages, rewards_to_go(penalty), torch.zeros_like(rewards), rollout.pages.free)


def imitate(learner: Learner, rollout: Rollout, told: Told, some: Tensor, config: PPOConfig, update: Update) -> None:
    """One step up the log-likelihood of the kept pages of some contexts: the other pages are not even read."""
    best = told.advantages[some, :, 0].argmax(1)
    pages = rollout.pages.take(some).pick(best)
    weight, real, before = (a[some, best][:, None] for a in (told.advantages, told.real, rollout.logprobs))
    logits = page_logits(learner.net, pages)
    every = distributions(logits, pages, config.temperature)
    logprobs = logprobs_of(every, logits, pages, config.temperature)
    policy_loss, entropy = -mean_of(weight * logprobs, real), mean_of(entropy_of(every), real)
    loss = policy_loss - config.ent_coef * entropy
    norm = descend(learner, loss, config, update)
    if norm is None:
        return
    moved = float(mean_of(before - logprobs.detach(), real))
    update.add(
        loss=float(loss.detach()), policy=float(policy_loss.detach()), entropy=float(entropy.detach()), norm=norm, moved=moved
    )
