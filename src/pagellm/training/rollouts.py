"""Rollouts: pages that the policy writes while it learns, with all that one step of learning must know of them.

Takes networks and contexts whose candidates are drawn once; writes with the decoder that serves. Knows no reward and no loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.layout.compiled import CompiledLayout
from pagellm.layout.masks import PageMasks
from pagellm.models.codec import encode
from pagellm.models.composer import candidate_logits
from pagellm.models.decoding import Trace, Writing, Written, blank_trace, write_pages
from pagellm.models.device import device_of, tensor_for
from pagellm.models.page_scorer import ContextScorer, PageScorer, Scorer
from pagellm.models.policy import PolicyNet
from pagellm.models.pools import read_contexts
from pagellm.models.run import Run
from pagellm.models.whole_pages import WrittenPages, distributions, logprobs_of, reference_logits
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Contexts, PageBatch

_CHUNK = 256  # contexts whose whole pools are held at once
_TOGETHER = 128  # contexts whose likeliest pages are written at once


@dataclass(frozen=True)
class Asked:
    """Contexts that pages are written for, with their candidates: those that the reference policy finds most probable."""

    contexts: Contexts
    pool: I32  # [context, candidate] rising, NO_ITEM pads
    evidence: F32  # [context, candidate, feature]

    def __len__(self) -> int:
        return len(self.pool)

    def take(self, places: np.ndarray) -> Asked:
        """The contexts at these places."""
        return Asked(self.contexts.take(places), self.pool[places], self.evidence[places])

    def drawn(self, most: int, seed: int, iteration: int) -> Asked:
        """The contexts of one iteration: at most so many, drawn anew with the seed and its number."""
        rng = np.random.default_rng((seed, 8, iteration))
        return self.take(np.sort(rng.choice(len(self), min(most, len(self)), replace=False)))


@dataclass(frozen=True)
class Rollout:
    """Pages of one iteration. Axes: context, page of the context's group, slot."""

    pages: WrittenPages
    batch: PageBatch  # the same pages flat, as rewards take them
    logprobs: Float[Tensor, "context page slot"]  # at the writing's temperature, before the update
    reference: Float[Tensor, "context page slot"]  # of the reference policy

    @property
    def groups(self) -> tuple[int, int]:
        """(contexts, pages a context)."""
        return self.logprobs.shape[0], self.logprobs.shape[1]


def ask(
    run: Run, contexts: Contexts, since: I64 | None, rules: CompiledLayout, candidates: int, among: Bool | None = None
) -> Asked:
    """The `candidates` most probable of each context's candidates, and what the layout pins.

    `since` [item], unix seconds, leaves out what was not known strictly before a context's time; `among` [item] all else that it does
    not hold.
    """
    allowed = rules.eligible if among is None else rules.eligible & among
    pools, features = [], []
    required = np.array(rules.required_items, np.int32)
    for begin in range(0, len(contexts), _CHUNK):
        some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
        pool, logits = candidate_logits(run, some, allowed, since)
        logits = np.where(np.isin(pool, required), -np.inf, logits)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :candidates]
        kept = np.where(np.isneginf(np.take_along_axis(logits, best, 1)), NO_ITEM, np.take_along_axis(pool, best, 1))
        kept = np.pad(kept, ((0, 0), (0, candidates - kept.shape[1])), constant_values=NO_ITEM)
        kept = np.concatenate([kept, np.tile(required, (len(some), 1))], 1)
        order = np.argsort(np.where(kept == NO_ITEM, np.iinfo(np.int32).max, kept), axis=1, kind="stable")
        pools.append(np.take_along_axis(kept, order, 1).astype(np.int32))
        features.append(run.evidence.features(some, pools[-1]))
    return Asked(contexts, np.concatenate(pools), np.concatenate(features))


@dataclass(frozen=True)
class Desk:
    """What any page is written with, whoever writes it."""

    rules: CompiledLayout
    max_history: int


@torch.no_grad()
def write_rollout(
    net: PolicyNet, reference: PolicyNet, asked: Asked, desk: Desk, group: int, temperature: float, rng: np.random.Generator
) -> Rollout:
    """`group` pages for each context, drawn at this temperature, with log-probabilities under the policy and the reference."""
    pages, batch, logprobs = write(net, asked, desk, group, Writing(temperature), rng)
    logits = reference_logits(reference, pages)
    told = logprobs_of(distributions(logits, pages, temperature), logits, pages, temperature)
    return Rollout(pages, batch, logprobs, told)


