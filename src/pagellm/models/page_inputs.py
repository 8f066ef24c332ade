"""What rewards read of pages: the evidence of each item, what it is to the rest of the page, how much its place is looked at.

Takes contexts and pages as catalog indexes, gives tensors. A page's inputs depend on its context and its items alone, never on which other
items were considered. Knows no reward, no pairs and no rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool as BoolT
from jaxtyping import Float
from torch import Tensor

from pagellm.data.evidence import NAMES, Evidence
from pagellm.data.likeness import Likeness
from pagellm.data.page_relations import RELATIONS, page_relations
from pagellm.errors import DataError
from pagellm.models.device import tensor_for
from pagellm.models.policy import PolicyNet
from pagellm.models.pools import read_contexts
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Contexts

OPINIONS = ("language_model", "policy")
"""The language model's log-probability over the catalog, the evidence head's logit."""

FEATURES = (*NAMES, *OPINIONS)
"""Columns of `PageInputs.items` for a log without pages; for one of pages see `PageReader.columns`."""

CONSUMED, REPEAT = RELATIONS.index("consumed"), RELATIONS.index("repeat")

_CHUNK = 256  # contexts whose evidence is held at once


@dataclass(frozen=True)
class PageInputs:
    """A batch of pages, ready for a reward."""

    items: Float[Tensor, "page slot feature"]  # see `PageReader.columns`
    relations: Float[Tensor, "page slot relation"]  # see RELATIONS
    look: Float[Tensor, "page slot"]  # chance that the place is looked at, 0 where the slot is empty
    real: BoolT[Tensor, "page slot"]  # False where the slot is empty

    def __len__(self) -> int:
        return len(self.look)

    def to(self, device: torch.device) -> PageInputs:
        """The same on a device."""
        return PageInputs(*(a.to(device) for a in (self.items, self.relations, self.look, self.real)))


@dataclass(frozen=True)
class PageTable:
    """Many pages. Each item of a context is held once, however many of its pages have it."""

    rows: F32  # [row, feature] one row an item of a context
    index: I64  # [page, slot] into `rows`; 0 where the slot is empty
    relations: F32  # [page, slot, relation]
    look: F32  # [page, slot]
    real: Bool  # [page, slot]
    place: I64  # [page] which context each page is for

    def __len__(self) -> int:
        return len(self.index)

    def inputs(self, places: np.ndarray | slice = slice(None)) -> PageInputs:
        """The pages at these places."""
        items = self.rows[self.index[places]] * self.real[places][..., None]
        arrays = (items, self.relations[places], self.look[places], self.real[places])
        return PageInputs(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


@dataclass(frozen=True)
class PageReader:
    """Reads pages with the eyes of a run: its evidence, its language model as it was fitted, its catalog."""

    net: PolicyNet
    evidence: Evidence
    likeness: Likeness
    allowed: Bool  # [item] what may be shown
    max_history: int

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of an item: its evidence and both opinions of the run's policy."""
        return (*self.evidence.names, *OPINIONS)

    def read(self, contexts: Contexts, place: I64, pages: I32, look: F32, logged: bool = False) -> PageTable:
        """The table of pages [page, slot]; `place` [page] is the context of each, `look` [page, slot] what their places are worth.

        Raises DataError for an item that is not in the catalog or may not be shown: such a page has no reward. With `logged` pages may hold
        what is hidden by now, as pages that were shown in the past do.
        """
        self._check(pages, logged)
        if len(place) and not 0 <= int(place.min()) <= int(place.max()) < len(contexts):
            raise DataError(
                f"Pages to be scored are of contexts {int(place.min())} to {int(place.max())}, and there are {len(contexts):,}, from 0."
            )
        order = np.argsort(place, kind="stable")  # pages of one context side by side
        index, begin = np.zeros(pages.shape, np.int64), 1
        rows = [np.zeros((1, len(self.columns)), np.float32)]  # what empty slots point to
        bounds = np.searchsorted(place[order], np.arange(0, len(contexts) + _CHUNK, _CHUNK))
        for first, last in pairwise(bounds):
            some = order[first:last]
            if not len(some):
                continue
            which = np.unique(place[some])
            pools, at = _unions(pages[some], np.searchsorted(which, place[some]), len(which))
            flat, found = self._rows(contexts.take(which), pools)
            index[some] = np.where(pages[some] >= 0, begin + found[np.searchsorted(which, place[some])[:, None], at], 0)
            rows.append(flat)
            begin += len(flat)
        every = np.concatenate(rows)
        real = pages != NO_ITEM
        relations = page_relations(pages, contexts, place, self.likeness)
        return PageTable(every, index, relations, np.where(real, look, 0).astype(np.float32), real, place)

    @torch.no_grad()
    def features(self, contexts: Contexts, pool: I32) -> F32:
        """`columns` of any items for each context. Shape [context, candidate, feature]; zeros where the pool is empty (NO_ITEM)."""
        evidence = self.evidence.features(contexts, pool)
        h = read_contexts(self.net, contexts, self.max_history)
        if self.net.blind:
            h = torch.zeros_like(h)
        places = tensor_for(self.net, pool.astype(np.int64)).clamp_min(0)
        table = self.net.item_vectors()
        whole = torch.cat([(some @ table.T + self.net.bias).logsumexp(-1) for some in h.split(_CHUNK)])
        logits = torch.einsum("ncd,nd->nc", table[places], h) + self.net.bias[places]
        base = logits - whole[:, None]
        opinion = self.net.evidence(tensor_for(self.net, evidence), base)
        out = np.concatenate([evidence, base[..., None].cpu().numpy(), opinion[..., None].cpu().numpy()], 2)
        out[pool == NO_ITEM] = 0
        return np.asarray(out, np.float32)

    def _rows(self, contexts: Contexts, pools: I32) -> tuple[F32, I64]:
        """(rows [row, feature] of all items of the pools, row [context, candidate] of each)."""
        real = pools >= 0
        number = np.cumsum(real.ravel()).reshape(real.shape) - 1
        return self.features(contexts, pools)[real], number.astype(np.int64)

    def _check(self, pages: I32, logged: bool) -> None:
        items = pages[pages != NO_ITEM]
        outside = (items < 0) | (items >= len(self.allowed))
        if outside.any():
            raise DataError(
                f"A page to be scored holds item {int(items[outside][0])}, which is not in the catalog of {len(self.allowed):,} items. "
                "Score pages of this catalog's items."
            )
        hidden = ~self.allowed[items]
        if hidden.any() and not logged:
            raise DataError(
                f"A page to be scored holds item {int(items[hidden][0])}, which is hidden and may not be shown. Score pages without it."
            )


def _unions(pages: I32, group: I64, groups: int) -> tuple[I32, I64]:
    """(pool [group, any] of each group's items, rising and NO_ITEM at the end; place [page, slot] of every slot's item in its pool)."""
    filled = pages >= 0
    width = int(pages.max(initial=0)) + 1
    keys = (group[:, None] * width + pages)[filled]
    unique, inverse = np.unique(keys, return_inverse=True)
    owner = unique // width
    first = np.searchsorted(owner, np.arange(groups))
    within = np.arange(len(unique)) - first[owner]
    pool = np.full((groups, max(int(within.max(initial=0)) + 1, 1)), NO_ITEM, np.int32)
    pool[owner, within] = unique % width
    place = np.zeros(pages.shape, np.int64)
    place[filled] = within[inverse]
    return pool, place
