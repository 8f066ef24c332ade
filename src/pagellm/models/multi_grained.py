"""Both rewards as callables on pages, and their combination.

    R(slot) = (1 - alpha) · whitened item reward of the slot, plus alpha · whitened page reward at the last filled slot

or, `stepwise`, alpha · what each slot adds to the page reward of the slots before it: the same sum over the page, placed where it is
earned (potential-based shaping, Ng, Harada and Russell 1999, which changes no best policy).

Whitening brings the page reward and the sum of the item rewards to spread 1 over the pages of one context, so that alpha means the same
in every shop: contexts differ more in how much anybody engages than pages of one do, and a policy can only choose among the latter.
Takes pages as catalog indexes, gives numbers. Knows no training and no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.config import RewardConfig
from pagellm.data.look import Look
from pagellm.data.page_relations import page_relations
from pagellm.models.device import device_of, tensor_for
from pagellm.models.page_inputs import PageInputs, PageReader
from pagellm.models.reward import FAMILIES, RewardNet
from pagellm.types import F32, F64, I32, NO_ITEM, PageBatch

_CHUNK = 2_048  # pages that are scored at once
_VARIANTS = 512  # of a page that are scored at once
_MOST_EXCHANGED = 60  # items of a page whose exchanges are all tried
_MOST_ASKED = 200  # exchanges, those that gain most, of which is asked whether the page keeps its rules: some milliseconds each

Keeps = Callable[[int, I32], bool]
"""Whether page p of a batch would keep its rules with these items [slot]."""


@dataclass(frozen=True)
class Scores:
    """What both rewards find of pages, by member of the ensemble."""

    page: F32  # [page, slot, family, member] what each slot adds to the page reward: weight · part / spread
    base: float  # what the page reward adds for every page: -sum of weight · center / spread
    item: F32  # [page, slot, member] item reward of each slot

    @property
    def page_total(self) -> F64:
        """[page, member] the page reward. Summed in double: over a small spread what float32 rounds off is more than 1e-6 of a receipt."""
        return np.asarray(self.page.sum((1, 2), dtype=np.float64) + self.base, np.float64)

    def cautious(self, caution: float) -> F64:
        """[page] mean of the page reward over the ensemble, minus so many deviations."""
        total = self.page_total
        return np.asarray(total.mean(1) - caution * total.std(1), np.float64)


@dataclass(frozen=True)
class RewardModel:
    """The learned rewards of a run: a network, the eyes that it reads pages with, and weights of the families."""

    net: RewardNet
    reader: PageReader
    look: Look
    config: RewardConfig

    def scores(self, pages: PageBatch, logged: bool = False) -> Scores:
        """Scores of pages. Raises DataError for an item that is not in the catalog, or that may not be shown unless `logged`."""
        look = self.look.of(pages.items, pages.row, pages.col)
        table = self.reader.read(pages.contexts, pages.place, pages.items, look, logged)
        parts = [self.of_inputs(table.inputs(slice(at, at + _CHUNK))) for at in range(0, max(len(table), 1), _CHUNK)]
        return Scores(np.concatenate([p.page for p in parts]), parts[0].base, np.concatenate([p.item for p in parts]))

    @torch.no_grad()
    def gains(self, pages: PageBatch, scores: Scores) -> F64:
        """[page, slot] by how much each slot raises the page reward above that of the slots before it, mean over the ensemble.

        `scores` are those of the pages. With `Scores.base` the gains sum to the page reward. What a repetition costs stands at the slot
        that repeats and not at the one repeated.
        """
        size = pages.items.shape[1]
        before = np.tile(np.tri(size, dtype=bool), (len(pages), 1))
        prefixes = np.where(before, np.repeat(pages.items, size, 0), NO_ITEM).astype(np.int32)
        relations = page_relations(prefixes, pages.contexts, np.repeat(pages.place, size), self.reader.likeness)
        costs = self.net.costs(tensor_for(self.net, relations)).mean(-1).cpu().numpy() * (prefixes != NO_ITEM)[..., None]
        costs = np.diff(
            costs.sum(1, dtype=np.float64).reshape(*pages.items.shape, -1), axis=1, prepend=0.0
        )  # [page, slot, family]
        costs /= np.maximum((pages.items != NO_ITEM).sum(1), 1)[:, None, None]
        values = scores.page[:, :, : -costs.shape[2]]
        return np.asarray(
            values.mean(3, dtype=np.float64).sum(2) - costs @ self.scale.cpu().numpy()[-costs.shape[2] :], np.float64
        )

    @property
    def scale(self) -> Float[Tensor, " family"]:
        """What a family's score counts in the page reward: weight / spread."""
        weights = torch.tensor([getattr(self.config, name) for name in FAMILIES])
        return weights.to(self.net.spread.device) / self.net.spread

    @torch.no_grad()
    def of_inputs(self, inputs: PageInputs) -> Scores:
        """Scores of pages that are already read: the item trunk runs once for all heads."""
        inputs = inputs.to(device_of(self.net))
        vectors = self.net.item_vectors(inputs.items)
        page = self.net.page_parts(inputs, vectors) * self.scale[:, None]
        base = -float((self.scale * self.net.center).sum())
        return Scores(page.cpu().numpy(), base, self.net.item_parts(inputs, vectors).cpu().numpy())


