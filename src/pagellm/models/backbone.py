"""The small causal LM: a Llama-type decoder of a few million parameters, built in code.

Takes input vectors, gives hidden vectors; decodes with a static key-value cache whose prompt part the pages of one context share.
Knows no items, no rules and no vocabulary. Its weights go to and from `transformers.LlamaModel` without loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class BackboneShape:
    """Sizes of the small backbone."""

    dims: int = 128
    layers: int = 2
    heads: int = 4
    ffn_dims: int = 352
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    dropout: float = 0.0


@dataclass
class Cache:
    """Keys and values of a prompt and of what was written after it, per layer, in room that is taken once.

    Pages of one context share the prompt part: attention reads it once a context, not once a page. A context with one page has nobody
    to share with; there the prompt stands before the page's own tokens, and one pass reads both.
    """

    prompt_keys: list[Tensor]  # a layer: [context, head, prompt, head_dim], rotated; empty where a context has one page
    prompt_values: list[Tensor]
    bias: Tensor | None  # [context, 1, 1, token] -inf on padding of the prompt, 0 elsewhere; None without padding
    turns: tuple[
        Tensor, Tensor
    ]  # [token, context, 1, 2, 1, head_dim] cosines, sines of the tokens to come, for queries and for keys
    keys: list[Tensor]  # a layer: [context, page, head, capacity, head_dim], rotated
    values: list[Tensor]
    begin: int  # place of the first token that is written
    filled: int = 0  # tokens written after the prompt


class SmallBackbone(nn.Module):
    """Pre-norm decoder blocks with rotary positions, RMS norm and SwiGLU (Touvron et al. 2023)."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks: list[Block] = nn.ModuleList(Block(shape) for _ in range(shape.layers))  # type: ignore[assignment]
        self.norm = nn.RMSNorm(shape.dims, eps=shape.norm_eps)

    @property
    def dims(self) -> int:
        """Size of the vectors that go in and come out."""
        return self.shape.dims

    def forward(self, x: Float[Tensor, "page token dim"]) -> Float[Tensor, "page token dim"]:
        """Hidden vectors of whole sequences. Padding stands on the right, where causal attention never looks."""
        cos, sin = rotation(torch.arange(x.shape[1], device=x.device), self.shape, x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def prefill(
        self, x: Float[Tensor, "context token dim"], lengths: Int[Tensor, " context"], pages: int, capacity: int, tail: int = 1
    ) -> tuple[Float[Tensor, "context tail dim"], Cache]:
        """Reads the prompts; returns the hidden vectors of each one's last `tail` tokens and a cache for `capacity` more a page."""
        n, width, _ = x.shape
        cos, sin = rotation(torch.arange(width, device=x.device), self.shape, x.dtype)
        cache = self._room(x, lengths, pages, capacity)
        last: tuple[Any, Any] = slice(None), slice(-tail, None)
        if cache.bias is not None:  # prompts of unequal length end at different places
            last = torch.arange(n, device=x.device)[:, None], lengths[:, None] - tail + torch.arange(tail, device=x.device)
        for layer, block in enumerate(self.blocks):
            ends = last if block is self.blocks[-1] else None  # above the last block only the prompts' ends are read
            x, key, value = block.read(x, cos, sin, ends)
            if pages > 1:
                cache.prompt_keys.append(key.contiguous())  # or every step would copy them
                cache.prompt_values.append(value.contiguous())
            else:
                cache.keys[layer][:, 0, :, :width], cache.values[layer][:, 0, :, :width] = key, value
        return self.norm(x), cache

    def _room(self, x: Tensor, lengths: Tensor, pages: int, capacity: int) -> Cache:
        n, width, dims = x.shape
        begin = width if pages == 1 else 0
        padding = torch.arange(width, device=x.device) >= lengths[:, None]
        bias = None
        if padding.any():
            bias = x.new_zeros(n, 1, 1, width + (capacity if pages == 1 else 0))
            bias[:, 0, 0, :width].masked_fill_(padding, -torch.inf)
        cos, sin = rotation((torch.arange(capacity, device=x.device)[:, None] + lengths).flatten(), self.shape, x.dtype)
        both = x.new_ones(2, 1, 1)
        both[0] = (dims // self.shape.heads) ** -0.5  # queries are scaled, keys are not
        cos, sin = (a.view(capacity, n, 1, 1, 1, dims // self.shape.heads) * both for a in (cos, sin))
        room = (n, pages, self.shape.heads, begin + capacity, dims // self.shape.heads)
        keys, values = (list(half) for half in x.new_zeros(2, len(self.blocks), *room))
        return Cache([], [], bias, (cos, sin), keys, values, begin)

    def read_pages(
        self,
        x: Float[Tensor, "context token dim"],
        lengths: Int[Tensor, " context"],
        tokens: Float[Tensor, "context page slot dim"],
    ) -> tuple[Float[Tensor, "context dim"], Float[Tensor, "context page slot dim"]]:
        """Hidden vectors of the prompts' last tokens and of all tokens of pages that follow them, in one pass and with gradients.

        A prompt is read once, however many pages follow it.
        """
        n, width, _ = x.shape
        cos, sin = rotation(torch.arange(width, device=x.device), self.shape, x.dtype)
        after = lengths[:, None] + torch.arange(tokens.shape[2], device=x.device)
        turns = [a.view(n, 1, -1, 1, 1, a.shape[-1]) for a in rotation(after.flatten(), self.shape, x.dtype)]
        padding = torch.arange(width, device=x.device) >= lengths[:, None]
        bias = x.new_zeros(n, 1, 1, 1, width).masked_fill_(padding[:, None, None, None], -torch.inf)
        last = torch.arange(n, device=x.device)[:, None], lengths[:, None] - 1
        for block in self.blocks:
            x, key, value = block.read(x, cos, sin, last if block is self.blocks[-1] else None)
            tokens = block.read_pages(tokens, turns, key, value, bias)
        return self.norm(x)[:, 0], self.norm(tokens)

    def step(self, x: Float[Tensor, "context page dim"], cache: Cache) -> Float[Tensor, "context page dim"]:
        """Reads one token a page and returns its hidden vector; the cache grows by one."""
        cos, sin = (turn[cache.filled] for turn in cache.turns)
        for layer, block in enumerate(self.blocks):
            x = block.step(x, cos, sin, cache, layer)
        cache.filled += 1
        return _normed(x, self.norm)


class Block(nn.Module):
    """One decoder block; the query, key and value projections are one matrix, as are the two gates of the feed-forward part."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.heads, self.dropout = shape.heads, shape.dropout
        self.attention_norm = nn.RMSNorm(shape.dims, eps=shape.norm_eps)
        self.qkv = nn.Linear(shape.dims, 3 * shape.dims, bias=False)
        self.out = nn.Linear(shape.dims, shape.dims, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.dims, eps=shape.norm_eps)
        self.gate_up = nn.Linear(shape.dims, 2 * shape.ffn_dims, bias=False)
        self.down = nn.Linear(shape.ffn_dims, shape.dims, bias=False)
        for name, weight in self.named_parameters():
            if "norm" not in name:
                nn.init.normal_(weight, std=0.02)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The block over whole sequences [page, token, dim]."""
        return self.read(x, cos, sin)[0]

    def read(self, x: Tensor, cos: Tensor, sin: Tensor, ends: tuple[Any, Any] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The block over whole sequences [page, token, dim], with its rotated keys and its values [page, head, token, head_dim].

        `ends`, the places (page, token) of a few tokens a page, asks for these tokens only: [page, end, dim].
        """
        n, width, dims = x.shape
        qkv = F.linear(self.attention_norm(x), self.qkv.weight).view(n, width, 3, self.heads, -1)
        q, k = rotate(qkv[:, :, :2], cos[:, None, None], sin[:, None, None]).transpose(1, 3).unbind(2)
        v = qkv[:, :, 2].transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, width, dims)
        if ends is not None:
            x, mixed = x[ends], mixed[ends]
        x = x + self._drop(F.linear(mixed, self.out.weight))
        return x + self._drop(self._ffn(x)), k, v

    def read_pages(self, y: Tensor, turns: list[Tensor], prompt_keys: Tensor, prompt_values: Tensor, bias: Tensor) -> Tensor:
        """The block over all tokens of pages [context, page, slot, dim] after prompts with these keys and values [context, head, prompt,
        head_dim]; `bias` [context, 1, 1, 1, prompt] is -inf on padding."""
        n, pages, slots, dims = y.shape
        qkv = F.linear(self.attention_norm(y), self.qkv.weight).view(n, pages, slots, 3, self.heads, -1)
        q, k = rotate(qkv[:, :, :, :2], *turns).unbind(3)  # [context, page, slot, head, head_dim]
        q, k, v = (a.transpose(2, 3) for a in (q * (dims // self.heads) ** -0.5, k, qkv[:, :, :, 2]))
        width = prompt_keys.shape[2]
        together = q.transpose(1, 2).reshape(n, self.heads, pages * slots, -1)
        on_prompt = (together @ prompt_keys.mT).view(n, self.heads, pages, slots, width) + bias
        later = torch.full((slots, slots), -torch.inf, device=y.device).triu(1)
        on_page = (q @ k.mT + later).transpose(1, 2)  # [context, head, page, slot, slot]
        weight = torch.cat([on_prompt, on_page], -1).softmax(-1)
        from_prompt = weight[..., :width].reshape(n, self.heads, pages * slots, width) @ prompt_values
        from_page = weight[..., width:].transpose(1, 2) @ v  # [context, page, head, slot, head_dim]
        mixed = from_prompt.view(n, self.heads, pages, slots, -1).transpose(1, 2) + from_page
        y = y + self._drop(F.linear(mixed.transpose(2, 3).reshape(n, pages, slots, dims), self.out.weight))
        return y + self._drop(self._ffn(y))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, layer: int) -> Tensor:
        """The block for one new token a page: [context, page, dim].

        At one page the products are so small that calling a module costs as much, hence plain functions.
        """
        n, pages, dims = x.shape
        qkv = F.linear(_normed(x, self.attention_norm), self.qkv.weight).view(n, pages, 3, self.heads, -1)
        q, k = rotate(qkv[:, :, :2], cos, sin).unbind(2)  # [context, page, head, head_dim]
        at, keys, values = cache.begin + cache.filled, cache.keys[layer], cache.values[layer]
        keys[:, :, :, at], values[:, :, :, at] = k, qkv[:, :, 2]
        keys, values = keys[:, :, :, : at + 1], values[:, :, :, : at + 1]
        if cache.prompt_keys:
            mixed = _mix_shared(q, cache.prompt_keys[layer], cache.prompt_values[layer], cache.bias, keys, values)
        else:
            bias = None if cache.bias is None else cache.bias[..., : at + 1]
            mixed = F.scaled_dot_product_attention(q.transpose(1, 2), keys[:, 0], values[:, 0], bias, scale=1.0)
        x = x + F.linear(mixed.reshape(n, pages, dims), self.out.weight)
        gate, up = F.linear(_normed(x, self.ffn_norm), self.gate_up.weight).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.weight)

    def _ffn(self, x: Tensor) -> Tensor:
        gate, up = F.linear(self.ffn_norm(x), self.gate_up.weight).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down.weight)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """RMS norm as the layer norm of [x, -x], whose mean is 0 and variance the mean square: one kernel on a CPU instead of seven."""
    dims = x.shape[-1]
    return F.layer_norm(torch.cat([x, -x], -1), (2 * dims,), eps=norm.eps or 0.0)[..., :dims] * norm.weight


def _mix_shared(
    q: Tensor, prompt_keys: Tensor, prompt_values: Tensor, bias: Tensor | None, keys: Tensor, values: Tensor
) -> Tensor:
    """Attention of one token a page [context, page, head, head_dim] to the context's prompt and to the page's own tokens."""
    on_prompt = q.transpose(1, 2) @ prompt_keys.mT  # [context, head, page, prompt]
    on_page = (keys @ q[..., None]).squeeze(-1).transpose(1, 2)  # [context, head, page, token]
    weight = torch.cat([on_prompt if bias is None else on_prompt + bias, on_page], -1).softmax(-1)
    width = on_prompt.shape[-1]
    mixed = (weight[..., :width] @ prompt_values).transpose(1, 2)
    return mixed + (weight[..., width:].transpose(1, 2)[..., None, :] @ values).squeeze(-2)


def rotation(places: Int[Tensor, " token"], shape: BackboneShape, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021). Shapes [token, head_dim]."""
    head_dim = shape.dims // shape.heads
    speed = shape.rope_theta ** (-torch.arange(0, head_dim, 2, device=places.device, dtype=torch.float32) / head_dim)
    angle = places[:, None].float() * speed
    angle = torch.cat([angle, angle], -1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each half-pair of the last axis by its position's angle."""
    a, b = x.chunk(2, -1)
    return torch.addcmul(x * cos, torch.cat([-b, a], -1), sin)
