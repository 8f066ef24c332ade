"""Logits and log-probabilities of pages that are already written, all slots in one pass and with gradients.

What `decoding` does slot by slot, for training: the prompt of a context is read once for all of its pages, each page in one piece. The
masks are those under which the pages were written, so both give the same numbers; a test holds them to it. Knows no rules and no rewards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pagellm.models.choices import row_values
from pagellm.models.decoding import RowChoice
from pagellm.models.page_scorer import context_logits
from pagellm.models.policy import ROWS, PolicyNet

Read = tuple[Float[Tensor, "context dim"], Float[Tensor, "context page slot dim"]]
"""Hidden vectors of prompts' ends, and those that each slot is chosen from."""


@dataclass(frozen=True)
class WrittenPages:
    """Pages of several contexts, with what they were written from and under."""

    prompts: Int[Tensor, "context token"]  # items, ASK elsewhere
    codes: Int[Tensor, "context token"]
    lengths: Int[Tensor, " context"]
    pool: Int[Tensor, "context candidate"]  # -1 pads
    evidence: Float[Tensor, "context candidate feature"]
    choice: Int[Tensor, "context page slot"]  # index into the pool, EMPTY where the slot stays empty
    layout_row: Int[Tensor, "context page slot"]
    allowed: Bool[Tensor, "context page slot candidate"]
    bias: Float[Tensor, "context page candidate"] | None  # boost and bury
    starts: tuple[RowChoice, ...]  # where the policy chose rows
    read: Read | None = None  # what `page_hidden` gives, where it is read once and for all

    def to(self, device: torch.device) -> WrittenPages:
        """The same on a device."""
        names = ("prompts", "codes", "lengths", "pool", "evidence", "choice", "layout_row", "allowed")
        moved = {name: getattr(self, name).to(device) for name in names}
        bias = None if self.bias is None else self.bias.to(device)
        read = None if self.read is None else (self.read[0].to(device), self.read[1].to(device))
        return replace(
            self, **moved, bias=bias, read=read, starts=tuple(start.of(lambda a: a.to(device)) for start in self.starts)
        )

    def take(self, contexts: Int[Tensor, " some"]) -> WrittenPages:
        """The pages of these contexts."""
        width = int(self.lengths[contexts].max())
        return WrittenPages(
            self.prompts[contexts, :width],
            self.codes[contexts, :width],
            self.lengths[contexts],
            self.pool[contexts],
            self.evidence[contexts],
            self.choice[contexts],
            self.layout_row[contexts],
            self.allowed[contexts],
            None if self.bias is None else self.bias[contexts],
            tuple(start.of(lambda a: a[contexts]) for start in self.starts),
            None if self.read is None else (self.read[0][contexts], self.read[1][contexts]),
        )

    def chunks(self, size: int) -> Iterator[WrittenPages]:
        """The pages of so many contexts at once."""
        for places in torch.arange(len(self.pool)).split(size):
            yield self.take(places)

    def pick(self, page: Int[Tensor, " context"]) -> WrittenPages:
        """One page of each context, as groups of one."""

        def of(a: Tensor) -> Tensor:
            return a[torch.arange(len(page), device=page.device), page][:, None]

        starts = tuple(start.of(of) for start in self.starts)
        choice, layout_row, allowed = (of(a) for a in (self.choice, self.layout_row, self.allowed))
        bias = None if self.bias is None else of(self.bias)
        read = None if self.read is None else (self.read[0], of(self.read[1]))
        return replace(self, choice=choice, layout_row=layout_row, allowed=allowed, bias=bias, starts=starts, read=read)

    @property
    def free(self) -> Bool[Tensor, "context page slot"]:
        """Whether there was anything to choose in a slot."""
        return (self.choice >= 0) & (self.allowed.sum(-1) > 1)


@dataclass(frozen=True)
class PageLogits:
    """Logits before any mask, -inf where the pool is padding."""

    slots: Float[Tensor, "context page slot candidate"]
    opening: Float[Tensor, "context page candidate"]  # before anything is written: what a first row is chosen by
    hidden: Float[Tensor, "context page slot dim"] | None = None  # vectors that the slots are chosen from

    def before(self, slot: int) -> Float[Tensor, "context page candidate"]:
        """What a row that begins with this slot is chosen by: the decoder reads an item together with the row that follows it."""
        return self.slots[:, :, slot - 1] if slot else self.opening