def likeliest_pages(net: PolicyNet, asked: Asked, desk: Desk, h: Float[Tensor, "context dim"] | None = None) -> PageBatch:
    """The page of each context that takes the likeliest item slot by slot, as served pages do.

    `h` are the contexts' vectors where the caller has read them. A policy whose language model reads no pages needs nothing else of it, so
    contexts are read in batches of like length and their prompts are not kept.
    """
    rng, writing, parts = np.random.default_rng(0), Writing(logprobs=False), []
    if net.reads_pages:
        h = None
    elif h is None:
        h = read_contexts(net, asked.contexts, desk.max_history)
    for begin in range(0, len(asked), _TOGETHER):
        places = np.arange(begin, min(begin + _TOGETHER, len(asked)))
        some = asked.take(places)
        if h is None:
            parts.append(write(net, some, desk, 1, writing, rng)[1])
        else:
            parts.append(_write(_context_scorer(net, h[places], some), some, desk, 1, writing, rng)[2])
    return one_each(asked.contexts, parts)


@torch.no_grad()
def _context_scorer(net: PolicyNet, h: Float[Tensor, "context dim"], asked: Asked) -> ContextScorer:
    pool, evidence = tensor_for(net, asked.pool.astype(np.int64)), tensor_for(net, asked.evidence)
    return ContextScorer(net.eval(), h, pool, evidence, 1)


def _write(
    scorer: Scorer, asked: Asked, desk: Desk, group: int, writing: Writing, rng: np.random.Generator
) -> tuple[Written, Trace, PageBatch, Float[Tensor, "context page candidate"] | None]:
    """(choices, what they were made under, the pages, boost and bury)."""
    groups, rules = (len(asked), group), desk.rules
    masks = PageMasks(rules, np.repeat(asked.pool, group, 0))
    bias = torch.from_numpy(masks.bias).view(*groups, -1) if masks.bias.any() else None
    trace = blank_trace(groups, rules.places, asked.pool.shape[1])
    written = write_pages(scorer, masks, groups, writing, rng, trace=trace)
    place = np.repeat(np.arange(len(asked)), group)
    row, col = (a.reshape(len(place), -1).astype(np.int16) for a in (trace.row, trace.col))
    return written, trace, PageBatch(asked.contexts, place, masks.items.astype(np.int32), row, col), bias


def one_each(contexts: Contexts, parts: Sequence[PageBatch]) -> PageBatch:
    """One page for each of the contexts, from parts that hold them in order."""
    items, row, col = (np.concatenate([getattr(part, name) for part in parts]) for name in ("items", "row", "col"))
    return PageBatch(contexts, np.arange(len(contexts)), items, row, col)


@torch.no_grad()
def write(
    net: PolicyNet, asked: Asked, desk: Desk, group: int, writing: Writing, rng: np.random.Generator
) -> tuple[WrittenPages, PageBatch, Float[Tensor, "context page slot"]]:
    """(`group` pages for each context, the same flat, log-probability of each slot)."""
    net.eval()
    prompts, first = encode(asked.contexts, desk.max_history), None if desk.rules.layout.order == "policy" else 0
    items, codes, lengths = (tensor_for(net, a) for a in (prompts.items, prompts.codes, prompts.lengths))
    pool, evidence = tensor_for(net, asked.pool.astype(np.int64)), tensor_for(net, asked.evidence)
    scorer = PageScorer(net, net.embed(items, codes), lengths, pool, evidence, group, desk.rules.places, first)
    written, trace, batch, bias = _write(scorer, asked, desk, group, writing, rng)
    logprobs = torch.from_numpy(written.logprobs)
    for start in trace.starts:
        logprobs[:, :, start.slot] += start.logprob
    pages = WrittenPages(
        items, codes, lengths, pool, evidence, torch.from_numpy(written.choice), trace.layout_row, trace.allowed, bias,
        tuple(trace.starts),
    )  # fmt: skip
    return pages.to(device_of(net)), batch, logprobs.float().to(device_of(net))