@dataclass(frozen=True)
class LearnedPageReward:
    """The coarse reward: how good a page is as a whole. Mean over the ensemble minus `caution` deviations."""

    model: RewardModel
    caution: float = 0.0

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page]."""
        return self.model.scores(pages).cautious(self.caution).astype(np.float32)


@dataclass(frozen=True)
class LearnedItemReward:
    """The fine reward: expected engagement of each slot."""

    model: RewardModel

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page, slot]."""
        return np.asarray(self.model.scores(pages).item.mean(2), np.float32)


def swap_gain(reward: F32, look: F32, a: int, b: int) -> F64:
    """By how much the item reward of a page rises when slots a and b exchange their items: two slots, whatever the page's length.

    `reward` and `look` [page, slot]; the reward of a slot is its look times what its item is worth.
    """
    worth_a, worth_b = (reward[:, s].astype(np.float64) / np.maximum(look[:, s], 1e-9) for s in (a, b))
    return np.asarray((look[:, a] - look[:, b]) * (worth_b - worth_a), np.float64)


@dataclass
class Whitening:
    """Running mean of one number a page, and its spread over the pages of one context."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean of the page's own context
    freedom: float = 0.0  # pages less contexts that the squares come from

    def update(self, values: np.ndarray, place: np.ndarray) -> None:
        """Takes in more values [page], of contexts `place` [page]."""
        if not len(values):
            return
        total = self.count + len(values)
        self.mean += (float(np.mean(values, dtype=np.float64)) - self.mean) * len(values) / total
        self.count = total
        _, group = np.unique(place, return_inverse=True)
        sizes = np.bincount(group)
        apart = values - (np.bincount(group, values) / sizes)[group]
        self.squares += float((apart**2).sum(dtype=np.float64))
        self.freedom += float(len(values) - len(sizes))

    @property
    def spread(self) -> float:
        """Standard deviation within a context; 1 until something differs."""
        return max((self.squares / self.freedom) ** 0.5, 1e-9) if self.squares > 0 else 1.0


@dataclass
class MultiGrainedReward:
    """Page and item reward in one: a number a slot, whose sum over the page is its reward."""

    model: RewardModel
    page: Whitening = field(default_factory=Whitening)
    item: Whitening = field(default_factory=Whitening)  # of the sum over a page's slots
    caution: float = 0.0  # deviations of the ensemble that are taken off the page reward
    stepwise: bool = False  # whether each slot has what it adds to the page so far, instead of the last slot all

    @property
    def alpha(self) -> float:
        """Share of the page reward."""
        return self.model.config.alpha

    def __call__(self, pages: PageBatch, learn: bool = False, logged: bool = False) -> F32:
        """Shape [page, slot]: 0 for empty slots, except that a page without any item has its whole reward at the first.

        With `learn` these pages count in the whitening first; `logged` as in `RewardModel.scores`.
        """
        scores = self.model.scores(pages, logged)
        page, item = scores.cautious(self.caution), scores.item.mean(2, dtype=np.float64)
        if learn:
            self.page.update(page, pages.place)
            self.item.update(item.sum(1), pages.place)
        real = pages.items != NO_ITEM
        real[:, 0] |= ~real.any(1)
        size = real.sum(1, keepdims=True)
        out = (1 - self.alpha) * (item - self.item.mean / size) / self.item.spread * real
        rest = page - self.page.mean
        if self.stepwise:
            gains = self.model.gains(pages, scores)
            out += self.alpha * gains / self.page.spread
            rest = rest - gains.sum(1)
        out[np.arange(len(out)), pages.last] += self.alpha * rest / self.page.spread
        return out.astype(np.float32)

    def totals(self, scores: Scores) -> F64:
        """[page] the rewards of pages that are already scored: the sum of `__call__` over their slots."""
        item = (scores.item.mean(2, dtype=np.float64).sum(1) - self.item.mean) / self.item.spread
        page = (scores.cautious(self.caution) - self.page.mean) / self.page.spread
        return np.asarray((1 - self.alpha) * item + self.alpha * page, np.float64)

    def explain(self, pages: PageBatch, keeps: Keeps | None = None) -> list[Receipt]:
        """The receipt of each page: where its reward comes from, to the last slot.

        Exchanges are tried on pages of up to 60 items: their number grows with the square of it, and the work with its fourth power.
        With `keeps` the best of those is offered after which the page keeps its rules, among the 200 that gain most; without, of all.
        """
        return [
            self._receipt(pages.take(np.array([p])), (lambda items: True) if keeps is None else partial(keeps, p))
            for p in range(len(pages))
        ]

    def _receipt(self, page: PageBatch, keeps: Callable[[I32], bool]) -> Receipt:
        filled = np.flatnonzero(page.items[0] != NO_ITEM)
        swaps = list(combinations(filled.tolist(), 2)) if len(filled) <= _MOST_EXCHANGED else []
        totals = self._variants(page, filled, swaps)
        scores = self.model.scores(page)
        item = (1 - self.alpha) * scores.item[0].mean(1, dtype=np.float64) / self.item.spread  # [slot]
        parts = self.alpha * scores.page[0].mean(2, dtype=np.float64) / self.page.spread  # [slot, family]
        every = {name: parts[:, place] for place, name in enumerate(FAMILIES)} | {"item": item}
        total = float(self.totals(scores)[0])
        gains = totals[len(filled) :] - total
        order = np.argsort(-gains, kind="stable")[:_MOST_ASKED]
        best = next((int(at) for at in order if keeps(_exchanged(page.items[0], swaps[at]))), -1)
        members = scores.item[0].sum(0, dtype=np.float64) * (1 - self.alpha) / self.item.spread
        members += scores.page_total[0] * self.alpha / self.page.spread
        return Receipt(
            page.items[0],
            every,
            float(self._constants(scores)[0]),
            total,
            {int(slot): total - float(totals[at]) for at, slot in enumerate(filled)},
            (*swaps[best], float(gains[best])) if best >= 0 else None,
            float(members.std()),
        )

    def _constants(self, scores: Scores) -> F64:
        """[page] what whitening gives every page, less what caution takes off this one; found without the parts, so that they can fail
        to add up."""
        item, page = -self.item.mean / self.item.spread, (scores.base - self.page.mean) / self.page.spread
        doubt = self.caution * scores.page_total.std(1) / self.page.spread
        return np.asarray((1 - self.alpha) * item + self.alpha * (page - doubt), np.float64)

    def _variants(self, page: PageBatch, filled: np.ndarray, swaps: list[tuple[int, int]]) -> F64:
        """Rewards of the page without each filled slot, then with each two slots exchanged."""
        totals = [np.empty(0)]
        for begin in range(0, len(filled) + len(swaps), _VARIANTS):
            some = range(begin, min(begin + _VARIANTS, len(filled) + len(swaps)))
            items = np.repeat(page.items, len(some), 0)
            for row, n in enumerate(some):
                if n < len(filled):
                    items[row, filled[n]] = NO_ITEM
                else:
                    items[row] = _exchanged(page.items[0], swaps[n - len(filled)])
            where = (np.repeat(a, len(some), 0) for a in (page.row, page.col))
            totals.append(
                self.totals(self.model.scores(PageBatch(page.contexts, np.repeat(page.place, len(some)), items, *where)))
            )
        return np.concatenate(totals)


@dataclass(frozen=True)
class Receipt:
    """Where a page's reward comes from. `total` = `constant` + sum over all parts and slots."""

    items: np.ndarray  # [slot] catalog indexes
    parts: dict[str, F64]  # each family and "item" -> [slot] what the slot adds
    constant: float  # what whitening gives every page, less what caution takes off this one
    total: float
    alone: dict[int, float]  # filled slot -> what the page would lose without it
    swap: tuple[int, int, float] | None  # of the exchanges of two slots that may be, the one that gains most, and its gain
    disagreement: float  # standard deviation of the total over the ensemble


def _exchanged(items: I32, slots: tuple[int, int]) -> I32:
    """The page [slot] with the items of two slots exchanged."""
    out, (a, b) = items.copy(), slots
    out[a], out[b] = items[b], items[a]
    return out
