"""Time per page as the catalog grows from 1e4 to 1e6 items, with a fixed pool of 500 candidates: it has to stay flat within 10 %.

One policy a size, random weights, page head and evidence head included; prompts and candidates are random. The ratio is
time at 1e4 items over time at the larger size, so flat within 10 % means a ratio of at least 1/1.1. Candidates are given: drawing them
is the business of the channels, and the language model's own favorites read every item vector.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoding import SLOTS, random_policy, shop
from harness import Comparison, compare, main, smoke

SIZES = (10_000, 100_000, 1_000_000)
POOL, PROMPT, BATCH, DIMS = 500, 60, 16, 64
FLAT = 1 / 1.1


class Writer:
    """Writes 16 greedy pages of 20 slots from pools that are given."""

    def __init__(self, items: int) -> None:
        """Builds catalog, rules, policy and inputs; none of it is timed."""
        import torch

        from pagellm.layout.compiled import compile_layout
        from pagellm.layout.spec import Layout

        self.rules = compile_layout(Layout.single_row(SLOTS), shop(items), 0)
        self.net, features = random_policy(items, DIMS)
        rng = np.random.default_rng(6)
        self.pool = np.stack([rng.choice(items, POOL, replace=False) for _ in range(BATCH)]).astype(np.int32)
        self.evidence = torch.from_numpy(rng.normal(size=(BATCH, POOL, features)).astype(np.float32))
        self.items = torch.from_numpy(rng.integers(0, items, (BATCH, PROMPT)))

    def __call__(self) -> np.ndarray:
        """[page, slot] items."""
        import torch

        from pagellm.layout.masks import PageMasks
        from pagellm.models.decoding import Writing, write_pages
        from pagellm.models.page_scorer import PageScorer

        with torch.inference_mode():
            prompt, lengths = self.net.embed(self.items, torch.zeros_like(self.items)), torch.full((BATCH,), PROMPT)
            pool = torch.from_numpy(self.pool.astype(np.int64))
            scorer = PageScorer(self.net, prompt, lengths, pool, self.evidence, 1, SLOTS, first_row=0)
        writing = Writing(logprobs=False)
        choice = write_pages(scorer, PageMasks(self.rules, self.pool), (BATCH, 1), writing, np.random.default_rng(0)).choice
        return np.take_along_axis(self.pool, choice[:, 0], 1)


def whole(peer: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Sizes have other items, so pages cannot be equal; each has to be full and without repeats."""
    for pages in (ours, theirs):
        assert (pages >= 0).all(), f"{peer}: a slot is empty"
        assert all(len(set(page)) == SLOTS for page in pages.tolist()), f"{peer}: a page repeats an item"
    return 0.0


def comparisons() -> Sequence[Comparison]:
    sizes = SIZES[:2] if smoke() else SIZES
    base = Writer(sizes[0])
    notes: dict[str, Any] = {"ours": f"{sizes[-1]:,} items", "pages": BATCH, "slots": SLOTS, "candidates": POOL, "dims": DIMS}
    target = {f"{sizes[0]:,} items": FLAT}
    middle = {f"{size:,} items": Writer(size) for size in sizes[1:-1]}
    peers = {f"{sizes[0]:,} items": base, **middle}
    return [compare("growth", ours=Writer(sizes[-1]), peers=peers, check=whole, rounds=151, target=target, notes=notes)]


if __name__ == "__main__":
    main("growth", comparisons)
