"""What a GPU brings: learning against the same on the CPU's cores, and writing pages against Hugging Face `generate` on the same GPU.

    python benchmarks/gpu.py --threads 16 --save

Needs a CUDA build of torch and a GPU. Wall-clock time, float32 unless a name says bf16. Learning: steps of the supervised fit and of PPO,
the same batches on both devices, losses compared first. Writing: pages of 20 slots from 700 candidates of 10,000 items, the weights a
Llama's on both sides; rounding may choose another of two near-equal items, so the share of equal pages is reported and has a bound.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoding import ITEMS, PROMPT, SLOTS, shop, twins
from harness import Comparison, compare, main, smoke
from rl_step import Ours, Shape, plain_policy

CANDIDATES = 700
STEPS = 5  # of a fit, a call
LARGE = {"dims": 1_024, "layers": 24, "heads": 16, "ffn_dims": 2_816}
EQUAL = {"float32": 0.98, "bf16": 0.0}  # share of equal pages that a comparison has to have


def device() -> str:
    """Where ours lives: the CPU in a smoke run on a machine without a GPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Fit:
    """A supervised fit on drawn histories; a call takes `STEPS` more steps and returns the losses."""

    def __init__(self, place: str, sizes: dict[str, int], batch: int) -> None:
        import torch

        from pagellm.config import ModelConfig, SFTConfig
        from pagellm.models.codec import reading_spans
        from pagellm.models.policy import PolicyNet
        from pagellm.training.sft import fit_language_model, language_model_state

        torch.manual_seed(0)
        content = np.random.default_rng(0).normal(size=(ITEMS, 64)).astype(np.float32) / 8
        net = PolicyNet(ModelConfig(**sizes, dropout=0.0), content, 20).to(place)
        log = histories()
        spans = reading_spans(log, np.ones(len(log), bool), 50)
        config = SFTConfig(batch=batch, epochs=500)
        self._steps = fit_language_model(net, spans, config, 50, 0, language_model_state(net, config))

    def __call__(self) -> list[float]:
        """Losses of some more steps."""
        return [next(self._steps).loss for _ in range(STEPS)]


