"""Pages that the policy itself would write in the reward window: what the parts of a reward are weighed on.

A reward has to tell apart pages that its policy writes, not pages with planted defects: on a policy's own pages scores of relevance differ
many times more than scores of repetition do, whatever a typical pair of each says. Takes a pair source and a reader; knows no loss.
"""

from __future__ import annotations

import numpy as np
import torch

from pagellm.data.contexts import contexts_between
from pagellm.data.look import Look
from pagellm.models.device import device_of
from pagellm.models.multi_grained import RewardModel, Whitening
from pagellm.models.page_inputs import PageReader, PageTable
from pagellm.models.reward import FAMILIES, RewardNet
from pagellm.training.pair_sources import PairSource
from pagellm.types import NO_ITEM

PAGES_EACH = 8  # pages a context
_TOGETHER = 200  # contexts whose pages are scored at once: a context's own are never parted
_ROUNDING = 1e-5  # of a score's size: differences below it are rounding


def own_pages(
    source: PairSource,
    reader: PageReader,
    look: Look,
    places: tuple[np.ndarray, np.ndarray],
    temperature: float,
    most: int,
    seed: int,
) -> PageTable:
    """`PAGES_EACH` pages for each of at most `most` contexts, drawn from the policy's softmax at this temperature, none item twice.

    `places` are (row, column) [slot] of the pages' slots. Gumbel top-k draws without replacement (Kool et al. 2019).
    """
    rng = np.random.default_rng((seed, 4))
    contexts = contexts_between(source.log, source.begin, source.end)
    contexts = contexts.take(contexts.warm & source.counts(contexts.user))
    contexts = contexts.take(np.sort(rng.permutation(len(contexts))[:most]))
    pool, logits = source.candidates(contexts)
    row, col = (np.tile(a.astype(np.int16), (len(contexts) * PAGES_EACH, 1)) for a in places)
    noise = rng.gumbel(size=(len(contexts), PAGES_EACH, pool.shape[1]))
    order = np.argsort(-(logits[:, None] / temperature + noise), axis=2, kind="stable")[:, :, : row.shape[1]]
    items = np.take_along_axis(pool[:, None], order, 2).reshape(-1, order.shape[2])
    items = np.pad(items, ((0, 0), (0, row.shape[1] - items.shape[1])), constant_values=NO_ITEM)
    place = np.repeat(np.arange(len(contexts)), PAGES_EACH)
    return reader.read(contexts, place, items, look.of(items, row, col))


@torch.no_grad()
def measure_spread(net: RewardNet, pages: PageTable) -> None:
    """Sets what families are weighed by: the deviation of a family's score among pages of one context, and its mean as the center.

    Contexts differ more in how much anybody engages than pages of one do, and a policy can only choose among the latter. A head that tells
    nothing apart (see `calibrate`) gets spread 1: its differences are rounding, not to be blown up.
    """
    parts = _whole_contexts(pages)
    scores = torch.cat([net.page_scores(pages.inputs(some).to(device_of(net))).mean(-1) for some in parts]).cpu().double().numpy()
    place = pages.place[np.concatenate(parts)]
    net.center.copy_(torch.from_numpy(scores.mean(0)))
    for family in range(len(FAMILIES)):
        found = Whitening()
        found.update(scores[:, family], place)
        rounding = found.spread <= _ROUNDING * np.abs(scores[:, family]).mean()
        net.spread[family] = 1.0 if rounding else found.spread


def whitened(model: RewardModel, pages: PageTable) -> tuple[Whitening, Whitening]:
    """Whitening of the page reward and of the sum of the item rewards over these pages."""
    page, item = Whitening(), Whitening()
    for some in _whole_contexts(pages):
        scores = model.of_inputs(pages.inputs(some))
        page.update(scores.page_total.mean(1), pages.place[some])
        item.update(scores.item.mean(2).sum(1), pages.place[some])
    return page, item


def _whole_contexts(pages: PageTable) -> list[np.ndarray]:
    """The pages in order of their contexts, in parts that hold all pages of each of theirs."""
    order = np.argsort(pages.place, kind="stable")
    starts = np.searchsorted(pages.place[order], np.arange(_TOGETHER, int(pages.place.max(initial=0)) + 1, _TOGETHER))
    return [part for part in np.split(order, starts) if len(part)]
