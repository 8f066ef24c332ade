"""Writing pages: against Hugging Face `generate` (P-DEC-1), in groups (P-DEC-3), and partly in one pass (P-DEC-5).

P-DEC-1 carries one Llama's weights into both sides. The peer is `generate` with a `prefix_allowed_tokens_fn` that returns the list of
tokens that may follow, as its documentation says. Two more peers bound it from below, without a target: the same function returning
a boolean tensor, which happens to work, and `generate` with no rule at all. P-DEC-3 holds a group of pages against as many single
calls with the same draws. P-DEC-5 trains a little policy on a planted log, gives it a page head that matters, and asks what its
pages are worth when only the first slots are written one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke

ITEMS, SLOTS, PROMPT = 10_000, 20, 60
BATCHES = {1: 2.5, 16: 4.0, 64: 4.0}  # pages at once, and the target
GROUP = 8


def shop(items: int) -> Any:
    """A catalog without fields: the rules here are no repeats and nothing else."""
    import polars as pl

    from pagellm.catalog import Catalog

    return Catalog(pl.DataFrame({"item_id": [f"i{n}" for n in range(items)], "title": [f"Item {n}" for n in range(items)]}))


class PlainScorer:
    """Logits of a plain language model whose tokens are the items."""

    def __init__(self, backbone: Any, vectors: Any, head: Any, prompt: Any) -> None:
        """Reads the prompts [page, token]."""
        import torch

        lengths = torch.full((len(prompt),), prompt.shape[1])
        h, self._cache = backbone.prefill(vectors[prompt], lengths, 1, SLOTS)
        self._hidden, self._backbone, self._vectors, self._head = h, backbone, vectors, head
        self._begun = False

    def logits(self) -> Any:
        """Of every item. Shape [page, 1, item]."""
        return self._hidden @ self._head.T

    def read(self, choice: Any, row: Any) -> None:
        """Reads the chosen items; before the first slot nothing is chosen, and the prompt has said all."""
        if self._begun:
            self._hidden = self._backbone.step(self._vectors[choice], self._cache)
        self._begun = True


def against_generate(batch: int) -> Comparison:
    """P-DEC-1: greedy pages of 20 out of 10,000 items after a prompt of 60 tokens."""
    import torch

    from pagellm.layout.compiled import compile_layout
    from pagellm.layout.masks import PageMasks
    from pagellm.layout.spec import Layout
    from pagellm.models.decoding import Writing, write_pages

    backbone, llama = twins()
    vectors, head = llama.model.embed_tokens.weight, llama.lm_head.weight
    rules = compile_layout(Layout.single_row(SLOTS), shop(ITEMS), 0)
    prompt = torch.randint(ITEMS, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
    pool = np.broadcast_to(np.arange(ITEMS), (batch, ITEMS))
    every, writing = range(ITEMS), Writing(logprobs=False)  # `generate` has none either

    @torch.inference_mode()
    def ours() -> np.ndarray:
        scorer = PlainScorer(backbone, vectors, head, prompt)
        return write_pages(scorer, PageMasks(rules, pool), (batch, 1), writing, np.random.default_rng(0)).choice[:, 0]

    def listed(page: int, sent: torch.Tensor) -> list[int]:
        used = set(sent[PROMPT:].tolist())
        return [item for item in every if item not in used]

    def marked(page: int, sent: torch.Tensor) -> torch.Tensor:
        allowed = torch.ones(ITEMS, dtype=torch.bool)
        allowed[sent[PROMPT:]] = False
        return allowed

    def generate(rule: Any) -> Callable[[], np.ndarray]:
        @torch.inference_mode()
        def call() -> np.ndarray:
            mask = torch.ones_like(prompt)
            out = llama.generate(
                prompt,
                attention_mask=mask,
                max_new_tokens=SLOTS,
                do_sample=False,
                use_cache=True,
                prefix_allowed_tokens_fn=rule,
            )
            return out[:, PROMPT:].numpy()

        return call

    def same(peer: str, ours: np.ndarray, theirs: np.ndarray) -> float:
        if peer == "generate, no rule":  # may repeat itself, so it is a time only
            return float((ours != theirs).mean())
        assert (np.sort(ours, 1)[:, 1:] != np.sort(ours, 1)[:, :-1]).all(), "a page repeats an item"
        assert (ours == theirs).all(), f"{peer} writes other pages"
        return 0.0

    listing = "generate, list of tokens"
    peers = {listing: generate(listed), "generate, boolean tensor": generate(marked), "generate, no rule": generate(None)}
    million = sum(p.numel() for p in llama.parameters()) / 1e6
    notes = {"items": ITEMS, "slots": SLOTS, "prompt": PROMPT, "million parameters": round(million, 1)}
    rounds = 61 if batch == 1 else 9
    name = f"P-DEC-1, batch {batch}"
    return compare(name, ours=ours, peers=peers, check=same, rounds=rounds, target={listing: BATCHES[batch]}, notes=notes)


def twins(sizes: dict[str, int] | None = None) -> tuple[Any, Any]:
    """Our backbone and a `LlamaForCausalLM` with the same weights; item vectors in and out are the Llama's own. `sizes` of the shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pagellm.models.backbone import BackboneShape, SmallBackbone
    from pagellm.models.llama_weights import llama_settings, to_llama_state

    torch.manual_seed(0)
    shape = BackboneShape(**(sizes or {"dims": 128, "layers": 4, "heads": 4, "ffn_dims": 512}))
    backbone = SmallBackbone(shape).eval()
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}  # every token is an item, so no page ends early
    llama = LlamaForCausalLM(LlamaConfig(**llama_settings(shape), vocab_size=ITEMS, tie_word_embeddings=False, **tokens)).eval()
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "norm" not in name:
                weight.mul_(4)  # so that attention is far from uniform
        llama.model.load_state_dict(to_llama_state(backbone.state_dict()), strict=False)
        torch.nn.init.normal_(llama.model.embed_tokens.weight)
        torch.nn.init.normal_(llama.lm_head.weight, std=0.3)
    return backbone, llama