def histories(users: int = 2_000, each: int = 50) -> Any:
    """A log of users who took `each` items, two a day."""
    from pagellm.types import DAY, Event, Interactions

    rng = np.random.default_rng(1)
    events = users * each
    day = np.tile(np.arange(each) // 2, users)
    missing = np.full(events, np.nan, np.float32)
    return Interactions(
        np.repeat(np.arange(users, dtype=np.int32), each),
        rng.integers(0, ITEMS, events).astype(np.int32),
        int(1.5e9) + day * DAY,
        day.astype(np.int32),
        np.full(events, Event.INTERACTION, np.int8),
        missing,
        missing,
        np.array([f"u{u}" for u in range(users)]),
    )


def fitting(name: str, sizes: dict[str, int], batch: int) -> Comparison:
    """Steps of the supervised fit."""
    notes = {"items": ITEMS, "events a history": 50, "histories a step": batch, "steps a call": STEPS, **sizes}
    ours, theirs = (Fit(place, sizes, batch) for place in (device(), "cpu"))
    name = f"supervised fit, {name}"
    return compare(name, ours=ours, peers={"CPU": theirs}, check=same_losses, rounds=5, clock="wall", notes=notes)


def same_losses(peer: str, ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference."""
    off = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
    assert off < 1e-3, f"{peer}: losses differ by {off}"
    return off


def iterating(contexts: int) -> Comparison:
    """Iterations of PPO: pages, rewards, advantages and updates of the whole network."""
    shape = Shape(items=ITEMS, contexts=contexts)
    worth = np.random.default_rng(2).normal(size=ITEMS).astype(np.float32)
    net = plain_policy(shape)

    def steps(place: str) -> Callable[[], list[float]]:
        ours = Ours(copy.deepcopy(net).to(place), lambda items: worth[items].sum(1), 100, shape, algorithm="ppo")
        return lambda: [ours().entropy]

    notes = {"contexts": contexts, "pages a context": shape.group, "slots": shape.slots, "candidates": 100}
    name, peers = f"PPO iteration, {contexts} contexts", {"CPU": steps("cpu")}
    return compare(name, ours=steps(device()), peers=peers, check=same_losses, rounds=5, clock="wall", notes=notes)


class PoolScorer:
    """Logits of a plain language model over each page's candidates."""

    def __init__(self, backbone: Any, vectors: Any, head: Any, prompt: Any, pool: Any) -> None:
        """Reads the prompts [page, token]; `pool` [page, candidate]."""
        import torch

        lengths = torch.full((len(prompt),), prompt.shape[1], device=prompt.device)
        self._hidden, self._cache = backbone.prefill(vectors[prompt], lengths, 1, SLOTS)
        self._backbone, self._vectors, self._begun = backbone, vectors[pool], False
        self._head = head[pool].mT

    def logits(self) -> Any:
        """Shape [page, 1, candidate], on the CPU, where masks are."""
        return (self._hidden @ self._head).float().cpu()

    def read(self, choice: Any, row: Any) -> None:
        """Reads the chosen items; before the first slot the prompt has said all."""
        if self._begun:
            at = choice.to(self._vectors.device)[..., None].expand(-1, -1, self._vectors.shape[-1])
            self._hidden = self._backbone.step(self._vectors.gather(1, at), self._cache)
        self._begun = True


def writing(name: str, sizes: dict[str, int], batch: int, kind: str) -> Comparison:
    """Greedy pages without repeats."""
    import torch

    from pagellm.layout.compiled import compile_layout
    from pagellm.layout.masks import PageMasks
    from pagellm.layout.spec import Layout
    from pagellm.models.decoding import Writing, write_pages

    dtype = {"float32": torch.float32, "bf16": torch.bfloat16}[kind]
    backbone, llama = (model.to(device(), dtype) for model in twins(sizes))
    vectors, head = llama.model.embed_tokens.weight, llama.lm_head.weight
    rules, rng = compile_layout(Layout.single_row(SLOTS), shop(ITEMS), 0), np.random.default_rng(batch)
    pool = np.stack([np.sort(rng.choice(ITEMS, CANDIDATES, replace=False)) for _ in range(batch)]).astype(np.int32)
    prompt = torch.from_numpy(rng.integers(0, ITEMS, (batch, PROMPT))).to(device())
    places = torch.from_numpy(pool.astype(np.int64)).to(device())
    candidates = torch.zeros(batch, ITEMS, dtype=torch.bool, device=device()).scatter(1, places, True)

    @torch.inference_mode()
    def ours() -> np.ndarray:
        scorer = PoolScorer(backbone, vectors, head, prompt, places)
        written = write_pages(scorer, PageMasks(rules, pool), (batch, 1), Writing(logprobs=False), np.random.default_rng(0))
        return np.take_along_axis(pool, written.choice[:, 0], 1)

    def marked(page: int, sent: torch.Tensor) -> torch.Tensor:
        allowed = candidates[page].clone()
        allowed[sent[PROMPT:]] = False
        return allowed

    def generate(rule: Any) -> Callable[[], np.ndarray]:
        @torch.inference_mode()
        def call() -> np.ndarray:
            told = {"max_new_tokens": SLOTS, "do_sample": False, "use_cache": True, "prefix_allowed_tokens_fn": rule}
            return llama.generate(prompt, attention_mask=torch.ones_like(prompt), **told)[:, PROMPT:].cpu().numpy()

        return call

    def same(peer: str, ours: np.ndarray, theirs: np.ndarray) -> float:
        differing = float((ours != theirs).any(1).mean())
        if peer == "generate, boolean tensor":
            assert (np.sort(ours, 1)[:, 1:] != np.sort(ours, 1)[:, :-1]).all(), "a page repeats an item"
            assert 1 - differing >= EQUAL[kind], f"{differing:.0%} of the pages differ"
        return differing

    peers = {"generate, boolean tensor": generate(marked), "generate, no rule": generate(None)}
    million = sum(p.numel() for p in llama.parameters()) / 1e6
    notes = {"million parameters": round(million, 1), "slots": SLOTS, "prompt": PROMPT, "candidates": CANDIDATES, "items": ITEMS}
    title = f"writing, {name}, {kind}, batch {batch}"
    return compare(title, ours=ours, peers=peers, check=same, rounds=5, clock="wall", notes=notes)


def comparisons() -> Iterator[Comparison]:
    """One after the other, each told when it is done: a lent GPU may go before the last."""
    for comparison in _every():
        comparison.notes["GPU"] = card()
        ratios = {r.peer: (round(r.ours_s, 4), round(r.peer_s, 4), round(r.ratio, 2)) for r in comparison.ratios}
        print(comparison.name, ratios, flush=True)
        yield comparison


def _every() -> Iterator[Comparison]:
    if smoke():
        yield fitting("smallest", {"dims": 16, "layers": 1, "heads": 2, "ffn_dims": 16}, 4)
        yield iterating(2)
        yield writing("3.6 million", {}, 2, "float32")
        return
    yield fitting("profile small", {}, 64)
    yield fitting("profile base", {"dims": 256, "heads": 8, "layers": 4, "ffn_dims": 704}, 64)
    yield iterating(64)
    for name, sizes in (("3.6 million", {}), ("large", LARGE)):
        for batch in (1, 64, 512):
            yield writing(name, sizes, batch, "float32")
    for batch in (1, 512):
        yield writing("large", LARGE, batch, "bf16")
    yield fitting("large", LARGE, 8)


def card() -> str:
    """The GPU's name; none in a smoke run on a machine that has none."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"


if __name__ == "__main__":
    if device() == "cpu" and not smoke():
        print("This benchmark needs a GPU and a CUDA build of torch.")
        sys.exit(2)
    main("gpu", comparisons)
