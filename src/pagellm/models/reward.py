"""The rewards as a network: one head a family of pairs and one for single slots, on a trunk that they share.

    page reward = sum over families of weight · score / spread
    relevance  = mean over slots of p(engaged)            ranking    = mean over slots of p(engaged), weighted by look
    diversity  = - mean over slots of cost(relations)     redundancy = - mean over slots of cost(relations)
    item reward of a slot = look · p(engaged)

Relevance, ranking and item heads start at the policy's own logit and learn what later feedback says beside it: log-odds = trust · logit +
head(evidence), the head zero at the start. They read the evidence of an item and nothing of the page; diversity and redundancy read what a
slot is to the page and to the history and nothing of the evidence. So no head can learn its family from what belongs to another one, and a
swap of two items changes two slots of the item reward alone. A second copy of an item, or what its user has already, is worth nothing
wherever it stands. Every score is a sum over slots: the receipt of a page is exact.

Takes inputs of pages, gives tensors. Knows no log, no pairs, no files and no training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pagellm.config import RewardConfig
from pagellm.data.page_relations import RELATIONS
from pagellm.data.preferences.pairs import Family
from pagellm.models.page_inputs import CONSUMED, FEATURES, REPEAT, PageInputs

FAMILIES = tuple(family.name.lower() for family in Family if family != Family.SWAP)
"""Heads of the page reward, by the code of their `Family`."""

VALUED = ("relevance", "ranking", "item")
"""Heads that say how likely an item is engaged with."""


class Members(nn.Module):
    """An ensemble of small networks on one vector, side by side (Lakshminarayanan et al. 2017)."""

    def __init__(self, dims: int, hidden: int, members: int) -> None:
        super().__init__()
        self.shape = (members, hidden)
        self.inner = nn.Linear(dims, members * hidden)
        self.outer = nn.Parameter(torch.randn(members, hidden) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(members))

    def forward(self, x: Float[Tensor, "... dim"]) -> Float[Tensor, "... member"]:
        """One number a member."""
        return (F.gelu(self.inner(x)).unflatten(-1, self.shape) * self.outer).sum(-1) + self.bias


class RewardNet(nn.Module):
    """All weights of both rewards. Buffers hold what standardizes the inputs, the calibration and the spread of each family's score."""

    items_mean: Tensor
    items_deviation: Tensor
    relations_mean: Tensor
    relations_deviation: Tensor
    slope: Tensor  # [valued head]
    intercept: Tensor
    spread: Tensor  # [family]
    center: Tensor

    def __init__(self, config: RewardConfig, repeats: bool = False, columns: int = len(FEATURES)) -> None:
        """`repeats`: whether users take things again; else what the history holds is worth nothing on a page. `columns`: how many an
        item has."""
        super().__init__()
        self.repeats, self.members = repeats, config.members
        hidden = config.hidden
        for name, size in (("items", columns), ("relations", len(RELATIONS))):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_deviation", torch.ones(size))
        self.register_buffer("slope", torch.ones(len(VALUED)))
        self.register_buffer("intercept", torch.zeros(len(VALUED)))
        self.register_buffer("spread", torch.ones(len(FAMILIES)))
        self.register_buffer("center", torch.zeros(len(FAMILIES)))
        self.item_trunk = _trunk(columns, hidden)
        self.page_trunk = _trunk(len(RELATIONS), hidden)
        self.price = nn.Parameter(torch.ones(config.members))  # of a stale slot, before softplus
        self.heads = nn.ModuleDict({name: Members(hidden, config.head_hidden, config.members) for name in (*FAMILIES, "item")})
        self.trust = nn.Parameter(torch.ones(len(VALUED)))  # in the policy's logit
        for name in VALUED:
            nn.init.zeros_(self.heads[name].outer)  # type: ignore[arg-type]

    def standardize(self, items: Float[Tensor, "row feature"], relations: Float[Tensor, "row relation"]) -> None:
        """Takes mean and deviation of these rows."""
        for name, rows in (("items", items), ("relations", relations)):
            deviation = rows.std(0, correction=0)
            getattr(self, f"{name}_mean").copy_(rows.mean(0))
            getattr(self, f"{name}_deviation").copy_(torch.where(deviation < 1e-6, 1.0, deviation.clamp_min(1e-3)))

    def item_vectors(self, items: Float[Tensor, "... feature"]) -> Float[Tensor, "... dim"]:
        """What the value heads read of each item: the trunk's vector and, last, the policy's logit as it is."""
        out: Tensor = self.item_trunk((items - self.items_mean) / self.items_deviation)
        return torch.cat([out, items[..., -1:]], -1)

    def log_odds(self, name: str, vectors: Float[Tensor, "... dim"]) -> Float[Tensor, "... member"]:
        """What a value head (see VALUED) finds of items, up to a constant that only calibration sets."""
        known: Tensor = self.trust[VALUED.index(name)] * vectors[..., -1:]
        out: Tensor = known + self.heads[name](vectors[..., :-1])
        return out

    def chances(self, name: str, vectors: Float[Tensor, "... dim"]) -> Float[Tensor, "... member"]:
        """Calibrated chance that an item is engaged with where it is seen."""
        place = VALUED.index(name)
        return torch.sigmoid(self.slope[place] * self.log_odds(name, vectors) + self.intercept[place])

    def costs(self, relations: Float[Tensor, "page slot relation"]) -> Float[Tensor, "page slot family member"]:
        """What each slot costs in diversity and redundancy (the last two families), at least 0; a stale slot pays a price of its own."""
        vectors = self.page_trunk((relations - self.relations_mean) / self.relations_deviation)
        diversity, redundancy = (F.softplus(self.heads[name](vectors)) for name in FAMILIES[2:])
        return torch.stack([diversity, redundancy + self.stale(relations)[..., None] * F.softplus(self.price)], -2)

    def stale(self, relations: Float[Tensor, "page slot relation"]) -> Float[Tensor, "page slot"]:
        """1 where a slot holds a second copy on its page, or what the user has already (unless users take things again)."""
        again = relations[..., REPEAT] > 0.5
        return (again if self.repeats else again | (relations[..., CONSUMED] > 0.5)).float()

    def fresh(self, inputs: PageInputs) -> Float[Tensor, "page slot"]:
        """1 where a slot can be worth something: filled and not stale."""
        return inputs.real * (1 - self.stale(inputs.relations))

    def page_parts(self, inputs: PageInputs, vectors: Tensor | None = None) -> Float[Tensor, "page slot family member"]:
        """What each slot adds to each family's score."""
        vectors = self.item_vectors(inputs.items) if vectors is None else vectors
        fresh, real = self.fresh(inputs)[..., None], inputs.real[..., None].float()
        even = real / real.sum(1, keepdim=True).clamp_min(1)
        look = inputs.look[..., None] / inputs.look.sum(1)[:, None, None].clamp_min(1e-9)
        relevance = even * fresh * self.chances("relevance", vectors)
        ranking = look * fresh * self.chances("ranking", vectors)
        costs = self.costs(inputs.relations) * even[..., None]
        return torch.cat([relevance[..., None, :], ranking[..., None, :], -costs], -2)

    def page_scores(self, inputs: PageInputs) -> Float[Tensor, "page family member"]:
        """Score of each family."""
        return self.page_parts(inputs).sum(1)

    def item_parts(self, inputs: PageInputs, vectors: Tensor | None = None) -> Float[Tensor, "page slot member"]:
        """Expected engagement of each slot: the chance that its place is looked at times the chance that its item is engaged with."""
        vectors = self.item_vectors(inputs.items) if vectors is None else vectors
        return (inputs.look * self.fresh(inputs))[..., None] * self.chances("item", vectors)


def _trunk(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