@torch.no_grad()
def read_once(net: PolicyNet, pages: WrittenPages, at_once: int) -> WrittenPages:
    """The same pages with their hidden vectors, for a language model that rests; `at_once` contexts are read together."""
    parts = [page_hidden(net, some) for some in pages.chunks(at_once)]
    return replace(pages, read=(torch.cat([h for h, _ in parts]), torch.cat([hidden for _, hidden in parts])))


def page_hidden(net: PolicyNet, pages: WrittenPages, vectors: Float[Tensor, "context candidate dim"] | None = None) -> Read:
    """Hidden vectors of the prompts' ends, and those that each slot is chosen from. `vectors` are the pool's where the caller has them."""
    if pages.read is not None:
        return pages.read
    vectors = net.item_vectors_of(pages.pool.clamp_min(0)) if vectors is None else vectors
    chosen = torch.cat([torch.full_like(pages.choice[:, :, :1], -1), pages.choice[:, :, :-1]], 2)  # in the slot before
    index = chosen.clamp_min(0).flatten(1)[..., None].expand(-1, -1, vectors.shape[-1])
    before = vectors.gather(1, index).view(*chosen.shape, -1) * (chosen >= 0)[..., None]
    tokens = before + net.rows(pages.layout_row.clamp(0, ROWS - 1))
    return net.backbone.read_pages(net.embed(pages.prompts, pages.codes), pages.lengths, tokens)  # type: ignore[operator]


def page_logits(net: PolicyNet, pages: WrittenPages) -> PageLogits:
    """The policy's logits for every slot, given the slots before it."""
    vectors = net.item_vectors_of(pages.pool.clamp_min(0))
    h, hidden = page_hidden(net, pages, vectors)
    base = context_logits(net, h, pages.pool, pages.evidence, vectors)
    read = net.page_evidence.pool(pages.pool, base)
    delta = net.page_evidence.additions(read, pages.choice)
    if net.reads_pages or net.page_head.weight.requires_grad:  # one product a context, not one a page
        delta = (net.page_head(hidden).flatten(1, 2) @ vectors.mT).view(*pages.choice.shape, -1) + delta
    opening = _opening(base, pages)
    return PageLogits(opening[:, :, None] + delta, opening, hidden)


def reference_logits(net: PolicyNet, pages: WrittenPages) -> PageLogits:
    """Logits of a policy whose page head is untrained: nothing on the page changes anything, so only prompts are read."""
    h, _ = net.backbone.prefill(net.embed(pages.prompts, pages.codes), pages.lengths, 2, 0)  # type: ignore[operator]
    opening = _opening(context_logits(net, h[:, 0], pages.pool, pages.evidence), pages)
    return PageLogits(opening[:, :, None].expand(*pages.choice.shape, -1), opening)


def _opening(base: Float[Tensor, "context candidate"], pages: WrittenPages) -> Float[Tensor, "context page candidate"]:
    """Logits before anything stands on the pages, boost and bury included."""
    logits = base[:, None].expand(-1, pages.choice.shape[1], -1)
    return logits if pages.bias is None else logits + pages.bias


def distributions(logits: PageLogits, pages: WrittenPages, temperature: float) -> Float[Tensor, "context page slot candidate"]:
    """Log-probabilities of all allowed candidates of each slot, -inf for others; even where nothing was allowed."""
    masked = (logits.slots / temperature).masked_fill(~pages.allowed, -torch.inf)
    some = pages.allowed.any(-1, keepdim=True)
    return (masked if bool(some.all()) else torch.where(some, masked, 0.0)).log_softmax(-1)


def logprobs_of(
    every: Float[Tensor, "context page slot candidate"], logits: PageLogits, pages: WrittenPages, temperature: float
) -> Float[Tensor, "context page slot"]:
    """Log-probability of each choice, of `distributions`; the choice of a layout row counts with its first slot. 0 for empty slots."""
    chosen = every.gather(-1, pages.choice.clamp_min(0)[..., None]).squeeze(-1)
    out = torch.where(pages.choice >= 0, chosen, 0.0)
    for start in pages.starts:
        values = row_values(logits.before(start.slot), start.fits) / temperature
        some = start.allowed.any(-1, keepdim=True)
        rows = torch.where(some, values.masked_fill(~start.allowed, -torch.inf), 0.0).log_softmax(-1)
        row = rows.gather(-1, start.choice.clamp_min(0)[..., None]).squeeze(-1)
        out = out.index_add(2, torch.full((1,), start.slot, device=out.device), torch.where(start.waiting, row, 0.0)[..., None])
    return out
