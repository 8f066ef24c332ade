"""GRPO as one writes it with Hugging Face parts: what a step costs without a trainer around it.

Takes a causal LM whose tokens are the items, prompts and what each item is worth. Knows no pagellm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """What the sides of the comparison share."""

    group: int  # pages a context
    slots: int
    special: tuple[int, ...]  # tokens that are never written
    lr: float


class Plain:
    """GRPO as one writes it with Hugging Face parts: `generate`, a forward pass over whole sequences, AdamW."""

    cpu = 0.0  # of other processes: there are none

    def __init__(self, llama: Any, tokens: np.ndarray, worth: np.ndarray, sizes: Sizes) -> None:
        import torch

        self.llama, self.worth, self.sizes = llama, torch.from_numpy(worth), sizes
        self.first: dict[str, Any] = {}
        self.tokens = torch.from_numpy(tokens).repeat_interleave(sizes.group, 0)
        self.optimizer = torch.optim.AdamW(llama.parameters(), lr=sizes.lr, betas=(0.9, 0.99), weight_decay=0.0)

    def __call__(self) -> dict[str, np.ndarray]:
        """One more step; returns what the first one did."""
        import torch

        slots, group = self.sizes.slots, self.sizes.group
        with torch.no_grad():
            pages = self.llama.generate(
                self.tokens, attention_mask=torch.ones_like(self.tokens), max_new_tokens=slots, do_sample=True, top_k=0,
                suppress_tokens=list(self.sizes.special),
            )  # fmt: skip
        written = pages[:, -slots:]
        reward = self.worth[written].sum(1).view(-1, group)
        centered = reward - reward.mean(1, keepdim=True)
        advantages = (centered / (reward.std(1, keepdim=True) + 1e-4)).view(-1, 1)
        logits = self.llama(pages, logits_to_keep=slots + 1, use_cache=False).logits[:, :-1]
        told = logits.log_softmax(-1).gather(-1, written[..., None]).squeeze(-1)
        ratio = (told - told.detach()).exp()
        loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.llama.parameters(), 1e9)
        if not self.first:
            self.first = {"pages": written, "advantages": advantages[:, 0], "logprobs": told, "loss": loss}
            self.first |= {f"grad {name}": weight.grad for name, weight in self.llama.named_parameters()}
            self.first = {name: value.detach().clone().numpy() for name, value in self.first.items()}
        self.optimizer.step()
        return self.first
