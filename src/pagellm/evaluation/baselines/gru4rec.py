"""GRU4Rec (Hidasi et al. 2016): a recurrent network over the last items.

A user's history stands for a session. As SASRec here it has a softmax over the items and item vectors that start from text, normed before
they are read and used at both ends, so that the two differ in how they read a history alone. Takes a split and item vectors, gives what
`SequenceFits` fits.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.data.splits import Split
from pagellm.evaluation.baselines.sequence import SequenceFits, SequenceNet, SequenceSettings, start_from_text
from pagellm.types import F32

SETTINGS = SequenceSettings(layers=1)


class GRU4RecNet(SequenceNet):
    """Gated recurrent units over the last items; scores are products with the input vectors."""

    def __init__(self, content: F32, settings: SequenceSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.items = nn.Embedding(len(content), settings.dims)
        self.norm_in = nn.LayerNorm(settings.dims)
        self.units = nn.GRU(settings.dims, settings.dims, settings.layers, batch_first=True)
        self.out = nn.Linear(settings.dims, settings.dims)
        self.dropout = nn.Dropout(settings.dropout)
        start_from_text(self.items, content)

    def forward(self, items: Int[Tensor, "user item"], users: Int[Tensor, " user"]) -> Float[Tensor, "user item dim"]:
        """Hidden vectors after each item, whoever the user is."""
        hidden, _ = self.units(self.dropout(self.norm_in(self.items(items))))
        return self.out(self.dropout(hidden))


def gru4rec_fits(
    split: Split, content: F32, seed: int, repeats: bool, tell: Callable[[str], None], settings: SequenceSettings = SETTINGS
) -> SequenceFits:
    """GRU4Rec on a split; `content` [item, dim] are text vectors, strongest directions first."""
    return SequenceFits("gru4rec", lambda s: GRU4RecNet(content, s), split, seed, repeats, tell, settings)
