"""Any callable on pages as rewards of slots, and several of them as one. Takes pages, gives numbers; knows no policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.errors import TrainingError
from pagellm.types import F32, PageBatch, PageReward


def slot_rewards(reward: PageReward, batch: PageBatch) -> Float[Tensor, "page slot"]:
    """Rewards of every slot; a reward of whole pages counts at the last filled slot. Raises TrainingError for another shape."""
    values = np.asarray(reward(batch), np.float32)
    if values.shape == (len(batch),):
        values = at_last_slot(values, batch)
    if values.shape != batch.items.shape:
        raise TrainingError(
            f"A reward must give one number a page, shape {(len(batch),)}, or one a slot, shape {batch.items.shape}. Got {values.shape}."
        )
    return torch.from_numpy(values)


def at_last_slot(values: F32, batch: PageBatch) -> F32:
    """[page, slot] with each page's value at its last filled slot, at the first of an empty page."""
    out = np.zeros(batch.items.shape, np.float32)
    out[np.arange(len(batch)), batch.last] = values
    return out


@dataclass(frozen=True)
class Mixed:
    """Several rewards as one: the weighted sum of their slots. Any callable on pages may take part, a verifiable one too."""

    terms: Sequence[tuple[float, PageReward]]

    def __call__(self, pages: PageBatch) -> F32:
        """Shape [page, slot]."""
        total = np.zeros(pages.items.shape, np.float32)
        for weight, reward in self.terms:
            total += weight * slot_rewards(reward, pages).numpy()
        return total
