"""The policy network: a causal LM over events, item vectors from ids and text, a page head and an evidence head.

    logits(item | context, page so far) = scale · log softmax(E · h_context) + evidence head + E · page_head(h_page) + page evidence

Takes prompts and candidates, gives logits. Knows no rules, no files and no training. Page head and page evidence are zero at the start, so
an untrained policy writes exactly the ranking of the context, and reinforcement learning learns only what depends on the page.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.config import ModelConfig
from pagellm.models.backbone import BackboneShape, Cache, SmallBackbone
from pagellm.models.codec import ASK, GAPS, Prompts
from pagellm.models.device import tensor_for
from pagellm.models.listwise import EvidenceHead
from pagellm.models.page_evidence import PageEvidence
from pagellm.types import F32, Event

ROWS = 64
"""Row vectors: the n-th row of a layout has the n-th; layouts with more rows share the last."""


class Backbone(Protocol):
    """A causal LM on vectors: the small one built here, or a Hugging Face model behind an adapter."""

    @property
    def dims(self) -> int:
        """Size of the vectors that go in and come out."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Hidden vectors [page, token, dim] of sequences padded on the right."""
        ...

    def prefill(self, x: Tensor, lengths: Tensor, pages: int, capacity: int, tail: int = 1) -> tuple[Tensor, Cache]:
        """Hidden vectors [context, tail, dim] of the prompts' last tokens, and a cache for `pages` pages of at most `capacity` tokens."""
        ...

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """Hidden vectors [context, page, dim] after one more token a page."""
        ...

    def read_pages(self, x: Tensor, lengths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden vectors [context, dim] of the prompts' last tokens and [context, page, token, dim] of pages that follow them, with
        gradients: what `prefill` and a `step` a token give, in one pass."""
        ...


class PolicyNet(nn.Module):
    """All weights of a policy. Item vectors are a learned id vector plus the projected content vector of the item's text."""

    content: Tensor

    def __init__(
        self, config: ModelConfig, content: F32, features: int, backbone: nn.Module | None = None, blind: bool = False
    ) -> None:
        """`blind` leaves the language model's opinion out of the logits: the ablation that shows what it adds."""
        super().__init__()
        self.blind = blind
        shape = BackboneShape(config.dims, config.layers, config.heads, config.ffn_dims, dropout=config.dropout)
        self.backbone = backbone or SmallBackbone(shape)
        self.dims = dims = int(self.backbone.dims)  # type: ignore[arg-type]
        items, content_dims = len(content), min(content.shape[1], dims)
        leading = np.ascontiguousarray(content[:, :content_dims])  # the strongest directions of the text come first
        self.register_buffer("content", torch.from_numpy(leading), persistent=False)
        self.ids = nn.Embedding(items, dims)
        self.project = nn.Linear(content_dims, dims, bias=False)
        self.bias = nn.Parameter(torch.zeros(items))
        self.actions = nn.Embedding(len(Event), dims)
        self.gaps = nn.Embedding(GAPS, dims)
        self.rows = nn.Embedding(ROWS, dims)
        self.page_head = nn.Linear(dims, dims, bias=False)
        self.evidence = EvidenceHead(features, config.evidence_dims)
        self.dropout = nn.Dropout(config.dropout)
        self._start(dims)
        self.page_evidence = PageEvidence(config.page_dims)

    def reset(self, seed: int) -> None:
        """Draws the language model's weights anew; a pre-trained backbone and its item vectors keep what they have learned."""
        if isinstance(self.backbone, SmallBackbone):
            torch.manual_seed(seed)
            self.backbone.load_state_dict(SmallBackbone(self.backbone.shape).state_dict())
            self._start(self.dims)
            nn.init.zeros_(self.bias)

    def _start(self, dims: int) -> None:
        for table in (self.ids, self.gaps, self.rows):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.actions.weight)
        nn.init.zeros_(self.page_head.weight)
        if self.project.in_features == dims:
            nn.init.eye_(self.project.weight)
        else:
            nn.init.orthogonal_(self.project.weight)

    def item_vectors(self) -> Float[Tensor, "item dim"]:
        """E: one vector an item."""
        return self.ids.weight + self.project(self.content)

    def item_vectors_of(self, items: Int[Tensor, ...]) -> Float[Tensor, "... dim"]:
        """Rows of E without making the rest of it."""
        return self.ids(items) + self.project(self.content[items])

    def embed(
        self, items: Int[Tensor, "context token"], codes: Int[Tensor, "context token"], table: Tensor | None = None
    ) -> Tensor:
        """Input vectors of prompt tokens. Shape [context, token, dim]. `table` [item, dim] is E where the caller has it."""
        asks = items == ASK
        known = items.clamp_min(0)
        vectors = self.item_vectors_of(known) if table is None else F.embedding(known, table)
        vectors = vectors + self.actions(codes.masked_fill(asks, 0))
        return torch.where(asks[..., None], self.gaps(codes.masked_fill(~asks, 0)), vectors)

    def read(self, prompts: Prompts, table: Tensor | None = None) -> Float[Tensor, "context token dim"]:
        """Hidden vectors of whole prompts."""
        items, codes = (tensor_for(self, a) for a in (prompts.items, prompts.codes))
        hidden: Tensor = self.backbone(self.dropout(self.embed(items, codes, table)))
        return hidden

    @torch.no_grad()
    def context_vectors(self, prompts: Prompts) -> Float[Tensor, "context dim"]:
        """h_context: the hidden vector of each prompt's last token."""
        hidden = self.read(prompts)
        return hidden[torch.arange(len(hidden)), torch.from_numpy(prompts.lengths) - 1]

    def base_logprobs(
        self, h: Float[Tensor, "context dim"], pool: Int[Tensor, "context candidate"], vectors: Tensor | None = None
    ) -> Float[Tensor, "context candidate"]:
        """The language model's log-probabilities over each pool, -inf where the pool is padding.

        `vectors` [context, candidate, dim] are the pool's item vectors where the caller has them.
        """
        known = pool.clamp_min(0)
        if self.blind:
            h = torch.zeros_like(h)
        vectors = self.item_vectors_of(known) if vectors is None else vectors
        logits = torch.einsum("ncd,nd->nc", vectors, h) + self.bias[known]
        return logits.masked_fill(pool < 0, -torch.inf).log_softmax(-1)

    def favorites(self, h: Float[Tensor, "context dim"], k: int, allowed: np.ndarray) -> Int[Tensor, "context candidate"]:
        """The k allowed items that the language model finds most probable. Reads all item vectors."""
        logits = h @ self.item_vectors().T + self.bias
        logits = logits.masked_fill(~tensor_for(self, allowed), -torch.inf)
        return logits.topk(min(k, int(allowed.sum())), -1).indices

    @property
    def reads_pages(self) -> bool:
        """Whether what the language model reads of the page so far changes anything: False until the page head is trained."""
        return bool(self.page_head.weight.any())

    @property
    def writes_pages(self) -> bool:
        """Whether the page so far changes anything: False until page head or page evidence is trained."""
        return self.reads_pages or self.page_evidence.active
