"""Writes pages slot by slot. Takes a scorer and masks, gives choices with their exact log-probabilities.

One loop serves greedy, sampled, hybrid and forced writing (the log-probability of a given page), for single pages and for groups that
share a prompt. Log-probabilities are of the softmax renormalized under the very mask that the choice was made under. Knows no catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pagellm.layout.masks import PageMasks
from pagellm.models.page_evidence import Pool
from pagellm.models.policy import ROWS, PolicyNet
from pagellm.types import F32, F64, I64

EMPTY = -1
"""A choice that leaves the slot empty."""


class Scorer(Protocol):
    """Logits of candidates for the next slot of each page, given what was written so far."""

    def logits(self) -> Float[Tensor, "context page candidate"]:
        """Before any mask; -inf where the pool is padding."""
        ...

    def read(self, choice: Int[Tensor, "context page"], row: Int[Tensor, "context page"]) -> None:
        """Reads one token a page: what was put into the slot before (an index into the candidates, EMPTY for nothing) and the layout row
        in which the next slot stands (negative where the page is done)."""
        ...


@dataclass(frozen=True)
class Written:
    """Pages as choices. Axes: context, page of the context's group, slot in reading order."""

    choice: I64  # [context, page, slot] index into the candidates, EMPTY where the slot stays empty
    logprobs: F64  # [context, page, slot] of the masked softmax at the writing's temperature, at 1 where it is greedy; 0 for empty slots
    sampled: F64  # [context, page, slot] log-propensity: log of the chance with which this item was put there, 0 if greedy
    scores: F32  # [context, page, slot] the chosen logit before the mask, NaN for empty slots
    rows: F64  # [context, page] log-probability of the choice of rows; 0 where the layout fixes them


@dataclass(frozen=True)
class Writing:
    """How to choose."""

    temperature: float = 0.0  # 0 is greedy: the largest logit, the first of equals
    hybrid: int | None = None  # slots written one by one before the rest is ranked in one pass; None writes all one by one
    logprobs: bool = True  # False leaves them out (NaN) where nobody reads them: they cost a pass over the pool a slot


@dataclass(frozen=True)
class Forced:
    """Pages whose log-probability is asked for."""

    choice: I64  # [context, page, slot] index into the candidates, EMPTY where the slot is empty
    rows: I64 | None = None  # [context, page, row] layout rows in page order, where the policy chooses them


@dataclass
class Trace:
    """What pages were written under: all that their log-probabilities are computed from once more. Axes as in `Written`."""

    allowed: Bool[Tensor, "context page slot candidate"]
    layout_row: Int[Tensor, "context page slot"]  # in which each slot stands
    row: I64  # [context, page, slot] row on the page, from 0
    col: I64  # [context, page, slot]
    starts: list[RowChoice]  # where the policy chose rows


@dataclass(frozen=True)
class RowChoice:
    """A choice of layout rows, before one slot."""

    slot: int
    waiting: Bool[Tensor, "context page"]
    fits: Bool[Tensor, "context page layout_row candidate"]  # what each row may hold
    allowed: Bool[Tensor, "context page layout_row"]
    choice: Int[Tensor, "context page"]
    logprob: Float[Tensor, "context page"]  # at the writing's temperature; 0 where no page waited


