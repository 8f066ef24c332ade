"""Learning both rewards from preference pairs: Bradley-Terry with margins by severity, an ensemble by the Bayesian bootstrap's count form.

    P(chosen before rejected) = sigmoid(gap + offset - margin · severity)

The offset is how much likelier the rejected items were drawn than the chosen ones. Without it the fit learns how pairs were put together:
that what the policy would not show is engaged with. Takes a network, a table of pages and pairs; yields one `Step` a gradient step. Knows
no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pagellm.config import RewardConfig
from pagellm.data.contexts import contexts_at
from pagellm.data.look import Look
from pagellm.data.preferences.pairs import Family, Pairs
from pagellm.errors import DataError
from pagellm.models.device import device_of, tensor_for
from pagellm.models.page_inputs import PageReader, PageTable
from pagellm.models.reward import FAMILIES, VALUED, RewardNet
from pagellm.training.sft import Step
from pagellm.types import F32, I64, Contexts, Interactions

_MOST_STANDARDIZED = 200_000  # rows that mean and deviation are taken from
_TRUST_RATE = 30.0
"""Times the learning rate: the trust must arrive before the heads, or they take its place and spoil the policy's order."""


@dataclass(frozen=True)
class PairTable:
    """Pairs with the pages that they compare: page p of pair n is `chosen[n]` or `rejected[n]` of the table."""

    pages: PageTable
    chosen: I64  # [pair]
    rejected: I64  # [pair]
    better: I64  # [pair] row of the more engaging of two exchanged items, of swaps; else 0
    worse: I64  # [pair] row of the other one
    family: np.ndarray  # [pair] code of `Family`
    weight: F32  # [pair] mean 1 within each family
    margin: F32  # [pair] severity
    offset: F32  # [pair]
    unit: F32  # [pair] mean difference in look of exchanged places, of ranking pairs; else 1

    def __len__(self) -> int:
        return len(self.family)

    def exchanged(self, share: float, seed: int) -> PairTable:
        """The table with the sides of so many of its pairs exchanged, drawn with the seed: as if their feedback were wrong."""
        some = np.random.default_rng((seed, 15)).random(len(self)) < share
        sides = {
            name: np.where(some, getattr(self, other), getattr(self, name))
            for name, other in (("chosen", "rejected"), ("rejected", "chosen"), ("better", "worse"), ("worse", "better"))
        }
        return replace(self, **sides, offset=np.where(some, -self.offset, self.offset))


