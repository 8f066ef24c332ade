"""P-RL-2: log-probabilities of written pages, the prompt read once a context against one padded sequence a page.

Ours is `page_logits`, as training calls it: a context's prompt is read once for all pages of its group, each page in one piece after it.
The peers are the same policy with the same weights, candidates, masks and heads, around a backbone that knows no groups: each page is
a full sequence of prompt and page, padded on the right, all in one batch through `SmallBackbone.forward`.

    padded            every page a context of its own, as a trainer without groups has it: prompts, candidates and evidence once a page
    padded backbone   only the backbone is padded; candidates and evidence are read once a context, as in ours

Log-probabilities must agree within 1e-5, also with those of the decoder that wrote the pages, and gradients of a clipped policy loss
within 1e-5 of each weight's largest. Most shapes time the whole policy. The first is also timed without what the policy reads of repetition
on the page (`page_evidence`), which is the same work on either side: the language model alone.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoding import random_policy, shop
from harness import Comparison, compare, main, smoke

ITEMS, CANDIDATES, TEMPERATURE, TARGET = 2_000, 100, 1.0, 3.0
VALUES, GRADIENTS = 1e-5, 1e-5  # largest differences: absolute, and relative to the largest gradient of a weight


@dataclass(frozen=True)
class Shape:
    """Sizes of a batch of pages."""

    contexts: int = 8
    group: int = 8
    prompt: int = 128
    slots: int = 20
    shortest: int = 128  # prompts are between this and `prompt` tokens long
    dims: int = 128


SHAPES = {
    "target": Shape(),
    "4 pages a context": Shape(contexts=16, group=4),
    "16 pages a context": Shape(contexts=4, group=16),
    "prompts of 32": Shape(prompt=32, shortest=32),
    "prompts of 16 to 128": Shape(shortest=16),
    "256 dims": Shape(contexts=4, dims=256),
}


def padded(backbone: Any) -> Any:
    """The backbone with `read_pages` as one sequence a page, with the same parameters."""
    import torch

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.dims = backbone, backbone.dims

        def read_pages(self, x: Any, lengths: Any, tokens: Any) -> tuple[Any, Any]:
            """As `SmallBackbone.read_pages`."""
            contexts, group, slots, dims = tokens.shape
            ends = lengths.repeat_interleave(group)[:, None]
            places = (ends + torch.arange(slots))[..., None].expand(-1, -1, dims)
            room = torch.cat([x.repeat_interleave(group, 0), x.new_zeros(contexts * group, slots, dims)], 1)
            hidden = self.inner(room.scatter(1, places, tokens.flatten(0, 1)))
            last = hidden[torch.arange(0, len(hidden), group), lengths - 1]
            return last, hidden.gather(1, places).view(tokens.shape)

    return Padded()


def without_page_evidence(net: Any) -> Any:
    """The policy, its parameters shared, without what it reads of repetition."""
    import torch

    class Nothing(torch.nn.Module):
        active = False

        def pool(self, pool: Any, base: Any) -> None:
            """Nothing is compared."""

        def additions(self, pool: None, choice: Any) -> float:
            """Nothing is added."""
            return 0.0

    return with_part(net, "page_evidence", Nothing())


def with_part(net: Any, name: str, part: Any) -> Any:
    """The same network with one module exchanged; all other parameters are shared."""
    other = copy.copy(net)
    other._modules = {**net._modules, name: part}
    return other


def ungrouped(pages: Any, group: int) -> Any:
    """Each page as the only one of a context of its own."""
    many = {
        name: getattr(pages, name).repeat_interleave(group, 0) for name in ("prompts", "codes", "lengths", "pool", "evidence")
    }
    each = {name: getattr(pages, name).flatten(0, 1)[:, None] for name in ("choice", "layout_row", "allowed")}
    return replace(pages, **many, **each)


class Batch:
    """Pages that a policy of random weights has written, and what a policy loss needs of them."""

    def __init__(self, shape: Shape) -> None:
        import torch

        from pagellm.data.likeness import likeness_of
        from pagellm.layout.compiled import compile_layout
        from pagellm.layout.spec import Layout

        self.shape, self.rng = shape, np.random.default_rng(1)
        self.net, features = random_policy(ITEMS, shape.dims)
        catalog = shop(ITEMS)
        self.net.page_evidence.attach(likeness_of(catalog, self.rng.normal(size=(ITEMS, 16)).astype(np.float32) / 4, 0.6))
        with torch.no_grad():
            self.net.page_evidence.linear.weight.normal_(std=0.3)
            self.net.page_evidence.outer.weight.normal_(std=0.3)
        self.rules = compile_layout(Layout.single_row(shape.slots), catalog, 0)
        self.evidence = torch.from_numpy(self.rng.normal(size=(shape.contexts, CANDIDATES, features)).astype(np.float32))

    def written(self, net: Any) -> tuple[Any, Any]:
        """(pages of `net`, their log-probabilities as the decoder that wrote them gives them)."""
        import torch

        from pagellm.layout.masks import PageMasks
        from pagellm.models.decoding import Writing, blank_trace, write_pages
        from pagellm.models.page_scorer import PageScorer
        from pagellm.models.whole_pages import WrittenPages

        s, rng = self.shape, self.rng
        pool = np.stack([np.sort(rng.choice(ITEMS, CANDIDATES, replace=False)) for _ in range(s.contexts)])
        lengths = torch.from_numpy(np.concatenate([[s.prompt], rng.integers(s.shortest, s.prompt + 1, s.contexts - 1)]))
        items, codes = torch.from_numpy(rng.integers(0, ITEMS, (s.contexts, s.prompt))), torch.zeros(s.contexts, s.prompt).long()
        masks, groups = PageMasks(self.rules, np.repeat(pool.astype(np.int32), s.group, 0)), (s.contexts, s.group)
        trace, places = blank_trace(groups, s.slots, CANDIDATES), torch.from_numpy(pool)
        with torch.no_grad():
            scorer = PageScorer(net, net.embed(items, codes), lengths, places, self.evidence, s.group, s.slots, 0)
            out = write_pages(scorer, masks, groups, Writing(TEMPERATURE), rng, trace=trace)
        choice = torch.from_numpy(out.choice)
        pages = WrittenPages(items, codes, lengths, places, self.evidence, choice, trace.layout_row, trace.allowed, None, ())
        return pages, torch.from_numpy(out.logprobs).float()


def logprobs(net: Any, pages: Any) -> Any:
    """[context, page, slot], as `training.ppo.learn` computes them."""
    from pagellm.models.whole_pages import distributions, logprobs_of, page_logits

    logits = page_logits(net, pages)
    return logprobs_of(distributions(logits, pages, TEMPERATURE), logits, pages, TEMPERATURE)


class Step:
    """Forward, and forward and backward of a clipped policy loss, by any of the sides."""

    def __init__(self, net: Any, pages: Any, old: Any, advantages: Any) -> None:
        self.net, self.pages, self.old, self.advantages = net, pages, old, advantages

    def forward(self) -> np.ndarray:
        """Log-probabilities [page, slot] without gradients, as old and reference ones are made."""
        import torch

        with torch.no_grad():
            return logprobs(self.net, self.pages).flatten(0, 1).numpy()

    def backward(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(log-probabilities [page, slot], gradient of each weight)."""
        from pagellm.training.losses import clipped_policy_loss

        self.net.zero_grad()
        told = logprobs(self.net, self.pages)
        loss, _ = clipped_policy_loss(told, self.old, self.advantages, self.pages.free, 0.2)
        loss.backward()
        named = ((name.replace("backbone.inner.", "backbone."), p.grad) for name, p in self.net.named_parameters())
        return told.detach().flatten(0, 1).numpy(), {name: grad.numpy() for name, grad in named if grad is not None}