class PageScorer:
    """The policy network's logits. The page head is left out where it is zero: then nothing written changes anything."""

    def __init__(
        self,
        net: PolicyNet,
        prompt: Float[Tensor, "context token dim"],
        lengths: Int[Tensor, " context"],
        pool: Int[Tensor, "context candidate"],
        evidence: Float[Tensor, "context candidate feature"],
        pages: int,
        tokens: int,
        first_row: int | None = None,
    ) -> None:
        """Reads the prompts, for `pages` pages a context of at most `tokens` slots.

        `first_row` is the layout row in which every page begins, where the layout fixes it: the token that says so is the same for all
        pages of a context, so it is read with the prompt and saves a step.
        """
        self._net, self._pages = net, pages
        self._active = net.writes_pages
        ahead = self._active and first_row is not None
        if ahead:
            prompt, lengths = _with_token(prompt, lengths, net.rows.weight[first_row]), lengths + 1
        hidden, self._cache = net.backbone.prefill(prompt, lengths, pages, tokens - ahead, 1 + ahead)  # type: ignore[operator]
        self._first: Tensor | None = (
            hidden[:, 1:].expand(-1, pages, -1) if ahead else None
        )  # [context, page, dim], still to be used
        self._vectors = net.item_vectors_of(pool.clamp_min(0))  # [context, candidate, dim]
        opinion = finite_logprobs(net, hidden[:, 0], pool, self._vectors)
        self._base = net.evidence(evidence, opinion).masked_fill(pool < 0, -torch.inf)
        self._delta: Tensor | None = None
        self._pool: Pool | None = None
        if net.page_evidence.active:
            self._pool = net.page_evidence.pool(pool, net.evidence.standardized(evidence, opinion), self._base)
            self._so_far = net.page_evidence.blank(self._pool, pages)

    def logits(self) -> Tensor:
        """Shape [context, page, candidate]."""
        base = self._base[:, None].expand(-1, self._pages, -1)
        return base if self._delta is None else base + self._delta

    def read(self, choice: Tensor, row: Tensor) -> None:
        """One step of the backbone on the sum of both vectors, so that a page of 20 items is 20 steps."""
        if not self._active:
            return
        if self._pool is not None:
            self._net.page_evidence.put(self._so_far, self._pool, choice)
        hidden, self._first = self._first, None
        if hidden is None:
            index = choice.clamp_min(0)[..., None].expand(-1, -1, self._vectors.shape[-1])
            token = self._vectors.gather(1, index) * (choice >= 0)[..., None] + self._net.rows(row.clamp(0, ROWS - 1))
            hidden = self._net.backbone.step(token, self._cache)  # type: ignore[operator]
        self._delta = self._net.page_head(hidden) @ self._vectors.mT
        if self._pool is not None:
            self._delta = self._delta + self._net.page_evidence.addition(self._so_far, self._pool)


def _with_token(prompt: Tensor, lengths: Tensor, token: Tensor) -> Tensor:
    """The prompts with one more token at each one's end. Shape [context, token + 1, dim]."""
    longer = torch.cat([prompt, token.expand(len(prompt), 1, -1)], 1)
    if int(lengths.min()) < prompt.shape[1]:  # shorter prompts end before their padding
        longer[torch.arange(len(prompt), device=prompt.device), lengths] = token
    return longer


def context_logits(
    net: PolicyNet,
    h: Float[Tensor, "context dim"],
    pool: Int[Tensor, "context candidate"],
    evidence: Float[Tensor, "context candidate feature"],
    vectors: Float[Tensor, "context candidate dim"] | None = None,
) -> Float[Tensor, "context candidate"]:
    """The part of the logits that does not depend on the page: scale · base + evidence head; -inf where the pool is padding.

    `vectors` are those of the pool where the caller has them.
    """
    return net.evidence(evidence, finite_logprobs(net, h, pool, vectors)).masked_fill(pool < 0, -torch.inf)


def finite_logprobs(
    net: PolicyNet,
    h: Float[Tensor, "context dim"],
    pool: Int[Tensor, "context candidate"],
    vectors: Float[Tensor, "context candidate dim"] | None = None,
) -> Float[Tensor, "context candidate"]:
    """The language model's log-probabilities over each pool, the pool's lowest where it is padding, so that no -inf enters a network."""
    real = pool >= 0
    base = net.base_logprobs(h, pool, vectors)
    if bool(real.all()):
        return base
    lowest = base.masked_fill(~real, torch.inf).amin(-1, keepdim=True)
    return torch.where(real, base, torch.where(lowest.isfinite(), lowest, 0.0))


