"""The policy network's logits for the next slot of each page, given what was written so far. Takes prompts and pools; knows no masks."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pagellm.models.page_evidence import Pool
from pagellm.models.policy import ROWS, PolicyNet


class Scorer(Protocol):
    """Logits of candidates for the next slot of each page, given what was written so far."""

    def logits(self) -> Float[Tensor, "context page candidate"]:
        """Before any mask; -inf where the pool is padding."""
        ...

    def read(self, choice: Int[Tensor, "context page"], row: Int[Tensor, "context page"]) -> None:
        """Reads one token a page: what was put into the slot before (an index into the candidates, EMPTY for nothing) and the layout row
        in which the next slot stands (negative where the page is done)."""
        ...


class ContextScorer:
    """The logits of a policy whose language model reads no pages: all that it needs of it are the contexts' vectors."""

    def __init__(
        self,
        net: PolicyNet,
        h: Float[Tensor, "context dim"],
        pool: Int[Tensor, "context candidate"],
        evidence: Float[Tensor, "context candidate feature"],
        pages: int,
    ) -> None:
        """For `pages` pages a context."""
        self._net, self._pages = net, pages
        self._vectors = net.item_vectors_of(pool.clamp_min(0))  # [context, candidate, dim]
        self._base = context_logits(net, h, pool, evidence, self._vectors)
        self._delta: Tensor | None = None
        self._pool: Pool | None = None
        if net.page_evidence.active:
            self._pool = net.page_evidence.pool(pool, self._base)
            self._so_far = net.page_evidence.blank(self._pool, pages)

    def logits(self) -> Tensor:
        """Shape [context, page, candidate], on the CPU, where masks are: choosing is rules, not arithmetic."""
        base = self._base[:, None].expand(-1, self._pages, -1)
        return (base if self._delta is None else base + self._delta).cpu()

    def read(self, choice: Tensor, row: Tensor) -> None:
        """Counts the chosen items in what the page evidence reads."""
        if self._pool is not None:
            self._net.page_evidence.put(self._so_far, self._pool, choice.to(self._base.device))
            self._delta = self._net.page_evidence.addition(self._so_far, self._pool)


class PageScorer(ContextScorer):
    """The policy network's logits. The language model does not read on where the page head is zero: nothing written would change it."""

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
        self._reads = net.reads_pages
        ahead = self._reads and first_row is not None
        if ahead:
            prompt, lengths = _with_token(prompt, lengths, net.rows.weight[first_row]), lengths + 1
        hidden, self._cache = net.backbone.prefill(prompt, lengths, pages, (tokens - ahead) * self._reads, 1 + ahead)  # type: ignore[operator]
        self._first: Tensor | None = (
            hidden[:, 1:].expand(-1, pages, -1) if ahead else None
        )  # [context, page, dim], still to be used
        super().__init__(net, hidden[:, 0], pool, evidence, pages)

    def read(self, choice: Tensor, row: Tensor) -> None:
        """One step of the backbone on the sum of both vectors, so that a page of 20 items is 20 steps."""
        self._delta = None
        super().read(choice, row)
        if self._reads:
            told = self._net.page_head(self._step(choice.to(self._base.device), row.to(self._base.device))) @ self._vectors.mT
            self._delta = told if self._delta is None else told + self._delta

    def _step(self, choice: Tensor, row: Tensor) -> Tensor:
        """Hidden vectors [context, page, dim] that the next slots are chosen from."""
        hidden, self._first = self._first, None
        if hidden is None:
            index = choice.clamp_min(0)[..., None].expand(-1, -1, self._vectors.shape[-1])
            token = self._vectors.gather(1, index) * (choice >= 0)[..., None] + self._net.rows(row.clamp(0, ROWS - 1))
            hidden = self._net.backbone.step(token, self._cache)  # type: ignore[operator]
        return hidden


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
    real = pool >= 0
    base = net.base_logprobs(h, pool, vectors)
    if bool(real.all()):
        return net.evidence(evidence, base)
    lowest = base.masked_fill(~real, torch.inf).amin(-1, keepdim=True)
    finite = torch.where(real, base, torch.where(lowest.isfinite(), lowest, 0.0))
    return net.evidence(evidence, finite).masked_fill(~real, -torch.inf)
