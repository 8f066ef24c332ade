"""A Hugging Face causal LM as the policy's backbone. Takes and gives vectors, as the small backbone does; knows no items.

The policy owns the item vectors, which start as the LM's own encoding of the titles; of the LM only the decoder is kept, neither its
vocabulary nor its head. Everything it has learned is in the policy's weights, so a finished run needs the original folder no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.catalog import Catalog
from pagellm.config import ModelConfig, RunConfig
from pagellm.errors import UsageError
from pagellm.models.item_text import item_text_vectors
from pagellm.models.model_files import first_line, model_folder
from pagellm.models.policy import PolicyNet
from pagellm.models.pretrained import add_lora, build_decoder, load_decoder, new_cache
from pagellm.types import F32

LOGIT_DEVIATION = 0.5
"""Standard deviation over items of the logits at the start. Normal logits of deviation s cost s²/2 = 0.125 more than log(items)."""

PAGE_ROOM = 128
"""Positions that are kept free for the page when a history's longest prompt is checked against what the LM can read."""


@dataclass
class GrowingCache:
    """Keys and values of prompts, padding included, and of what was written after them: one row a page."""

    past: Any  # transformers.DynamicCache
    real: Int[Tensor, "page token"]  # 1 where a token stands, 0 where padding
    lengths: Int[Tensor, " page"]  # tokens so far, padding left out: the next token's position
    pages: int  # a context


class HuggingFaceBackbone(nn.Module):
    """A decoder of `transformers` behind the `Backbone` protocol, with one number of its own: the scale of its output.

    The output meets the item vectors in a dot product. A decoder's last norm gives vectors of any length, up to hundreds, and item
    vectors are means of token vectors, so raw dot products can be orders of magnitude off; see `calibrate`.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        embeddings = decoder.get_input_embeddings()  # type: ignore[operator]
        self.dims = int(next(embeddings.parameters()).shape[1])
        self.positions: int | None = getattr(decoder.config, "max_position_embeddings", None)
        self.decoder = decoder
        self.log_scale = nn.Parameter(torch.zeros(()))
        decoder.set_input_embeddings(nn.Identity())  # type: ignore[operator]  # vectors come in: its vocabulary is dead weight

    @property
    def architecture(self) -> dict[str, Any]:
        """What `build_decoder` makes the same decoder from, without weights."""
        known: dict[str, Any] = self.decoder.config.to_dict()  # type: ignore[operator, union-attr]
        return {key: value for key, value in known.items() if key not in {"_name_or_path", "dtype", "torch_dtype"}}

    def forward(self, x: Float[Tensor, "page token dim"]) -> Float[Tensor, "page token dim"]:
        """Hidden vectors of whole sequences. Padding stands on the right, where causal attention never looks."""
        hidden: Tensor = self.decoder(inputs_embeds=x, use_cache=False).last_hidden_state
        return hidden * self.log_scale.exp()

    def prefill(
        self, x: Float[Tensor, "context token dim"], lengths: Int[Tensor, " context"], pages: int, capacity: int, tail: int = 1
    ) -> tuple[Float[Tensor, "context tail dim"], GrowingCache]:
        """Reads the prompts; returns the hidden vectors of each one's last `tail` tokens and a cache for `pages` pages a context.

        Raises UsageError where a prompt and `capacity` tokens are more than the LM has positions for.
        """
        n, width, _ = x.shape
        longest = int(lengths.max()) + capacity
        if self.positions is not None and longest > self.positions:
            raise UsageError(
                f"A page of {capacity} slots after a prompt of {longest - capacity} tokens needs {longest} positions; this backbone "
                f"has {self.positions}. Use fewer slots, or train with a smaller model.max_history."
            )
        place = torch.arange(width, device=x.device)
        real = (place < lengths[:, None]).long()
        past = new_cache()
        hidden = self._read(x, real, place.expand(n, width), past)
        if pages > 1:
            past.batch_repeat_interleave(pages)
        cache = GrowingCache(past, real.repeat_interleave(pages, 0), lengths.repeat_interleave(pages), pages)
        ends = lengths[:, None] - tail + torch.arange(tail, device=x.device)
        return hidden[torch.arange(n, device=x.device)[:, None], ends], cache

    def read_pages(
        self,
        x: Float[Tensor, "context token dim"],
        lengths: Int[Tensor, " context"],
        tokens: Float[Tensor, "context page slot dim"],
    ) -> tuple[Float[Tensor, "context dim"], Float[Tensor, "context page slot dim"]]:
        """Hidden vectors of the prompts' last tokens and of all tokens of pages that follow them, with gradients; a prompt is read once."""
        n, pages, slots, _ = tokens.shape
        hidden, cache = self.prefill(x, lengths, pages, slots)
        real = torch.cat([cache.real, cache.real.new_ones(n * pages, slots)], 1)
        positions = cache.lengths[:, None] + torch.arange(slots, device=x.device)
        return hidden[:, 0], self._read(tokens.flatten(0, 1), real, positions, cache.past).view_as(tokens)

    def step(self, x: Float[Tensor, "context page dim"], cache: GrowingCache) -> Float[Tensor, "context page dim"]:
        """Reads one token a page and returns its hidden vector; the cache grows by one."""
        cache.real = torch.cat([cache.real, cache.real.new_ones(len(cache.real), 1)], 1)
        hidden = self._read(x.flatten(0, 1)[:, None], cache.real, cache.lengths[:, None], cache.past)
        cache.lengths = cache.lengths + 1
        return hidden[:, 0].view_as(x)

    def _read(self, x: Tensor, real: Tensor, positions: Tensor, past: Any) -> Tensor:
        read = self.decoder(inputs_embeds=x, attention_mask=real, position_ids=positions, past_key_values=past, use_cache=True)
        return read.last_hidden_state * self.log_scale.exp()

    @torch.no_grad()
    def calibrate(self, items: Float[Tensor, "item dim"], seed: int) -> None:
        """Sets the output scale so that logits over items start with deviation `LOGIT_DEVIATION`, measured on random histories.

        The layer-sequential start of Mishkin and Matas (2016) for the one layer that is new. Training moves the scale from there. Titles
        that are all alike have no deviation; they are scaled as if they had a tenth of what random directions would have.
        """
        generator = torch.Generator().manual_seed(seed)
        histories = torch.randint(len(items), (32, 8), generator=generator)
        some = items[torch.randint(len(items), (2_000,), generator=generator)] if len(items) > 2_000 else items
        self.eval()
        hidden = self(items[histories])[:, -1] / self.log_scale.exp()
        spread = (hidden @ some.T).std(-1, correction=0).mean()
        least = 0.1 * hidden.norm(dim=-1).mean() * some.norm(dim=-1).mean() / math.sqrt(self.dims)
        self.log_scale.copy_((LOGIT_DEVIATION / spread.maximum(least).clamp_min(1e-12)).log())