@torch.inference_mode()
def write_pages(
    scorer: Scorer,
    masks: PageMasks,
    groups: tuple[int, int],
    writing: Writing,
    rng: np.random.Generator,
    forced: Forced | None = None,
    trace: Trace | None = None,
) -> Written:
    """Writes all slots of a batch of pages; `masks` holds them flat, `groups` says (contexts, pages a context).

    `trace`, of `blank_trace`, takes what they were written under. `forced` dictates the choices instead: the log-probability of pages that are given, -inf where the mask forbids one.
    """
    slots = masks.rules.places
    draws = rng.random((slots, 2, *groups)) if writing.temperature > 0 and forced is None else None
    out = _blank(groups, slots, writing.logprobs)
    lifts = masks.bias
    bias = torch.from_numpy(lifts).view(*groups, -1) if lifts.any() else None
    if draws is None and forced is None and trace is None and not writing.logprobs and masks.rules.trivial:
        _write_plain(scorer, masks, groups, writing.hybrid, bias, out)
        return out
    pick, logits = torch.full(groups, EMPTY), torch.zeros(1)
    for slot in range(slots):
        draw = None if draws is None else torch.from_numpy(draws[slot])
        if masks.rules.layout.order == "policy" and masks.between.any():
            wanted = None if forced is None else forced.rows
            began = _begin_rows(_biased(scorer.logits(), bias), masks, groups, writing, draw, wanted, slot)
            out.rows[...] += began.logprob.numpy()
            if trace is not None:
                trace.starts.append(began)
        if writing.hybrid is None or slot <= writing.hybrid:
            scorer.read(pick, torch.from_numpy(masks.layout_row).view(groups))
            logits = _biased(scorer.logits(), bias)
        allowed = torch.from_numpy(masks.allowed()).view(logits.shape)
        if trace is not None:
            trace.allowed[:, :, slot] = allowed
            trace.layout_row[:, :, slot] = torch.from_numpy(masks.layout_row).view(groups)
            trace.row[:, :, slot], trace.col[:, :, slot] = (a.reshape(groups) for a in masks.slot)
        if forced is None:
            pick, chance = choose(logits, allowed, writing.temperature, None if draw is None else draw[0])
            out.sampled[:, :, slot] = chance.numpy()
        else:
            pick = torch.from_numpy(forced.choice[:, :, slot])
        out.choice[:, :, slot] = pick.numpy()
        if writing.logprobs:
            warmed = logits / writing.temperature if writing.temperature > 0 else logits
            out.logprobs[:, :, slot] = logprob_of(warmed, allowed, pick).numpy()
        chosen = logits.gather(-1, pick.clamp_min(0)[..., None]).squeeze(-1)
        out.scores[:, :, slot] = torch.where(pick >= 0, chosen, torch.nan).numpy()
        masks.place(out.choice[:, :, slot].reshape(-1), strict=forced is None)
    return out


def choose(
    logits: Float[Tensor, "*page candidate"], allowed: Bool[Tensor, "*page candidate"], temperature: float, draw: Tensor | None
) -> tuple[Int[Tensor, "*page"], Float[Tensor, "*page"]]:
    """One candidate a page with its log-propensity; EMPTY and 0 where nothing is allowed.

    Without draws the largest logit, the first of equals. With draws in [0, 1) the softmax at `temperature`, by inverse cumulative sums:
    ten times faster than a multinomial, and no draw can reach a candidate of probability zero.
    """
    if draw is None or temperature <= 0:
        pick = torch.where(allowed, logits, -torch.inf).argmax(-1)
        some = allowed.gather(-1, pick[..., None]).squeeze(-1)
        return torch.where(some, pick, EMPTY), torch.zeros(pick.shape, dtype=torch.float64)
    some = allowed.any(-1)
    masked = logits.double().masked_fill(~allowed, -torch.inf)
    logprobs = torch.where(some[..., None], masked / temperature, 0.0).log_softmax(-1)
    total = logprobs.exp().masked_fill(~allowed, 0.0).cumsum(-1)
    pick = torch.searchsorted(total, (draw.double() * total[..., -1])[..., None], right=True).squeeze(-1)
    last = total.shape[-1] - 1 - allowed.flip(-1).int().argmax(-1)
    pick = torch.minimum(pick, last)  # rounding may carry a draw just below 1 past the end
    chance = logprobs.gather(-1, pick[..., None]).squeeze(-1)
    return torch.where(some, pick, EMPTY), torch.where(some, chance, 0.0)


def logprob_of(
    logits: Float[Tensor, "*page candidate"], allowed: Bool[Tensor, "*page candidate"], pick: Int[Tensor, "*page"]
) -> Float[Tensor, "*page"]:
    """Log-probability of the picks under the softmax over the allowed candidates, -inf for a forbidden one.

    An empty slot has log-probability 0 where nothing was allowed, else -inf.
    """
    masked = logits.double().masked_fill(~allowed, -torch.inf)
    some = allowed.any(-1)
    chance = masked.gather(-1, pick.clamp_min(0)[..., None]).squeeze(-1) - masked.logsumexp(-1)
    chance = torch.where(some, chance, -torch.inf)
    empty = torch.where(some, -torch.inf, 0.0).double()
    return torch.where(pick >= 0, chance, empty)


