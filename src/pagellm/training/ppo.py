"""Proximal policy optimization on pages (Schulman et al. 2017), and its relatives that need no value head.

    for stats in ppo(learner, contexts_of, reward, config, desk, seed):

One iteration: contexts, pages by the current policy, rewards of their slots, advantages, a few passes of clipped updates. Yields what
each iteration did; writes no file, prints nothing and does not decide when to stop. Every iteration draws its randomness from the seed
and its own number, so a learner that is saved and loaded goes on with the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pagellm.config import PPOConfig
from pagellm.errors import TrainingError
from pagellm.models.policy import PolicyNet
from pagellm.models.whole_pages import WrittenPages, distributions, logprobs_of, page_hidden, page_logits
from pagellm.training.advantages import gae, group_relative, leave_one_out, penalized, rewards_to_go, whiten
from pagellm.training.losses import clipped_policy_loss, clipped_value_loss, entropy_of, mean_of
from pagellm.training.rollouts import Asked, Desk, Rollout, write_rollout
from pagellm.types import F32, NO_ITEM, PageBatch, PageReward

_PARTS = {"repetition": ("page_evidence",), "page": ("page_evidence", "page_head", "rows"), "all": ("",)}
_FAST = ("page_evidence", "page_head", "rows")  # start at nothing, so they may move faster than what is fitted already
_MOST_SKIPPED = 3  # steps in a row that may be skipped for values that are not finite


class NotFiniteError(TrainingError):
    """Updates that are not finite, several in a row."""


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


class ValueHead(nn.Module):
    """Expected reward to go, read from the vectors that slots are chosen from. Starts at 0."""

    def __init__(self, dims: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(dims), nn.Linear(dims, hidden), nn.GELU(), nn.Linear(hidden, 1))
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, hidden: Float[Tensor, "context page slot dim"]) -> Float[Tensor, "context page slot"]:
        """Shape [context, page, slot]."""
        out: Tensor = self.layers(hidden)
        return out.squeeze(-1)


@dataclass
class Learner:
    """All that learning changes, and the reference that it stays near to."""

    net: PolicyNet
    reference: PolicyNet  # frozen
    value: ValueHead
    optimizer: torch.optim.AdamW
    kl_coef: float
    step: int = 0  # iterations done
    bad: int = 0  # updates in a row that were skipped
    parameters: list[nn.Parameter] = field(default_factory=list)

    @classmethod
    def start(cls, net: PolicyNet, reference: PolicyNet, config: PPOConfig, seed: int) -> Learner:
        """A fresh learner: what `config.learn` names is trained, all else is frozen.

        Raises TrainingError for a reference over other items.
        """
        items, others = (len(n.bias) for n in (net, reference))
        if items != others:
            raise TrainingError(
                f"The policy writes pages of {items:,} items and its reference of {others:,}. Take both from runs on one catalog."
            )
        torch.manual_seed(seed)
        value = ValueHead(net.dims)
        reference = copy.deepcopy(reference).eval().requires_grad_(False)
        page: list[nn.Parameter] = []
        context: list[nn.Parameter] = []
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(_PARTS[config.learn]))
            if parameter.requires_grad:
                (page if name.startswith(_FAST) else context).append(parameter)
        groups = [{"params": [*page, *value.parameters()], "lr": config.lr}]
        if context:
            groups.append({"params": context, "lr": config.context_lr})
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99), foreach=False)
        return cls(net, reference, value, optimizer, config.kl_coef, parameters=[*page, *value.parameters(), *context])


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
        rewards = slot_rewards(reward, rollout.batch).view(rollout.logprobs.shape)
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


def set_rates(learner: Learner, config: PPOConfig) -> None:
    """Learning rates of this iteration: a straight line down to a tenth, so that late pages move the policy less than early ones."""
    left = 1 - 0.9 * learner.step / config.iterations
    for group, rate in zip(learner.optimizer.param_groups, (config.lr, config.context_lr), strict=False):
        group["lr"] = rate * left


def slot_rewards(reward: PageReward, batch: PageBatch) -> Float[Tensor, "page slot"]:
    """Rewards of every slot; a reward of whole pages counts at the last filled slot. Raises TrainingError for another shape."""
    values = np.asarray(reward(batch), np.float32)
    if values.shape == (len(batch),):
        values = at_last_slot(values, batch)
    if values.shape != batch.items.shape:
        raise TrainingError(
            f"A reward must give one number a page, shape {(len(batch),)}, or one a slot, shape {batch.items.shape}. Got {values.shape}."
        )
    return torch.from_numpy(values)


def at_last_slot(values: F32, batch: PageBatch) -> F32:
    """[page, slot] with each page's value at its last filled slot, at the first of an empty page."""
    real = batch.items != NO_ITEM
    last = np.where(real.any(1), real.shape[1] - 1 - real[:, ::-1].argmax(1), 0)
    out = np.zeros(batch.items.shape, np.float32)
    out[np.arange(len(batch)), last] = values
    return out


@dataclass(frozen=True)
class Mixed:
    """Several rewards as one: the weighted sum of their slots. Any callable on pages may take part, a verifiable one too."""

    terms: Sequence[tuple[float, PageReward]]

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page, slot]."""
        total = np.zeros(pages.items.shape, np.float32)
        for weight, reward in self.terms:
            total += weight * slot_rewards(reward, pages).numpy()
        return total


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
        values = torch.cat([learner.value(page_hidden(learner.net, some)[1]) for some in _chunks(rollout.pages, config)])
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


@dataclass
class Update:
    """Sums over the updates of one iteration."""

    count: int = 0
    skipped: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Counts one update."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str) -> float:
        """Over the updates; 0 without any."""
        return self.sums.get(name, 0.0) / max(self.count, 1)


def learn(learner: Learner, rollout: Rollout, told: Told, some: Tensor, config: PPOConfig, update: Update) -> None:
    """One update on the pages of some contexts. A step that is not finite is left out and counted."""
    pages, real = rollout.pages.take(some), told.real[some]
    logits = page_logits(learner.net, pages)
    every = distributions(logits, pages, config.temperature)
    logprobs = logprobs_of(every, logits, pages, config.temperature)
    policy_loss, held = clipped_policy_loss(logprobs, rollout.logprobs[some], told.advantages[some], real, config.clip_coef)
    entropy = mean_of(entropy_of(every), real)
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


def descend(learner: Learner, loss: Tensor, config: PPOConfig, update: Update) -> float | None:
    """One step down the loss. Returns the gradient's norm before clipping; None for a step that is not finite, left out and counted.

    Raises NotFiniteError at the third of those in a row.
    """
    learner.optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(learner.parameters, config.clip)
    if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
        learner.bad += 1
        update.skipped += 1
        if learner.bad >= _MOST_SKIPPED:
            raise NotFiniteError(
                f"{_MOST_SKIPPED} updates in a row were not finite, at iteration {learner.step + 1}; no weight was changed by them. "
                "Look at the rewards for values that are not finite, or train with a smaller ppo.lr."
            )
        return None
    learner.optimizer.step()
    learner.bad = 0
    return float(norm)


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
    variance = float(told.returns[told.real].var()) if bool(told.real.any()) else 0.0
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


def _chunks(pages: WrittenPages, config: PPOConfig) -> Iterator[WrittenPages]:
    contexts = len(pages.pool)
    for at in range(0, contexts, config.minibatch):
        yield pages.take(torch.arange(at, min(at + config.minibatch, contexts)))
