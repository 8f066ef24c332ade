"""The small causal LM: a Llama-type decoder of a few million parameters, built in code.

Takes input vectors, gives hidden vectors; decodes with a static key-value cache whose prompt part the pages of one context share.
Knows no items, no rules and no vocabulary. Its weights go to and from `transformers.LlamaModel` without loss.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """Keys and values of a prompt and of what was written after it, per layer. Pages of one context share the prompt part.

    Attention reads the prompt once a context, not once a page: with G pages a context that is G times less to move.
    """

    prompt_keys: list[Tensor]  # a layer: [context, head, prompt, head_dim], rotated
    prompt_values: list[Tensor]
    prompt_bias: Tensor  # [context, 1, 1, prompt] 0 where a token stands, -inf where padding
    lengths: Tensor  # [context] tokens in each prompt
    keys: list[Tensor]  # a layer: [context, page, head, capacity, head_dim], rotated
    values: list[Tensor]
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
        cos, sin = rotation(torch.arange(x.shape[1], device=x.device), self.shape)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def prefill(
        self, x: Float[Tensor, "context token dim"], lengths: Int[Tensor, " context"], pages: int, capacity: int
    ) -> tuple[Float[Tensor, "context dim"], Cache]:
        """Reads the prompts; returns each one's last hidden vector and a cache with room for `capacity` tokens a page."""
        n, width, _ = x.shape
        cos, sin = rotation(torch.arange(width, device=x.device), self.shape)
        padding = torch.arange(width, device=x.device) >= lengths[:, None]
        bias = torch.zeros(n, width, device=x.device, dtype=x.dtype).masked_fill(padding, -torch.inf)
        cache = Cache([], [], bias[:, None, None, :], lengths, [], [])
        head_dim = self.shape.dims // self.shape.heads
        for block in self.blocks:
            x, key, value = block.read(x, cos, sin)
            cache.prompt_keys.append(key)
            cache.prompt_values.append(value)
            room = (n, pages, self.shape.heads, capacity, head_dim)
            cache.keys.append(x.new_zeros(room))
            cache.values.append(x.new_zeros(room))
        last = x[torch.arange(n, device=x.device), lengths - 1]
        return self.norm(last), cache

    def step(self, x: Float[Tensor, "context page dim"], cache: Cache) -> Float[Tensor, "context page dim"]:
        """Reads one token a page and returns its hidden vector; the cache grows by one."""
        cos, sin = rotation(cache.lengths + cache.filled, self.shape)  # [context, head_dim]
        cos, sin = cos[:, None, None, :], sin[:, None, None, :]
        for layer, block in enumerate(self.blocks):
            x = block.step(x, cos, sin, cache, layer)
        cache.filled += 1
        return self.norm(x)


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

    def read(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The block over whole sequences [page, token, dim], with its rotated keys and its values [page, head, token, head_dim]."""
        n, width, dims = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(n, width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self._drop(self.out(mixed.transpose(1, 2).reshape(n, width, dims)))
        return x + self._drop(self._ffn(x)), k, v

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, layer: int) -> Tensor:
        """The block for one new token a page: [context, page, dim]."""
        n, pages, dims = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(n, pages, 3, self.heads, -1).unbind(2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)  # [context, page, head, head_dim]
        keys, values, upto = cache.keys[layer], cache.values[layer], cache.filled + 1
        keys[:, :, :, cache.filled], values[:, :, :, cache.filled] = k, v
        q = q * q.shape[-1] ** -0.5
        on_prompt = q.transpose(1, 2) @ cache.prompt_keys[layer].mT + cache.prompt_bias  # [context, head, page, prompt]
        on_page = (keys[:, :, :, :upto] @ q[..., None]).squeeze(-1).transpose(1, 2)  # [context, head, page, token]
        weight = torch.cat([on_prompt, on_page], -1).softmax(-1)
        width = on_prompt.shape[-1]
        mixed = (weight[..., :width] @ cache.prompt_values[layer]).transpose(1, 2)
        mixed = mixed + (weight[..., width:].transpose(1, 2)[..., None, :] @ values[:, :, :, :upto]).squeeze(-2)
        x = x + self.out(mixed.reshape(n, pages, dims))
        return x + self._ffn(x)

    def _ffn(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, -1)
        return self.down(F.silu(gate) * up)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def rotation(places: Int[Tensor, " token"], shape: BackboneShape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021). Shapes [token, head_dim]."""
    head_dim = shape.dims // shape.heads
    speed = shape.rope_theta ** (-torch.arange(0, head_dim, 2, device=places.device, dtype=torch.float32) / head_dim)
    angle = places[:, None].float() * speed
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each half-pair of the last axis by its position's angle."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin
