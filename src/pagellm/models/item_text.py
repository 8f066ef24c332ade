"""Item vectors from a language model's own encoding of the items' titles. Knows no log, no prompts and no training.

A title is data: whatever it spells, no control token comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pagellm.catalog import Catalog
from pagellm.errors import UsageError
from pagellm.models.pretrained import load_tokenizer
from pagellm.types import I64

_CHUNK = 10_000  # titles that are tokenized at once


def title_tokens(folder: Path, titles: Sequence[str]) -> list[I64]:
    """Token ids of each title in the vocabulary of the folder's tokenizer, never one of its special or added tokens.

    `split_special_tokens` reads "</s>" as five characters; what a tokenizer still turns into a token with a role is left out.
    """
    tokenizer = load_tokenizer(folder)
    roles = np.array(sorted({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}), np.int64)
    out: list[I64] = []
    for begin in range(0, len(titles), _CHUNK):
        some = list(titles[begin : begin + _CHUNK])
        ids = tokenizer(some, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False)["input_ids"]
        tokens = (np.asarray(row, np.int64) for row in ids)
        out += [row[~np.isin(row, roles)] for row in tokens]
    return out


@torch.no_grad()
def item_text_vectors(folder: Path, catalog: Catalog, embeddings: nn.Module, seed: int = 0) -> Float[Tensor, "item dim"]:
    """The mean of the model's input vectors over the tokens of each title. `embeddings` maps token ids to input vectors.

    A title without tokens gets what a new token would get: a draw from the distribution of the vectors in use. Raises UsageError where
    the tokenizer has tokens that the model has not.
    """
    tokens = title_tokens(folder, catalog.titles)
    flat = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *tokens]))
    used, place = flat.unique(return_inverse=True)
    size = next(embeddings.parameters()).shape[0]
    if len(used) and int(used[-1]) >= size:
        raise UsageError(
            f"The tokenizer in {folder} has token {int(used[-1])}, but the model only knows {size:,}. "
            "They are of different models: put the model's own tokenizer there."
        )
    vectors = embeddings(used).float()  # [used, dim]
    lengths = torch.tensor([len(row) for row in tokens])
    item = torch.repeat_interleave(torch.arange(len(tokens)), lengths)
    total = vectors.new_zeros(len(tokens), vectors.shape[1]).index_add(0, item, vectors[place])
    known = (lengths > 0)[:, None]
    return torch.where(known, total / lengths.clamp_min(1)[:, None], _new_tokens(embeddings, len(tokens), seed))


def _new_tokens(embeddings: nn.Module, n: int, seed: int) -> Float[Tensor, "item dim"]:
    """Normal draws with mean and deviation of a sample of the vocabulary's vectors, per dimension (Hewitt 2021)."""
    generator = torch.Generator().manual_seed(seed)
    size = next(embeddings.parameters()).shape[0]
    sample = embeddings(torch.randint(size, (min(size, 5_000),), generator=generator)).float()
    return sample.mean(0) + sample.std(0, correction=0) * torch.randn(n, sample.shape[1], generator=generator)