def in_groups() -> Comparison:
    """P-DEC-3: a group of 8 sampled pages of each of 4 users at once, against 8 calls with one page of each, draws being equal.

    Greedy pages of one prompt would all be the same; sampled ones show that every page of the group goes its own way.
    """
    import torch

    from pagellm.layout.compiled import compile_layout
    from pagellm.layout.masks import PageMasks
    from pagellm.layout.spec import Layout
    from pagellm.models.decoding import Writing, write_pages
    from pagellm.models.page_scorer import PageScorer

    users, candidates, tokens = 4, 500, 100
    net, features = random_policy(ITEMS)
    rng = np.random.default_rng(3)
    rules = compile_layout(Layout.single_row(SLOTS), shop(ITEMS), 0)
    pool = np.stack([rng.choice(ITEMS, candidates, replace=False) for _ in range(users)]).astype(np.int32)
    evidence = torch.from_numpy(rng.normal(size=(users, candidates, features)).astype(np.float32))
    items, codes = torch.from_numpy(rng.integers(0, ITEMS, (users, tokens))), torch.zeros(users, tokens, dtype=torch.long)
    lengths, writing = torch.full((users,), tokens), Writing(1.0, logprobs=False)
    draws = np.random.default_rng(4).random((SLOTS, 2, users, GROUP))

    def write(pages: int, drawn: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            prompt = net.embed(items, codes)
            places = torch.from_numpy(pool.astype(np.int64))
            scorer = PageScorer(net, prompt, lengths, places, evidence, pages, SLOTS, first_row=0)
        masks = PageMasks(rules, np.repeat(pool, pages, 0))
        return write_pages(scorer, masks, (users, pages), writing, GivenDraws(drawn)).choice

    def together() -> np.ndarray:
        return write(GROUP, draws)

    def one_by_one() -> np.ndarray:
        return np.concatenate([write(1, draws[..., page : page + 1]) for page in range(GROUP)], 1)

    def same(peer: str, ours: np.ndarray, theirs: np.ndarray) -> float:
        assert len({tuple(page) for page in ours.reshape(-1, SLOTS)}) == users * GROUP, "two pages of a group are the same"
        assert (ours == theirs).all(), f"{peer} write other pages"
        return 0.0

    peer = f"{GROUP} single calls"
    notes = {"users": users, "pages a user": GROUP, "slots": SLOTS, "prompt": tokens, "candidates": candidates}
    return compare("P-DEC-3", ours=together, peers={peer: one_by_one}, check=same, rounds=15, target={peer: 3.0}, notes=notes)


class GivenDraws:
    """A random generator whose draws are known: `write_pages` asks for them once."""

    def __init__(self, draws: np.ndarray) -> None:
        self._draws = draws

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        """The draws."""
        assert shape == self._draws.shape
        return self._draws


def random_policy(items: int, dims: int = 128) -> tuple[Any, int]:
    """A policy of the small profile with random weights, page head and evidence head included, and its number of features."""
    import torch

    from pagellm.config import ModelConfig
    from pagellm.models.policy import PolicyNet

    features = 20
    torch.manual_seed(5)
    content = np.random.default_rng(5).normal(size=(items, 16)).astype(np.float32) / 16
    net = PolicyNet(ModelConfig(dims=dims), content, features).eval()
    with torch.no_grad():
        for weight in (net.page_head.weight, net.evidence.outer[-1].weight):
            weight.normal_(std=0.3)
    return net, features


def comparisons() -> Sequence[Comparison]:
    from hybrid import hybrid_pages

    return [*(against_generate(batch) for batch in (list(BATCHES)[:2] if smoke() else BATCHES)), in_groups(), *hybrid_pages()]


if __name__ == "__main__":
    main("decoding", comparisons)
