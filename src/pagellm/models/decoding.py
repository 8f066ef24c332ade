"""Writes pages slot by slot. Takes a scorer and masks, gives choices with their exact log-probabilities.

One loop serves greedy, sampled, hybrid and forced writing (the log-probability of a given page), for single pages and for groups that
share a prompt. Log-probabilities are of the softmax renormalized under the very mask that the choice was made under. Knows no catalog.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pagellm.layout.masks import PageMasks
from pagellm.models.choices import EMPTY, choose, logprob_of, row_values
from pagellm.models.page_scorer import Scorer
from pagellm.types import F32, F64, I64


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

    def of(self, some: Callable[[Tensor], Tensor]) -> RowChoice:
        """The choice on some of the pages; `some` takes them from an array [context, page, …]."""
        return RowChoice(self.slot, *(some(a) for a in (self.waiting, self.fits, self.allowed, self.choice, self.logprob)))


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

    `trace`, of `blank_trace`, takes what they were written under. `forced` dictates the choices instead: the log-probability of pages
    that are given, -inf where the mask forbids one.
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
        if writing.logprobs and draw is not None:
            out.logprobs[:, :, slot] = out.sampled[:, :, slot]  # drawn by just that
        elif writing.logprobs:
            warmed = logits.double() / writing.temperature if writing.temperature > 0 else logits
            out.logprobs[:, :, slot] = logprob_of(warmed, allowed, pick).numpy()
        chosen = logits.gather(-1, pick.clamp_min(0)[..., None]).squeeze(-1)
        out.scores[:, :, slot] = torch.where(pick >= 0, chosen, torch.nan).numpy()
        masks.place(out.choice[:, :, slot].reshape(-1), strict=forced is None)
    return out


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
