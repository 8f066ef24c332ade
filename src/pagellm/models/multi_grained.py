"""Both rewards as callables on pages, and their combination.

    R(slot) = (1 - alpha) · whitened item reward of the slot, plus alpha · whitened page reward at the last filled slot

Whitening brings the page reward and the sum of the item rewards to spread 1 over pages, so that alpha means the same in every shop.
Takes pages as catalog indexes, gives numbers. Knows no training and no files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch

from pagellm.config import RewardConfig
from pagellm.data.look import Look
from pagellm.models.page_inputs import PageInputs, PageReader
from pagellm.models.reward import FAMILIES, RewardNet
from pagellm.types import F32, F64, NO_ITEM, PageBatch

_CHUNK = 2_048  # pages that are scored at once


@dataclass(frozen=True)
class Scores:
    """What both rewards find of pages, by member of the ensemble."""

    page: F32  # [page, slot, family, member] what each slot adds to the page reward: weight · part / spread
    base: float  # what the page reward adds for every page: -sum of weight · center / spread
    item: F32  # [page, slot, member] item reward of each slot

    @property
    def page_total(self) -> F32:
        """[page, member] the page reward."""
        return np.asarray(self.page.sum((1, 2)) + self.base, np.float32)


@dataclass(frozen=True)
class RewardModel:
    """The learned rewards of a run: a network, the eyes that it reads pages with, and weights of the families."""

    net: RewardNet
    reader: PageReader
    look: Look
    config: RewardConfig

    def scores(self, pages: PageBatch) -> Scores:
        """Scores of pages. Raises DataError for an item that is not in the catalog or may not be shown."""
        look = self.look.of(pages.items, pages.row, pages.col)
        table = self.reader.read(pages.contexts, pages.place, pages.items, look)
        parts = [self.of_inputs(table.inputs(slice(at, at + _CHUNK))) for at in range(0, max(len(table), 1), _CHUNK)]
        return Scores(np.concatenate([p.page for p in parts]), parts[0].base, np.concatenate([p.item for p in parts]))

    @torch.no_grad()
    def of_inputs(self, inputs: PageInputs) -> Scores:
        """Scores of pages that are already read: the item trunk runs once for all heads."""
        vectors = self.net.item_vectors(inputs.items)
        scale = torch.tensor([getattr(self.config, name) for name in FAMILIES]) / self.net.spread
        page = self.net.page_parts(inputs, vectors) * scale[:, None]
        base = -float((scale * self.net.center).sum())
        return Scores(page.numpy(), base, self.net.item_parts(inputs, vectors).numpy())


@dataclass(frozen=True)
class LearnedPageReward:
    """The coarse reward: how good a page is as a whole. Mean over the ensemble minus `caution` deviations."""

    model: RewardModel
    caution: float = 0.0

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page]."""
        total = self.model.scores(pages).page_total
        return np.asarray(total.mean(1) - self.caution * total.std(1), np.float32)


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
    """Running mean and spread of one number a page (Welford 1962; Chan et al. 1979 for batches)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean

    def update(self, values: np.ndarray) -> None:
        """Takes in more values."""
        n = float(len(values))
        if not n:
            return
        mean = float(np.mean(values, dtype=np.float64))
        apart, total = mean - self.mean, self.count + n
        self.squares += float(((values - mean) ** 2).sum(dtype=np.float64)) + apart**2 * self.count * n / total
        self.mean += apart * n / total
        self.count = total

    @property
    def spread(self) -> float:
        """Standard deviation; 1 until something differs."""
        return max((self.squares / self.count) ** 0.5, 1e-9) if self.squares > 0 else 1.0


@dataclass
class MultiGrainedReward:
    """Page and item reward in one: a number a slot, whose sum over the page is its reward."""

    model: RewardModel
    page: Whitening = field(default_factory=Whitening)
    item: Whitening = field(default_factory=Whitening)  # of the sum over a page's slots
    caution: float = 0.0  # deviations of the ensemble that are taken off the page reward

    @property
    def alpha(self) -> float:
        """Share of the page reward."""
        return self.model.config.alpha

    def __call__(self, pages: PageBatch, learn: bool = False) -> F32:
        """Shape [page, slot]. With `learn` these pages count in the whitening first."""
        scores = self.model.scores(pages)
        page, item = self._pessimistic(scores), scores.item.mean(2, dtype=np.float64)
        if learn:
            self.page.update(page)
            self.item.update(item.sum(1))
        real = pages.items != NO_ITEM
        size = np.maximum(real.sum(1, keepdims=True), 1)
        out = (1 - self.alpha) * (item - self.item.mean / size) / self.item.spread * real
        last = np.where(real.any(1), real.shape[1] - 1 - real[:, ::-1].argmax(1), 0)
        out[np.arange(len(out)), last] += self.alpha * (page - self.page.mean) / self.page.spread
        return out.astype(np.float32)

    def _pessimistic(self, scores: Scores) -> F64:
        total = scores.page_total.astype(np.float64)
        return np.asarray(total.mean(1) - self.caution * total.std(1), np.float64)

    def explain(self, pages: PageBatch) -> list[Receipt]:
        """The receipt of each page: where its reward comes from, to the last slot."""
        return [self._receipt(pages.take(np.array([p]))) for p in range(len(pages))]

    def _receipt(self, page: PageBatch) -> Receipt:
        filled = np.flatnonzero(page.items[0] != NO_ITEM)
        variants = [page.items[0]]
        for slot in filled:
            without = page.items[0].copy()
            without[slot] = NO_ITEM
            variants.append(without)
        swaps = list(combinations(filled.tolist(), 2))
        for a, b in swaps:
            exchanged = page.items[0].copy()
            exchanged[[a, b]] = exchanged[[b, a]]
            variants.append(exchanged)
        n = len(variants)
        batch = PageBatch(
            page.contexts,
            np.repeat(page.place, n),
            np.array(variants, np.int32),
            np.repeat(page.row, n, 0),
            np.repeat(page.col, n, 0),
        )
        scores = self.model.scores(batch)
        item = (1 - self.alpha) * scores.item.astype(np.float64) / self.item.spread  # [variant, slot, member]
        parts = self.alpha * scores.page.astype(np.float64) / self.page.spread  # [variant, slot, family, member]
        constant = (
            self.alpha * (scores.base - self.page.mean) / self.page.spread - (1 - self.alpha) * self.item.mean / self.item.spread
        )
        totals = item.sum(1) + parts.sum((1, 2)) + constant  # [variant, member]
        mean = totals.mean(1)
        gains = mean[1 + len(filled) :] - mean[0]
        best = int(gains.argmax()) if len(gains) else -1
        return Receipt(
            page.items[0],
            {name: parts[0, :, place].mean(-1) for place, name in enumerate(FAMILIES)} | {"item": item[0].mean(-1)},
            float(constant),
            float(mean[0]),
            {int(slot): float(mean[0] - mean[1 + at]) for at, slot in enumerate(filled)},
            (*swaps[best], float(gains[best])) if best >= 0 else None,
            float(totals[0].std()),
        )


@dataclass(frozen=True)
class Receipt:
    """Where a page's reward comes from. `total` = `constant` + sum over all parts and slots."""

    items: np.ndarray  # [slot] catalog indexes
    parts: dict[str, F64]  # each family and "item" -> [slot] what the slot adds
    constant: float  # what whitening takes off every page
    total: float
    alone: dict[int, float]  # filled slot -> what the page would lose without it
    swap: tuple[int, int, float] | None  # the exchange of two slots that gains most (loses least), and its gain
    disagreement: float  # standard deviation of the total over the ensemble
