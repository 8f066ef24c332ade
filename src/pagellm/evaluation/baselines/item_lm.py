"""The baseline of the lineage: a GPT-type language model over user and item tokens with a multinomial head over all items.

Our reconstruction of the collaborative part of CLLM4Rec (Zhu et al. 2024), which the page literature builds on, at this size: the prompt is
the user's token and the item tokens of the history, the head is a softmax over the item set, so nothing outside the catalog can come
out. No text, no evidence, nothing of the policy's own network. Takes a split, gives what `SequenceFits` fits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.data.splits import Split
from pagellm.evaluation.baselines.ranking import known_users
from pagellm.evaluation.baselines.sequence import SequenceFits, SequenceNet, SequenceSettings, causal_blocks
from pagellm.types import I64

_ANYBODY = 0.1  # share of the training sequences whose user token is the one of unknown users, so that it means something


class ItemLMNet(SequenceNet):
    """A causal decoder over [user, item, item, …]."""

    def __init__(self, n_items: int, n_users: int, settings: SequenceSettings) -> None:
        super().__init__()
        self.length = settings.length
        self.items = nn.Embedding(n_items, settings.dims)
        self.users = nn.Embedding(n_users + 1, settings.dims)  # row 0: a user that the fit never saw
        self.places = nn.Embedding(settings.length + 1, settings.dims)
        self.blocks = causal_blocks(settings)
        self.norm = nn.LayerNorm(settings.dims)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.dims, n_items)
        for table in (self.items, self.users, self.places, self.head):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, items: Int[Tensor, "user item"], users: Int[Tensor, " user"]) -> Float[Tensor, "user item dim"]:
        """Hidden vectors after each item, in the light of the user's token."""
        if self.training:
            users = users.masked_fill(torch.rand(len(users)) < _ANYBODY, 0)
        tokens = torch.cat([self.users(users)[:, None], self.items(items)], 1)
        width = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(width)
        x = self.dropout(tokens + self.places.weight[:width])
        return self.norm(self.blocks(x, mask=mask, is_causal=True))[:, 1:]

    def outputs(self) -> tuple[Float[Tensor, "item dim"], Float[Tensor, " item"]]:
        """The multinomial head."""
        return self.head.weight, self.head.bias


def item_lm_fits(
    split: Split, seed: int, repeats: bool, tell: Callable[[str], None], settings: SequenceSettings | None = None
) -> SequenceFits:
    """The item language model on a split."""
    return SequenceFits("item-lm", _maker(split), split, seed, repeats, tell, settings or SequenceSettings())


def _maker(split: Split) -> Callable[[SequenceSettings], ItemLMNet]:
    most: I64 = known_users(split.log, split.fit_until_test)[
        1
    ]  # the fit for the valid part has fewer: its last rows are not read
    return lambda s: ItemLMNet(len(split.candidates_test), len(most), s)