def _begin_rows(
    logits: Tensor,
    masks: PageMasks,
    groups: tuple[int, int],
    writing: Writing,
    draw: Tensor | None,
    wanted: I64 | None,
    slot: int,
) -> RowChoice:
    """Chooses a layout row where a page waits for one."""
    waiting = torch.from_numpy(masks.between).view(groups)
    may = torch.from_numpy(masks.state.base & ~masks.state.used).view(logits.shape)
    fill = torch.from_numpy(masks.rules.fill[:, masks.state.items.clip(0)])  # [row, page, candidate]
    fits = torch.stack([f.view(logits.shape) & may for f in fill], 2)
    allowed = torch.from_numpy(masks.rows_allowed()).view(*groups, -1)
    values = row_values(logits, fits)
    warmed = values / writing.temperature if writing.temperature > 0 else values
    row, _ = choose(values, allowed, writing.temperature, None if draw is None else draw[1])
    if wanted is not None:
        number = torch.from_numpy(masks.slot[0]).view(groups) + 1
        row = torch.from_numpy(wanted).gather(-1, number.clamp_max(wanted.shape[-1] - 1)[..., None]).squeeze(-1)
    chance = torch.where(waiting, logprob_of(warmed, allowed, row), 0.0)
    masks.place_row(row.numpy().reshape(-1))
    return RowChoice(slot, waiting, fits, allowed, row, chance)


def row_values(
    logits: Float[Tensor, "context page candidate"], fits: Bool[Tensor, "context page layout_row candidate"]
) -> Float[Tensor, "context page layout_row"]:
    """What each row is worth: the sum of the exponentiated logits of what it may hold, as the chance that the next item comes from it."""
    values = logits[:, :, None].masked_fill(~fits, -torch.inf).logsumexp(-1)
    return values.clamp_min(-1e30)  # a row that nothing fits is still a row


def _write_plain(
    scorer: Scorer, masks: PageMasks, groups: tuple[int, int], hybrid: int | None, bias: Tensor | None, out: Written
) -> None:
    """Greedy pages where no rule decides: `write_pages` with a mask of its own, several times lighter than asking for one a slot.

    What hybrid writing ranks in one pass are the largest allowed logits in order, the first of equals.
    """
    slots = masks.rules.places
    rows = np.repeat(
        np.arange(len(masks.rules.capacity)), masks.rules.capacity
    )  # of each slot: nothing is optional in a fixed order
    allowed = torch.from_numpy(masks.allowed()).view(*groups, -1).clone()
    pick = torch.full((*groups, 1), EMPTY)
    begin = 0
    while begin < slots:
        scorer.read(pick[..., 0], torch.full(groups, int(rows[begin])))
        logits = torch.where(allowed, _biased(scorer.logits(), bias), -torch.inf)
        if begin == hybrid:
            top = logits.sort(dim=-1, descending=True, stable=True).indices[..., : slots - begin]
        else:
            top = logits.argmax(-1, keepdim=True)
        pick = torch.where(allowed.gather(-1, top), top, EMPTY)
        some = slice(begin, begin + top.shape[-1])
        out.choice[:, :, some] = pick.numpy()
        out.scores[:, :, some] = torch.where(pick >= 0, logits.gather(-1, top), torch.nan).numpy()
        allowed.scatter_(-1, top, False)
        begin = slots if begin == hybrid else begin + 1  # a pool may be smaller than the rest of the page, which then stays empty
    masks.place_rest(out.choice.reshape(len(masks.done), -1))


def _biased(logits: Tensor, bias: Tensor | None) -> Tensor:
    return logits if bias is None else logits + bias


def blank_trace(groups: tuple[int, int], slots: int, candidates: int) -> Trace:
    """Room for what `groups` (contexts, pages a context) pages are written under."""
    shape = (*groups, slots)
    return Trace(
        torch.zeros(*shape, candidates, dtype=torch.bool),
        torch.zeros(shape, dtype=torch.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        [],
    )


def _blank(groups: tuple[int, int], slots: int, logprobs: bool) -> Written:
    shape = (*groups, slots)
    return Written(
        np.full(shape, EMPTY, np.int64),
        np.full(shape, 0.0 if logprobs else np.nan),
        np.zeros(shape),
        np.full(shape, np.nan, np.float32),
        np.zeros(groups),
    )