def pair_table(pairs: Pairs, log: Interactions, reader: PageReader, look: Look) -> PairTable:
    """Reads both pages of every pair; a page that many pairs share is read once. Raises DataError where a family has no pair."""
    lacking = [family.name.lower() for family in Family if not (pairs.family == family).any()]
    if lacking:
        raise DataError(
            f"None of the {len(pairs):,} pairs that rewards learn from is of: {', '.join(lacking)}. Draw more of them: reward.pairs."
        )
    contexts, place = pair_contexts(pairs, log)
    seen = look.of(pairs.chosen, pairs.row, pairs.col)
    both = np.concatenate([pairs.chosen, pairs.rejected])
    where = np.concatenate([place, place])
    spots = pairs.row.astype(np.int64) * 1_000 + pairs.col
    key = np.concatenate([where[:, None], both, np.concatenate([spots, spots])], 1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    table = reader.read(contexts, where[first], both[first], np.concatenate([seen, seen])[first], logged=True)
    chosen, rejected = np.split(inverse.ravel(), 2)
    better, worse = _exchanged(pairs, table, chosen)
    moved = pairs.chosen != pairs.rejected
    far = np.abs(seen - (seen * moved).sum(1, keepdims=True) / np.maximum(moved.sum(1, keepdims=True), 1)) * moved
    unit = np.where(pairs.family == Family.RANKING, 2 * far.sum(1) / np.maximum(moved.sum(1), 1), 1.0)
    return PairTable(
        table, chosen, rejected, better, worse, pairs.family, family_weights(pairs), pairs.severity, pairs.offset,
        np.maximum(unit, 1e-3).astype(np.float32),
    )  # fmt: skip


def family_weights(pairs: Pairs) -> F32:
    """[pair] weights with mean 1 within each family: those of swaps are in another unit than those of whole pages."""
    weight = pairs.weight.astype(np.float64)
    for family in Family:
        some = pairs.family == family
        if some.any():
            weight[some] /= weight[some].mean()
    return weight.astype(np.float32)


def pair_contexts(pairs: Pairs, log: Interactions) -> tuple[Contexts, I64]:
    """(the contexts that pairs are about, each once; place [pair] of each pair's)."""
    key = np.stack([pairs.user.astype(np.int64), pairs.time], 1)
    unique, inverse = np.unique(key, axis=0, return_inverse=True)
    return contexts_at(log, unique[:, 0].astype(np.int32), unique[:, 1]), inverse.ravel().astype(np.int64)


def _exchanged(pairs: Pairs, table: PageTable, chosen: I64) -> tuple[I64, I64]:
    """Rows of the more and the less engaging item of swaps, 0 for other pairs."""
    better, worse = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    swaps = np.flatnonzero(pairs.family == Family.SWAP)
    moved = pairs.chosen[swaps] != pairs.rejected[swaps]
    engaged = moved & (pairs.chosen[swaps] == pairs.item[swaps][:, None])
    rows = table.index[chosen[swaps]]
    every = np.arange(len(swaps))
    better[swaps] = rows[every, engaged.argmax(1)]
    worse[swaps] = rows[every, (moved & ~engaged).argmax(1)]
    return better, worse


def fit_rewards(net: RewardNet, table: PairTable, config: RewardConfig, seed: int) -> Iterator[Step]:
    """Fits all heads; yields after every step. One-cycle learning rate, AdamW. Equal seeds and threads give equal weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng((seed, 1))
    rows = rng.permutation(len(table.pages.rows))[:_MOST_STANDARDIZED]
    relations = table.pages.relations[table.pages.real]
    some = rng.permutation(len(relations))[:_MOST_STANDARDIZED]
    net.standardize(torch.from_numpy(table.pages.rows[np.sort(rows)]), torch.from_numpy(relations[np.sort(some)]))
    counts = rng.poisson(1.0, (len(table), net.members)).astype(np.float32)  # how often each member meets each pair (Oza 2005)
    a_pass = -(-len(table) // config.batch)
    passes = max(config.epochs, -(-config.min_steps // a_pass))
    steps = a_pass * passes
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1 and p is not net.trust], "weight_decay": 0.0},
        {"params": [net.trust], "weight_decay": 0.0},
    ]
    rates = [config.lr, config.lr, _TRUST_RATE * config.lr]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, foreach=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps + 1)
    step = 0
    for _ in range(passes):
        order = rng.permutation(len(table))
        for begin in range(0, len(order), config.batch):
            batch = order[begin : begin + config.batch]
            loss = pair_loss(net, table, batch, counts[batch], config.margin)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            step += 1
            yield Step("reward", step, steps, float(loss.detach()), float(schedule.get_last_lr()[0]), float(norm))
            schedule.step()


def pair_loss(net: RewardNet, table: PairTable, batch: np.ndarray, counts: F32, margin: float) -> Float[Tensor, ""]:
    """Sum over families of the mean loss of their pairs in the batch, over members. `counts` [pair, member] weighs pairs for each."""
    total = net.spread.new_zeros(())
    for family in Family:
        inside = table.family[batch] == family
        if not inside.any():
            continue
        some = batch[inside]
        gap = family_gap(net, table, some, family)
        shift = tensor_for(net, table.offset[some] - margin * table.margin[some])[:, None]
        weight = tensor_for(net, table.weight[some][:, None] * counts[inside])
        total = total - (weight * F.logsigmoid(gap + shift)).sum() / weight.sum().clamp_min(1.0)
    return total


def family_gap(net: RewardNet, table: PairTable, some: np.ndarray, family: Family) -> Float[Tensor, "pair member"]:
    """By how much the head of a family finds the chosen page better, in log-odds of single items where it values items."""
    if family == Family.SWAP:
        rows = (tensor_for(net, table.pages.rows[side[some]]) for side in (table.better, table.worse))
        better, worse = (net.log_odds("item", net.item_vectors(r)) for r in rows)
        return better - worse
    chosen, rejected = (table.pages.inputs(side[some]).to(device_of(net)) for side in (table.chosen, table.rejected))
    name = FAMILIES[family]
    if name in VALUED:
        odds = [net.log_odds(name, net.item_vectors(page.items)) for page in (chosen, rejected)]
        weight = chosen.real.float() if family == Family.RELEVANCE else chosen.look / tensor_for(net, table.unit[some])[:, None]
        return ((odds[0] - odds[1]) * weight[..., None]).sum(1)
    place = family - Family.DIVERSITY
    costs = [(net.costs(page.relations)[:, :, place] * page.real[..., None]).sum(1) for page in (chosen, rejected)]
    gap: Tensor = costs[1] - costs[0]
    return gap


@dataclass(frozen=True)
class Engagement:
    """Items that users might have engaged with, and whether they did: what chances are calibrated on."""

    rows: F32  # [row, feature] of `PageReader.features`
    engaged: np.ndarray  # [row] bool
    seen: F32  # [row] chance that the user saw it, given what was done with it: what the row weighs


def calibrate(net: RewardNet, engagement: Engagement) -> list[str]:
    """Fits slope and intercept of each head that values items, by weighted logistic regression on its log-odds (Platt 1999).

    Returns the heads whose log-odds do not rise with engagement here; such a head gets slope 0 and says the mean of every item.
    """
    from sklearn.linear_model import LogisticRegression

    flat, engaged, seen = [], engagement.engaged, engagement.seen.astype(np.float64)
    mean = (float(seen[engaged].sum()) + 0.5) / (float(seen.sum()) + 1)
    with torch.no_grad():
        for place, name in enumerate(VALUED):
            vectors = (net.item_vectors(some.to(device_of(net))) for some in torch.from_numpy(engagement.rows).split(50_000))
            odds = torch.cat([net.log_odds(name, some).mean(-1) for some in vectors]).cpu().double().numpy()
            slope, intercept = 0.0, float(np.log(mean / (1 - mean)))
            if 0 < engaged.sum() < len(engaged):
                fit = LogisticRegression(C=1e6, max_iter=200).fit(odds[:, None], engaged, seen)
                if fit.coef_[0, 0] > 0:
                    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
            if not slope:
                flat.append(name)
            net.slope[place], net.intercept[place] = slope, intercept
    return flat
