"""With which chance a policy would have put each item into each slot of pages that are already written, by whomever.

Takes a `LanguagePolicy` and logged pages, gives distributions over each context's candidates: with the logged items before a slot, and over
the policy's own pages. Knows no reward and no estimator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.layout.masks import PageMasks
from pagellm.models.choices import EMPTY
from pagellm.models.codec import encode
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Forced, Writing, blank_trace, write_pages
from pagellm.models.device import device_of, tensor_for
from pagellm.models.page_scorer import PageScorer
from pagellm.models.pools import policy_pool, read_contexts
from pagellm.models.whole_pages import WrittenPages, distributions, page_logits, reference_logits
from pagellm.types import F32, I32, I64, NO_ITEM, Contexts


@dataclass(frozen=True)
class PageChances:
    """Of one page a context."""

    pool: I32  # [context, candidate] NO_ITEM pads
    place: I64  # [context, slot] the logged item in the pool, EMPTY where it is no candidate or there is none
    given: F32  # [context, slot, candidate] chance of each candidate, the logged items standing before it
    alone: F32  # [context, slot, candidate] on average over pages that the policy writes itself

    def of_logged(self, chances: F32) -> np.ndarray:
        """[context, slot] the chance of the logged item; 0 where it is no candidate."""
        taken = np.take_along_axis(chances, self.place.clip(0)[..., None], 2)[..., 0]
        return np.where(self.place >= 0, taken, 0.0).astype(np.float64)


@torch.no_grad()
def page_chances(
    policy: LanguagePolicy, contexts: Contexts, items: I32, pages: int, rng: np.random.Generator, since: I64 | None = None
) -> PageChances:
    """The chances for logged pages, items [context, slot] in the reading order of the policy's layout, NO_ITEM where a slot is empty.

    `pages` own pages a context are drawn for the average; each gives exact chances at every slot, so the average has no bias and its
    error is that of the items before. `since` [item], unix seconds, leaves out what was not known strictly before a context's time. The
    policy's writing says the temperature, which is above 0: of a page that is always the same nothing can be told.
    """
    pool = _pool(policy, contexts, since)
    evidence = policy.run.evidence.features(contexts, pool)
    place = _places(pool, items)
    logged = _distributions(policy, contexts, pool, evidence, 1, Forced(place[:, None]), rng)
    own = _distributions(policy, contexts, pool, evidence, pages, None, rng)
    return PageChances(pool, place, logged[:, 0].cpu().numpy(), own.mean(1).cpu().numpy())


def _pool(policy: LanguagePolicy, contexts: Contexts, since: I64 | None) -> I32:
    run = policy.run
    h = read_contexts(policy.net, contexts, run.config.model.max_history)
    pool = policy_pool(
        policy.net, h, run.evidence, contexts, run.config.candidates, policy.rules.eligible, run.config.split.repeats, since
    )
    return policy.with_required(pool)


def _places(pool: I32, items: I32) -> I64:
    """[context, slot] where each item stands in its context's pool, EMPTY where it does not."""
    same = (items[:, :, None] == pool[:, None]) & (items != NO_ITEM)[:, :, None]
    return np.where(same.any(2), same.argmax(2), EMPTY).astype(np.int64)


def _distributions(
    policy: LanguagePolicy,
    contexts: Contexts,
    pool: I32,
    evidence: F32,
    group: int,
    forced: Forced | None,
    rng: np.random.Generator,
) -> Float[Tensor, "context page slot candidate"]:
    """Chances of all candidates in every slot of `group` pages a context: those that are dictated, else drawn ones. 0 where nothing is
    allowed."""
    net, rules, temperature = policy.net.eval(), policy.rules, policy.writing.temperature
    prompts = encode(contexts, policy.run.config.model.max_history)
    items, codes, lengths = (tensor_for(net, a) for a in (prompts.items, prompts.codes, prompts.lengths))
    groups, candidates, features = (len(pool), group), tensor_for(net, pool.astype(np.int64)), tensor_for(net, evidence)
    masks = PageMasks(rules, np.repeat(pool, group, 0))
    bias = torch.from_numpy(masks.bias).view(*groups, -1) if masks.bias.any() else None
    scorer = PageScorer(net, net.embed(items, codes), lengths, candidates, features, group, rules.places, first_row=0)
    trace = blank_trace(groups, rules.places, pool.shape[1])
    written = write_pages(scorer, masks, groups, Writing(temperature, logprobs=False), rng, forced, trace)
    choice = torch.from_numpy(written.choice)
    pages = WrittenPages(
        items, codes, lengths, candidates, features, choice, trace.layout_row, trace.allowed, bias, tuple(trace.starts)
    ).to(device_of(net))
    logits = page_logits(net, pages) if net.writes_pages else reference_logits(net, pages)
    every = distributions(logits, pages, temperature).exp()
    return torch.where(pages.allowed.any(-1, keepdim=True), every, 0.0)
