"""SASRec (Kang and McAuley 2018) with today's best recipe: self-attention over the last items.

A softmax over the items instead of one sampled negative (Klenitskiy and Vasilev 2023), item vectors that start from text. Inputs are normed
before they are read, as in RecBole, so that an item's vector weighs as much as its place whatever its size. Takes a split and item
vectors, gives what `SequenceFits` fits.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.data.splits import Split
from pagellm.evaluation.baselines.sequence import (
    SequenceFits,
    SequenceNet,
    SequenceSettings,
    causal_blocks,
    start_from_text,
)
from pagellm.types import F32


class SASRecNet(SequenceNet):
    """Self-attention over the last items; scores are products with the input vectors."""

    def __init__(self, content: F32, settings: SequenceSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.items = nn.Embedding(len(content), settings.dims)
        self.places = nn.Embedding(settings.length, settings.dims)
        self.norm_in = nn.LayerNorm(settings.dims)
        self.blocks = causal_blocks(settings)
        self.norm = nn.LayerNorm(settings.dims)
        self.dropout = nn.Dropout(settings.dropout)
        start_from_text(self.items, content)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, items: Int[Tensor, "user item"], users: Int[Tensor, " user"]) -> Float[Tensor, "user item dim"]:
        """Hidden vectors after each item, whoever the user is."""
        width = items.shape[1]
        x = self.dropout(self.norm_in(self.items(items) + self.places.weight[:width]))
        mask = nn.Transformer.generate_square_subsequent_mask(width)
        return self.norm(self.blocks(x, mask=mask, is_causal=True))


def sasrec_fits(
    split: Split,
    content: F32,
    seed: int,
    repeats: bool,
    tell: Callable[[str], None],
    settings: SequenceSettings | None = None,
) -> SequenceFits:
    """SASRec on a split; `content` [item, dim] are text vectors, strongest directions first."""
    return SequenceFits("sasrec", lambda s: SASRecNet(content, s), split, seed, repeats, tell, settings or SequenceSettings())
