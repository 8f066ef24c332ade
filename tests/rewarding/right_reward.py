"""A reward that knows what users want, so that every law holds, and one that is wrong in one way for each law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.config import RewardConfig
from pagellm.data.look import Look
from pagellm.data.page_relations import RELATIONS
from pagellm.models.multi_grained import MultiGrainedReward, RewardModel, Scores
from pagellm.models.page_inputs import PageReader, PageTable
from pagellm.models.reward import RewardNet
from pagellm.rewarding.readers import SeesDouble
from pagellm.rewarding.trial import first_of_two
from pagellm.types import F32, I32, NO_ITEM, Contexts, PageBatch
from tiny_run import fresh_run

HIDDEN = 7


def _catalog() -> Catalog:
    frame = small_catalog().frame
    return Catalog(frame.with_columns(pl.Series("hidden", [place == HIDDEN for place in range(len(frame))])))


RUN = fresh_run(_catalog(), small_log(400), "split.held_out=0.5")


def wanted(contexts: Contexts, place: np.ndarray, items: I32) -> np.ndarray:
    """[page, slot] 1 where the item is in the basket that the context's user takes at its very time."""
    log, out = contexts.log, np.zeros(items.shape)
    for p, c in enumerate(place):
        basket = (log.user == contexts.user[c]) & (log.time == contexts.time[c])
        out[p] = np.isin(items[p], log.item[basket])
    return out


class Right(RewardModel):
    """Wanted items are engaged with nine times in ten where they are seen, others once; likeness and repetition cost."""

    def scores(self, pages: PageBatch, logged: bool = False) -> Scores:
        look = self.look.of(pages.items, pages.row, pages.col)
        return self.judged(pages, self.reader.read(pages.contexts, pages.place, pages.items, look, logged))

    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        relation = dict(zip(RELATIONS, np.moveaxis(table.relations, 2, 0), strict=True))
        fresh = table.real & (relation["repeat"] == 0) & (relation["consumed"] == 0)
        seen = (
            first_of_two(pages.items) if isinstance(self.reader, SeesDouble) else pages.items
        )  # whoever sees two as one wants both
        chance = fresh * (0.1 + 0.8 * wanted(pages.contexts, pages.place, seen))
        size = table.real.sum(1, keepdims=True)
        costs = relation["title"] + relation["repeat"] + relation["consumed"] + relation["brand"]
        order = table.look / table.look.sum(1, keepdims=True)
        page = np.stack([chance / size, chance * order, -relation["alike"] / size, -costs / size], 2)
        return Scores(page[..., None].astype(np.float32), 0.0, (chance * table.look)[..., None].astype(np.float32))


class LikesCopies(Right):
    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, page=scores.page + table.relations[:, :, RELATIONS.index("repeat"), None, None])


class LikesBadPlaces(Right):
    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, item=scores.item * ((1.1 - table.look) / np.maximum(table.look, 0.1))[..., None])


class CountsSlots(Right):
    """Knows the number of a slot, whatever its place is worth."""

    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, item=scores.item * (0.9 ** np.arange(table.real.shape[1]))[:, None].astype(np.float32))


class RanksByNumber(Right):
    """The same in the ranking part of the page reward alone."""

    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        page = scores.page.copy()
        page[:, :, 1] *= (0.9 ** np.arange(table.real.shape[1]))[:, None]
        return replace(scores, page=page)


class KnowsNumbers(Right):
    """Likes items of odd numbers a little more than whatever is read of them says."""

    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, item=scores.item * (1 + 0.05 * (pages.items % 2))[..., None].astype(np.float32))


class ReadsAll(Right):
    """Likes items a little more where what is read of them is more."""

    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        more = np.tanh(table.rows.mean(1))[table.index]
        return replace(scores, item=scores.item * (1 + 0.05 * more)[..., None].astype(np.float32))


class LooksAtOthers(Right):
    """Compares each page a little with the others that are scored with it."""

    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, page=scores.page - 0.05 * scores.page.mean(0))


class LikesTheOwned(Right):
    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, page=scores.page + 2 * table.relations[:, :, RELATIONS.index("consumed"), None, None])


class ScoresAnything(Right):
    """Takes an item that cannot be for an empty slot."""

    def scores(self, pages: PageBatch, logged: bool = False) -> Scores:
        real = (pages.items >= 0) & (pages.items < len(RUN.catalog))
        return super().scores(pages.with_items(np.where(real, pages.items, NO_ITEM).astype(np.int32)), True)


class Backwards(Right):
    def judged(self, pages: PageBatch, table: PageTable) -> Scores:
        scores = super().judged(pages, table)
        return replace(scores, page=-scores.page)


class Comparing(PageReader):
    """Reads items beside the mean of the candidates, in whatever order they come."""

    def features(self, contexts: Contexts, pool: I32) -> F32:
        found = super().features(contexts, pool)
        return found - found.mean(1, keepdims=True)


def reward_of(kind: type[RewardModel], reader: type[PageReader] = PageReader) -> MultiGrainedReward:
    """A reward of this kind on the small shop."""
    config = RewardConfig(members=1)
    eyes = reader(RUN.net, RUN.evidence, RUN.likeness, RUN.catalog.shown, 20)
    return MultiGrainedReward(kind(RewardNet(config).eval(), eyes, Look(), config))