def pretrained_policy(config: RunConfig, content: F32, features: int, catalog: Catalog) -> PolicyNet:
    """A policy around the LM that `model.backbone` names, its item vectors encoded by that LM. The content part starts at zero.

    Raises UsageError where the model is missing, needs code of its own, is no causal decoder or cannot read so long a history.
    """
    folder, seed = model_folder(config.model.backbone), config.seed
    decoder = load_decoder(folder)
    vectors = item_text_vectors(folder, catalog, decoder.get_input_embeddings(), seed)  # type: ignore[operator]
    backbone = HuggingFaceBackbone(decoder)
    _check_positions(backbone, config.model)
    check_decoder(backbone)
    backbone.calibrate(vectors, seed)
    torch.manual_seed(seed)
    net = _around(backbone, config, content, features)
    with torch.no_grad():
        net.ids.weight.copy_(vectors)
        nn.init.zeros_(net.project.weight)
        for table in (net.gaps, net.rows):
            nn.init.normal_(table.weight, std=float(vectors.std()))
    return net


def stored_policy(config: RunConfig, content: F32, features: int, architecture: dict[str, Any]) -> PolicyNet:
    """A policy of the shape that `pretrained_policy` makes, its weights still to be loaded. Needs no folder of a model."""
    return _around(HuggingFaceBackbone(build_decoder(architecture)), config, content, features)


def _around(backbone: HuggingFaceBackbone, config: RunConfig, content: F32, features: int) -> PolicyNet:
    if config.model.adapter == "lora":
        add_lora(backbone.decoder, config.model.lora_rank)
    return PolicyNet(config.model, content, features, backbone, blind="policy" in config.candidates.drop)


@torch.no_grad()
def check_decoder(backbone: HuggingFaceBackbone) -> None:
    """Raises UsageError unless the decoder is causal and goes on from its cache, padded prompts included, as if it had read all at once."""
    backbone.eval()
    kind = backbone.architecture["model_type"]
    x = torch.randn(2, 6, backbone.dims, generator=torch.Generator().manual_seed(0)) * 0.02
    try:
        whole = backbone(x)
        changed = backbone(torch.cat([x[:, :5], -x[:, 5:]], 1))
        last, cache = backbone.prefill(x[:, :4], torch.tensor([4, 2]), 2, 2)
        after = backbone.step(x[[0, 1], [4, 2]][:, None].expand(-1, 2, -1), cache)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as problem:
        raise UsageError(f"A {kind} model does not take vectors, positions and a cache: {first_line(problem)}") from problem
    if not bool(whole.isfinite().all()):
        raise UsageError(f"The weights of this {kind} model give values that are not finite. Download the model again.")
    wanted = torch.stack([whole[[0, 1], [3, 1]], whole[[0, 1], [4, 2]], whole[[0, 1], [4, 2]], whole[:, 4]])
    got = torch.stack([last[:, 0], after[:, 0], after[:, 1], changed[:, 4]])
    if float((wanted - got).abs().max()) > 1e-3 * float(whole.abs().max()):
        raise UsageError(f"A {kind} model does not read strictly from left to right. Use a causal LM: GPT-2, Llama or Qwen.")


def _check_positions(backbone: HuggingFaceBackbone, config: ModelConfig) -> None:
    longest = 2 * config.max_history + 1 + PAGE_ROOM  # every event may be a basket of its own, which opens with an ASK token
    if backbone.positions is not None and longest > backbone.positions:
        most = (backbone.positions - 1 - PAGE_ROOM) // 2
        raise UsageError(
            f"Histories of model.max_history = {config.max_history} events need up to {longest} positions; the backbone "
            f"{config.backbone} has {backbone.positions}. Set model.max_history to {max(most, 1)} or less, or use another backbone."
        )
