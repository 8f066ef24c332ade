"""Direct preference optimization on mined pairs (Rafailov et al. 2023): what stands beside PPO where there are pairs and no rewards.

`duels_of` turns pairs into pages that the policy can be asked about, `dpo` learns from them and yields what each iteration did. Writes no
file and does not decide when to stop. Every iteration draws its randomness from the seed and its own number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.config import PPOConfig
from pagellm.data.preferences.pairs import Operator, Pairs
from pagellm.errors import TrainingError
from pagellm.models.choices import EMPTY
from pagellm.models.codec import encode
from pagellm.models.device import device_of, tensor_for
from pagellm.models.policy import PolicyNet
from pagellm.models.run import Run
from pagellm.models.whole_pages import PageLogits, WrittenPages, distributions, logprobs_of, page_logits, reference_logits
from pagellm.training.learner import Learner, Update, descend, set_rates
from pagellm.training.losses import dpo_loss
from pagellm.training.ppo import minibatches
from pagellm.training.reward_modeling import family_weights, pair_contexts
from pagellm.training.rollouts import Desk, ask
from pagellm.types import I16, I32, I64, NO_ITEM, Bool, Contexts

_CHUNK = 256  # pairs whose evidence is read at once


@dataclass(frozen=True)
class Duels:
    """Pairs whose two pages can be written: page 0 of each context is the chosen one, page 1 the rejected. A context for each pair."""

    pages: WrittenPages
    weight: Float[Tensor, " pair"]  # mean 1 within each family
    left_out: int  # pairs with a page that the policy never writes

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, places: Tensor) -> Duels:
        """The duels at these places."""
        return Duels(self.pages.take(places), self.weight[places], self.left_out)


def duels_of(run: Run, pairs: Pairs, since: I64, desk: Desk, config: PPOConfig, seed: int) -> Duels:
    """Pairs as pages written from the reference's favorites and from what stands on either page, without any rule but that none repeats.

    At most `most_contexts` of them, drawn with the seed. A page with an item that stands twice has probability 0 under every policy, one
    with an item that the user already took has so unless `split.repeats`: their pairs say nothing and are left out. Rows on the page are
    taken for layout rows. Raises TrainingError where no pair is left.
    """
    never = repeats(pairs.chosen) | repeats(pairs.rejected)
    if not run.config.split.repeats:
        never |= pairs.operator == Operator.CONSUMED
    usable = np.flatnonzero(~never)
    if not len(usable):
        raise TrainingError(
            f"None of {len(pairs):,} pairs can be learned from by DPO: the policy never writes a page that holds an item twice or, without "
            "split.repeats, one that the user already took. Mine pairs of other families."
        )
    order = np.random.default_rng((seed, 13)).permutation(len(usable))
    pairs = pairs.take(usable[np.sort(order[: config.most_contexts])])
    contexts, place = pair_contexts(pairs, run.split.log)
    asked = ask(run, contexts, since, desk.rules, config.candidates)
    pool = united(asked.pool[place], pairs.chosen, pairs.rejected)
    pages = written(run, contexts.take(place), pool, np.stack([pairs.chosen, pairs.rejected], 1), pairs.row, desk)
    return Duels(pages, tensor_for(run.net, family_weights(pairs)), int(never.sum()))


def repeats(items: I32) -> Bool:
    """[page] whether an item stands on it twice."""
    ordered = np.sort(items, axis=1)
    return np.asarray(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ITEM)).any(1), bool)


def united(*parts: I32) -> I32:
    """[context, candidate] the items of all parts, rising, each once, padded with NO_ITEM."""
    last = np.iinfo(np.int32).max
    pool = np.concatenate(parts, 1)
    pool = np.sort(np.where(pool == NO_ITEM, last, pool), axis=1)
    pool[:, 1:][pool[:, 1:] == pool[:, :-1]] = last
    pool = np.sort(pool, axis=1)
    pool = pool[:, : max(int((pool != last).sum(1).max()), 1)]
    return np.where(pool == last, NO_ITEM, pool).astype(np.int32)


def written(run: Run, contexts: Contexts, pool: I32, items: I32, row: I16, desk: Desk) -> WrittenPages:
    """Given pages as if they had been written from these pools. `items` [context, page, slot], `row` [context, slot]."""
    found = (items[..., None] == pool[:, None, None]) & (items != NO_ITEM)[..., None]  # [context, page, slot, candidate]
    used = np.logical_or.accumulate(found, 2)
    allowed = np.broadcast_to((pool != NO_ITEM)[:, None, None], found.shape).copy()
    allowed[:, :, 1:] &= ~used[:, :, :-1]
    chunks = np.array_split(np.arange(len(pool)), -(-len(pool) // _CHUNK))
    evidence = np.concatenate([run.evidence.features(contexts.take(c), pool[c]) for c in chunks])
    prompts = encode(contexts, desk.max_history)
    history, codes, lengths = (torch.from_numpy(a) for a in (prompts.items, prompts.codes, prompts.lengths))
    choice = torch.from_numpy(np.where(found.any(-1), found.argmax(-1), EMPTY))
    rows = torch.from_numpy(row.astype(np.int64))[:, None].expand(choice.shape).contiguous()
    return WrittenPages(
        history, codes, lengths, torch.from_numpy(pool.astype(np.int64)), torch.from_numpy(evidence), choice, rows,
        torch.from_numpy(allowed), None, (),
    ).to(device_of(run.net))  # fmt: skip


@dataclass(frozen=True, slots=True)
class DuelStats:
    """What one iteration of DPO did. Means over its updates, each before its step."""

    stage: str
    step: int  # from 1
    steps: int
    loss: float
    lr: float
    grad_norm: float  # before clipping
    margin: float  # nats by which the chosen page has gained on the rejected one since the reference
    won: float  # share of pairs with a margin above 0
    skipped: int  # updates left out because something was not finite

    @property
    def figures(self) -> dict[str, float]:
        """What people watch."""
        return {"loss": self.loss, "margin": self.margin}


def dpo(learner: Learner, duels: Duels, config: PPOConfig, seed: int) -> Iterator[DuelStats]:
    """Direct preference optimization on `contexts` pairs an iteration, with `kl_coef` as its beta, at the writing's temperature.

    Rafailov et al. 2023, "Direct preference optimization". Raises TrainingError where the price of distance is 0, with which every policy
    has the same loss, or where three updates in a row are not finite.
    """
    if learner.kl_coef <= 0:
        raise TrainingError(
            f"The price of distance must be above 0 for DPO, whose beta it is. Got {learner.kl_coef:g}. Set ppo.kl_coef."
        )
    learner.net.eval()
    while learner.step < config.iterations:
        rng = np.random.default_rng((seed, 7, learner.step))
        drawn = np.sort(rng.choice(len(duels), min(config.contexts, len(duels)), replace=False))
        set_rates(learner, config)
        update = Update()
        for some in minibatches(len(drawn), config, rng):
            duel(learner, duels.take(torch.from_numpy(drawn[some])), config, update)
        learner.step += 1
        yield DuelStats(
            "dpo", learner.step, config.iterations, update.mean("loss"), learner.optimizer.param_groups[0]["lr"],
            update.mean("norm"), update.mean("margin"), update.mean("won"), update.skipped,
        )  # fmt: skip


def duel(learner: Learner, some: Duels, config: PPOConfig, update: Update) -> None:
    """One update on some pairs."""
    ours, theirs = duel_logprobs(learner.net, learner.reference, some, config.temperature)
    loss = dpo_loss(ours[:, 0], ours[:, 1], theirs[:, 0], theirs[:, 1], some.weight, learner.kl_coef)
    norm = descend(learner, loss, config, update)
    if norm is not None:
        margin = (ours - theirs).detach()[:, 0] - (ours - theirs).detach()[:, 1]
        update.add(loss=float(loss.detach()), norm=norm, margin=float(margin.mean()), won=float((margin > 0).float().mean()))


def duel_logprobs(
    net: PolicyNet, reference: PolicyNet, duels: Duels, temperature: float
) -> tuple[Float[Tensor, "pair 2"], Float[Tensor, "pair 2"]]:
    """Log-probabilities of the chosen and the rejected page, of the policy with gradients and of the reference without."""

    def of(logits: PageLogits) -> Tensor:
        return logprobs_of(distributions(logits, duels.pages, temperature), logits, duels.pages, temperature).sum(-1)

    with torch.no_grad():
        theirs = of(reference_logits(reference, duels.pages))
    return of(page_logits(net, duels.pages)), theirs
