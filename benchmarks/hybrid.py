"""P-DEC-5: the first 5 of 20 slots written one by one and the rest in one pass, against all 20 one by one.

A planted world: users like two of twenty themes, and whoever takes an item takes its partner with probability one half, so what stands
on the page tells what else belongs there. A policy learns the next basket item by item, page head included; held-out users judge the
pages. Part of `decoding.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, smoke

ITEMS, THEMES, SLOTS, FIRST, HISTORY, POOL = 1_000, 20, 20, 5, 20, 500
BATCHES = {1: 2.5, 64: None}  # pages at once, and the target: all held-out users are judged, these are timed
WITHIN = 0.01  # NDCG that hybrid writing may cost, relative
FEATURES = 4  # of evidence, all zero here


def planted(users: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Histories [user, event] and next baskets [user, slot], the latter shuffled and padded with -1."""
    rng = np.random.default_rng(seed)
    popular = -0.7 * np.log1p(np.arange(ITEMS) // THEMES // 2 * 2)  # partners are equally popular
    theme = np.arange(ITEMS) // 2 % THEMES  # and of one theme
    liked = np.stack([rng.permutation(THEMES)[:2] for _ in range(users)])
    taste = popular + 3.0 * (theme == liked[:, :1]) + 2.0 * (theme == liked[:, 1:])

    def take(count: int) -> np.ndarray:
        return np.argsort(-(taste + rng.gumbel(size=taste.shape)), axis=1)[:, :count]

    history, seeds = take(HISTORY), take(SLOTS // 2)
    basket = np.concatenate([seeds, np.where(rng.random(seeds.shape) < 0.5, seeds ^ 1, -1)], 1)
    for row in basket:
        items = rng.permutation(np.unique(row[row >= 0]))
        row[:] = -1
        row[: len(items)] = items
    return history, basket


def trained(steps: int, batch: int = 64) -> Any:
    """A policy after `steps` steps on baskets written item by item, page head included; its backbone has the shape of P-DEC-1."""
    import torch
    import torch.nn.functional as F

    from pagellm.config import ModelConfig
    from pagellm.models.policy import PolicyNet

    torch.manual_seed(0)
    net = PolicyNet(ModelConfig(layers=4, ffn_dims=512, dropout=0.0), np.zeros((ITEMS, 16), np.float32), FEATURES).train()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    history, basket = (torch.from_numpy(a) for a in planted(steps * batch, 1))
    for step in range(steps):
        some = slice(step * batch, (step + 1) * batch)
        target, vectors = basket[some], net.item_vectors()
        stands = F.embedding(target[:, :-1].clamp_min(0), vectors)
        page = (
            torch.cat([torch.zeros(batch, 1, net.dims), stands], 1) + net.rows.weight[0]
        )  # a page token: what was put before, and the row
        hidden = net.backbone(torch.cat([net.embed(*prompt(history[some])), page], 1))
        h, written = hidden[:, HISTORY], hidden[:, HISTORY + 1 :]
        logits = (h[:, None] + net.page_head(written)) @ vectors.T + net.bias
        before = torch.zeros_like(logits, dtype=torch.bool)
        before[:, 1:] = F.one_hot(target[:, :-1].clamp_min(0), ITEMS).bool().cumsum(1) > 0
        loss = F.cross_entropy(logits.masked_fill(before, -torch.inf)[target >= 0], target[target >= 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def prompt(history: Any) -> tuple[Any, Any]:
    """Items and codes of prompts: the history, then the token that asks for the next basket."""
    import torch

    from pagellm.models.codec import ASK

    items = torch.cat([history, torch.full((len(history), 1), ASK)], 1)
    return items, torch.zeros_like(items)


class Writer:
    """Writes greedy pages of a trained policy from its own 500 favorites."""

    def __init__(self, net: Any, users: int) -> None:
        """Reads prompts and draws candidates of held-out users; neither is timed."""
        import polars as pl
        import torch

        from pagellm.catalog import Catalog
        from pagellm.layout.compiled import compile_layout
        from pagellm.layout.spec import Layout

        names = [f"i{n}" for n in range(ITEMS)]
        self.rules = compile_layout(Layout.single_row(SLOTS), Catalog(pl.DataFrame({"item_id": names, "title": names})), 0)
        self.net = net
        history, self.baskets = planted(users, 2)
        self.items, self.codes = prompt(torch.from_numpy(history))
        with torch.no_grad():
            h = net.backbone(net.embed(self.items, self.codes))[:, -1]
            self.pool = np.sort(net.favorites(h, POOL, np.ones(ITEMS, bool)).numpy(), 1)  # rising, as pools are drawn

    def write(self, hybrid: int | None, users: slice) -> np.ndarray:
        """[user, slot] items."""
        import torch

        from pagellm.layout.masks import PageMasks
        from pagellm.models.decoding import Writing, write_pages
        from pagellm.models.page_scorer import PageScorer

        pool = self.pool[users]
        n = len(pool)
        with torch.inference_mode():
            tokens = self.net.embed(self.items[users], self.codes[users])
            lengths, evidence = torch.full((n,), HISTORY + 1), torch.zeros(n, POOL, FEATURES)
            scorer = PageScorer(self.net, tokens, lengths, torch.from_numpy(pool), evidence, 1, SLOTS, first_row=0)
        writing = Writing(hybrid=hybrid, logprobs=False)
        choice = write_pages(scorer, PageMasks(self.rules, pool), (n, 1), writing, np.random.default_rng(0)).choice
        return np.take_along_axis(pool, choice[:, 0], 1)

    def ndcg(self, hybrid: int | None) -> np.ndarray:
        """[user] NDCG@20 against the held-out basket, binary gains."""
        gain = 1 / np.log2(np.arange(SLOTS) + 2)
        ideal = np.cumsum(gain)
        pages = np.concatenate([self.write(hybrid, slice(b, b + 500)) for b in range(0, len(self.pool), 500)])
        hits = (pages[:, :, None] == self.baskets[:, None, :]).any(2)
        return (hits * gain).sum(1) / ideal[(self.baskets >= 0).sum(1) - 1]


def hybrid_pages() -> list[Comparison]:
    """Times of one page and of 64 at once, after the values of all held-out pages have been compared.

    The target is for one page at a time, as a server writes it. A batch reads its prompts in full matrices, which hybrid writing
    cannot save, so the second comparison has no target.
    """
    writer = Writer(trained(20 if smoke() else 300), 200 if smoke() else 4_000)
    full, hybrid, plain = (writer.ndcg(first) for first in (None, FIRST, 0))
    drawn = np.random.default_rng(0).integers(0, len(full), (2_000, len(full)))
    spread = np.quantile(hybrid[drawn].mean(1) / full[drawn].mean(1), (0.025, 0.975))
    differ = float((writer.write(None, slice(500)) != writer.write(FIRST, slice(500))).mean())

    def same(peer: str, ours: np.ndarray, theirs: np.ndarray) -> float:
        assert (ours[:, :FIRST] == theirs[:, :FIRST]).all(), "the slots written one by one differ"
        lost = 1 - hybrid.mean() / full.mean()
        assert smoke() or 1 - spread[0] <= WITHIN, f"hybrid pages lose {lost:.2%} of NDCG, perhaps {1 - spread[0]:.2%}"
        return float(lost)

    notes = {
        "slots": SLOTS,
        "one by one": FIRST,
        "candidates": POOL,
        "NDCG@20 full": round(float(full.mean()), 4),
        "hybrid": round(float(hybrid.mean()), 4),
        "none one by one": round(float(plain.mean()), 4),
        "hybrid/full 95 %": [round(float(x), 4) for x in spread],
        "held-out users": len(full),
        "slots that differ": round(differ, 3),
    }
    return [_timed(writer, batch, target, same, notes) for batch, target in BATCHES.items()]


def _timed(writer: Writer, batch: int, target: float | None, check: Any, notes: dict[str, Any]) -> Comparison:
    some, peer = slice(batch), "all one by one"
    return compare(
        f"P-DEC-5, batch {batch}",
        ours=lambda: writer.write(FIRST, some),
        peers={peer: lambda: writer.write(None, some)},
        check=check,
        rounds=61 if batch == 1 else 15,
        target={peer: target} if target else None,
        notes=notes,
    )
