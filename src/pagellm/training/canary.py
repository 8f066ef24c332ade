"""The canary: what the policy's pages are worth to users that nothing has learned from, by what they really did next.

    page value = hits / hits of the reference policy - duplicate_cost · share of slots that hold a near-duplicate

with hits as NDCG over the slots of the page, weighed by how much each place is looked at. A learned reward can be fooled, later feedback
cannot, so training is stopped by this and never by the reward. Takes a policy and contexts with later baskets; knows no loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pagellm.config import PPOConfig
from pagellm.data.likeness import Likeness
from pagellm.data.look import Look
from pagellm.data.page_relations import RELATIONS, page_relations
from pagellm.models.policy import PolicyNet
from pagellm.training.later_feedback import look_ndcg
from pagellm.training.rollouts import Asked, Desk, likeliest_pages
from pagellm.types import F64, NO_ITEM, Contexts, PageBatch


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one look at the canary found. Means over its contexts."""

    step: int  # iterations done
    kl: float  # nats a page, of the pages that were last learned from
    reward: float  # learned reward of the same pages
    hits: float  # NDCG by look
    duplicates: float  # share of slots that hold a near-duplicate of another slot
    distinct: float  # different pages over pages
    value: float  # page value, 1 - duplicate_cost · duplicates for the reference policy
    error: float = 0.0  # standard error of how far the value is from the first sighting's, over contexts


@dataclass
class Canary:
    """Looks at held-out users. The reference policy's hits are the unit of value."""

    asked: Asked
    desk: Desk
    look: Look
    likeness: Likeness
    duplicate_cost: float
    unit: float = 0.0  # hits of the reference policy
    first: F64 = field(default_factory=lambda: np.zeros(0))  # [context] page value of the reference policy
    h: Float[Tensor, "context dim"] | None = None  # the contexts' vectors, where the language model rests

    def sight(self, net: PolicyNet, step: int, kl: float, reward: float) -> Sighting:
        """One look. The first must be at the reference policy."""
        pages = likeliest_pages(net, self.asked, self.desk, self.h)
        each, doubled = look_ndcg(pages, self.look).sum(1), duplicate_share(pages, self.likeness)
        hits, doubles = float(each.mean()), float(doubled.mean())
        self.unit = self.unit or hits or 1.0  # a reference without any hit is no unit
        values = each / self.unit - self.duplicate_cost * doubled
        self.first = self.first if len(self.first) else values
        error = float((values - self.first).std() / len(values) ** 0.5)
        distinct = len(np.unique(pages.items, axis=0)) / len(pages)
        return Sighting(step, kl, reward, hits, doubles, distinct, hits / self.unit - self.duplicate_cost * doubles, error)


def duplicate_share(pages: PageBatch, likeness: Likeness) -> F64:
    """[page] share of the filled slots that hold a near-duplicate of another slot's item."""
    relations = page_relations(pages.items, pages.contexts, pages.place, likeness)
    doubled = relations[..., RELATIONS.index("kin")] > 0
    return np.asarray(doubled.sum(1) / np.maximum((pages.items != NO_ITEM).sum(1), 1), np.float64)


def canary_contexts(contexts: Contexts, config: PPOConfig, seed: int) -> Contexts:
    """At most `canary_contexts` of these, drawn with the seed."""
    rng = np.random.default_rng((seed, 11))
    return contexts.take(np.sort(rng.permutation(len(contexts))[: config.canary_contexts]))
