"""What each candidate would be to the page so far, and what that adds to its logit.

    addition(candidate | page so far) = w · relations + MLP(relations)

Relations are those of `data.page_relations` to the slots before: the policy sees of repetition what the rewards see, so that it can learn
any trade-off between what is wanted and what is new, per user and slot; maximal marginal relevance (Carbonell and Goldstein 1998) is the
special case in which one relation has a fixed weight. Takes candidates and choices, gives numbers; zero until trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.data.likeness import Likeness
from pagellm.models.device import tensor_for

BEFORE = ("title_before", "kin_before", "alike_before", "nearest_before", "theme_before", "brand_before", "filled", "opinion")
"""Largest title cosine with a slot before; near-duplicates before, as log(1 + n); mean and largest content cosine; shares of the slots
before that are of its category and of its brand; n / (n + 10) for n filled slots; a tenth of its logit below the context's best."""

_PAIRWISE = 5  # title cosine, near-duplicate, content cosine, same category, same brand


@dataclass(frozen=True)
class Pool:
    """What is compared of each context's candidates."""

    titles: Float[Tensor, "context candidate title_dim"]
    vectors: Float[Tensor, "context candidate dim"]
    codes: Int[Tensor, "context candidate 3"]  # group, category, brand; -1 where unknown
    opinion: Float[Tensor, "context candidate"]  # last of BEFORE


@dataclass
class SoFar:
    """Running sums and maxima over the slots of pages that are filled. Axes: context, page, (candidate)."""

    filled: Tensor  # [context, page]
    largest: Tensor  # [context, page, candidate, 2] title and content cosine
    total: Tensor  # [context, page, candidate, 4] near-duplicates, content cosine, same category, same brand


class PageEvidence(nn.Module):
    """The addition to the logits. `attach` gives it the likeness of items, which belongs to a catalog and not to the weights."""

    titles: Tensor | None  # [item, title_dim]; this and the next two are None until `attach`
    vectors: Tensor  # [item, dim]
    codes: Tensor  # [item, 3] group, category, brand

    def __init__(self, hidden: int) -> None:
        super().__init__()
        for name in ("titles", "vectors", "codes"):
            self.register_buffer(name, None, persistent=False)
        self.alike = 1.0
        self.linear = nn.Linear(len(BEFORE), 1, bias=False)
        self.relations = nn.Linear(len(BEFORE), hidden)
        self.outer = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.outer.weight)

    @property
    def active(self) -> bool:
        """Whether it adds anything: False until trained."""
        return bool(self.linear.weight.any()) or bool(self.outer.weight.any())

    def attach(self, likeness: Likeness) -> None:
        """Takes what items are compared by."""
        self.alike = likeness.alike
        self.titles, self.vectors = tensor_for(self, likeness.titles), tensor_for(self, likeness.vectors)
        self.codes = tensor_for(self, np.stack([likeness.groups, likeness.themes, likeness.brands], 1).astype(np.int64))

    def pool(self, pool: Int[Tensor, "context candidate"], base: Float[Tensor, "context candidate"]) -> Pool:
        """What is read once a context; `base` are the logits before anything stands on the page."""
        assert self.titles is not None, "attach a likeness before pages are written with page evidence"
        known = pool.clamp_min(0)
        finite = base.detach().masked_fill(pool < 0, -torch.inf)
        best = finite.amax(-1, keepdim=True)
        opinion = torch.where(pool < 0, 0.0, (base.detach() - torch.where(best.isfinite(), best, 0.0)).clamp(-30, 0) / 10)
        return Pool(self.titles[known], self.vectors[known], self.codes[known], opinion)

    def blank(self, pool: Pool, pages: int) -> SoFar:
        """Pages on which nothing stands yet."""
        contexts, candidates = pool.opinion.shape
        zeros = pool.opinion.new_zeros
        return SoFar(zeros(contexts, pages), zeros(contexts, pages, candidates, 2), zeros(contexts, pages, candidates, 4))

    def put(self, so_far: SoFar, pool: Pool, choice: Int[Tensor, "context page"]) -> None:
        """Counts one more slot a page; negative choices left it empty."""
        pairs = self._pairs(pool, choice[..., None])[:, :, 0]
        so_far.filled = so_far.filled + (choice >= 0)
        so_far.largest = torch.maximum(so_far.largest, pairs[..., :3:2])
        so_far.total = so_far.total + pairs[..., 1:]

    def addition(self, so_far: SoFar, pool: Pool) -> Float[Tensor, "context page candidate"]:
        """For the slot that follows."""
        return self._add(so_far.filled, so_far.largest, so_far.total, pool)

    def additions(self, pool: Pool, choice: Int[Tensor, "context page slot"]) -> Float[Tensor, "context page slot candidate"]:
        """For every slot of finished pages, from the slots before each."""
        pairs = self._pairs(pool, choice)
        pairs = torch.cat([torch.zeros_like(pairs[:, :, :1]), pairs[:, :, :-1]], 2)
        filled = (choice >= 0).cumsum(2) - (choice >= 0).int()
        return self._add(filled.float(), pairs[..., :3:2].cummax(2).values, pairs[..., 1:].cumsum(2), pool)

    def _pairs(self, pool: Pool, choice: Int[Tensor, "context page slot"]) -> Float[Tensor, "context page slot candidate 5"]:
        """What each candidate is to the item in each slot; zeros for empty slots."""
        contexts, candidates = pool.opinion.shape
        at = choice.clamp_min(0).flatten(1)  # [context, page · slot]
        titles, content = (
            a.gather(1, at[..., None].expand(-1, -1, a.shape[-1])) @ a.mT for a in (pool.titles, pool.vectors)
        )  # [context, page · slot, candidate]
        codes = pool.codes.gather(1, at[..., None].expand(-1, -1, 3))
        same = (codes[:, :, None] == pool.codes[:, None]) & (codes >= 0)[:, :, None]
        others = torch.arange(candidates, device=at.device) != at[..., None]
        kin = ((titles > self.alike) | same[..., 0]) & others
        pairs = torch.stack([titles, kin.float(), content, same[..., 1].float(), same[..., 2].float()], -1)
        pairs = pairs * (choice.flatten(1) >= 0)[..., None, None]
        return pairs.view(contexts, *choice.shape[1:], candidates, _PAIRWISE)

    def _add(self, filled: Tensor, largest: Tensor, total: Tensor, pool: Pool) -> Tensor:
        """Shapes [context, page, …], [context, page, …, candidate, any]."""
        n = filled[..., None]
        shares = total[..., 1:] / n.clamp_min(1)[..., None]
        between = (None,) * (largest.ndim - 3)  # axes of page and slot
        opinion = pool.opinion[(slice(None), *between)].expand(largest.shape[:-1])
        columns = (
            largest[..., 0].clamp_min(0), total[..., 0].log1p(), shares[..., 0], largest[..., 1].clamp_min(0),
            shares[..., 1], shares[..., 2], (n / (n + 10)).expand(largest.shape[:-1]), opinion,
        )  # fmt: skip
        relations = torch.stack(columns, -1)
        inner = torch.nn.functional.gelu(self.relations(relations))
        return (self.linear(relations) + self.outer(inner)).squeeze(-1)