def same(peer: str, ours: Any, theirs: Any) -> float:
    """The largest difference of log-probabilities; gradients are held to their own bound."""
    if not isinstance(ours, tuple):
        ours, theirs = (ours, {}), (theirs, {})
    difference = float(np.abs(ours[0] - theirs[0]).max())
    assert difference <= VALUES, f"log-probabilities differ from those of {peer} by {difference}"
    assert ours[1].keys() == theirs[1].keys(), f"other weights than those of {peer} have gradients"
    floor = 0.01 * max(
        (float(np.abs(g).max()) for g in ours[1].values()), default=0.0
    )  # a shift of all logits cancels to rounding
    for name, grad in ours[1].items():
        off = float(np.abs(grad - theirs[1][name]).max()) / max(float(np.abs(grad).max()), floor)
        assert off <= GRADIENTS, f"the gradient of {name} differs from that of {peer} by {off} of its largest"
    return difference


def compared(name: str, shape: Shape, whole: bool) -> list[Comparison]:
    """Forward alone, forward and backward, on one shape."""
    batch = Batch(shape)
    net = batch.net if whole else without_page_evidence(batch.net)
    pages, decoded = batch.written(batch.net)
    ours = Step(net, pages, *told(net, pages))
    if whole:
        off = float(np.abs(ours.forward() - decoded.flatten(0, 1).numpy()).max())
        assert off <= VALUES, f"log-probabilities differ from those of the decoder by {off}"
    apart, padding = ungrouped(pages, shape.group), with_part(net, "backbone", padded(net.backbone))
    peers = {
        "padded": Step(padding, apart, ours.old.flatten(0, 1)[:, None], ours.advantages.flatten(0, 1)[:, None]),
        "padded backbone": Step(padding, pages, ours.old, ours.advantages),
    }
    target = {"padded": TARGET} if name == "target" else None
    notes = {
        "contexts": shape.contexts, "pages a context": shape.group, "prompt": f"{shape.shortest}-{shape.prompt}", "slots": shape.slots,
        "candidates": CANDIDATES, "dims": shape.dims, "page evidence": whole,
    }  # fmt: skip
    out = []
    for kind, title in (("forward", "forward"), ("backward", "forward and backward")):
        calls: dict[str, Callable[[], Any]] = {peer: getattr(step, kind) for peer, step in peers.items()}
        for clock in ("cpu", "wall") if target and not smoke() else ("cpu",):
            full = f"P-RL-2, {name}, {'whole policy' if whole else 'language model alone'}, {title}"
            bar = target if clock == "cpu" else None
            out.append(
                compare(full, ours=getattr(ours, kind), peers=calls, check=same, rounds=9, target=bar, clock=clock, notes=notes)
            )
    return out


def told(net: Any, pages: Any) -> tuple[Any, Any]:
    """(log-probabilities of a policy a little away, advantages): some ratios are clipped, some are not."""
    import torch

    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        now = logprobs(net, pages)
    return now + 0.15 * torch.randn(now.shape, generator=rng), torch.randn(now.shape, generator=rng)


def comparisons() -> Sequence[Comparison]:
    if smoke():
        small = Shape(contexts=2, group=3, prompt=24, shortest=9, slots=6)
        return [c for whole in (True, False) for c in compared("target", small, whole)]
    whole = [c for name, shape in SHAPES.items() for c in compared(name, shape, whole=True)]
    return whole + compared("target", SHAPES["target"], whole=False)


if __name__ == "__main__":
    main("rl_logprobs", comparisons)
