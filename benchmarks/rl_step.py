"""P-RL-1: one full step of GRPO, from contexts to changed weights, against TRL's GRPOTrainer and a plain one of Hugging Face parts.

A step writes a group of pages for each context, scores them, reads their log-probabilities with gradients and moves the weights. All
sides hold the same weights, a Llama whose vocabulary are the items, read the same prompts and write as many pages of as many items.
Ours is one iteration of `training.ppo.ppo`, unchanged, statistics included. On the pages of a peer's first step log-probabilities, loss
and gradients of the backbone must be the same on both sides before any time counts.

TRL lives in an environment of its own, named by PAGELLM_TRL_PYTHON (its interpreter); without that only the plain step is a peer:

    python -m venv TRL && TRL/bin/pip install torch==2.13.0 transformers==5.23.0 trl==1.16.0

What differs: ours forbids repeats on a page, gives each page's reference log-probabilities and whitens the advantages, which the peers
do not; the peers must not write three tokens of the vocabulary (opening, end, padding), which are ordinary items to us; TRL turns tokens
into text and back and counts statistics of its own. TRL's defaults that cost time here are off: gradient checkpointing, bfloat16, logging,
saving.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoding import shop
from harness import Comparison, compare, main, smoke
from plain_grpo import Plain, Sizes
from rl_logprobs import without_page_evidence

ITEMS, PROMPT, TARGET, LR = 1_000, 128, 5.0, 1e-5
CONTEXTS, GROUP, SLOTS = (2, 3, 5) if smoke() else (8, 8, 20)
OPENING, END, PADDING = SPECIAL = (ITEMS - 1, ITEMS - 2, ITEMS - 3)
VALUES, GRADIENTS = (
    1e-4,
    1e-4,
)  # largest differences: of log-probabilities and loss, and relative to each weight's largest gradient


def plain_policy() -> Any:
    """A `PolicyNet` whose logits are those of a language model of the items: item vectors in and out, and nothing else."""
    import torch

    from pagellm.config import ModelConfig
    from pagellm.data.likeness import likeness_of
    from pagellm.models.policy import PolicyNet

    torch.manual_seed(0)
    content = np.random.default_rng(0).normal(size=(ITEMS, 16)).astype(np.float32) / 4
    net = PolicyNet(ModelConfig(layers=2, dims=128, heads=4, ffn_dims=352), content, 20).eval()
    net.page_evidence.attach(likeness_of(shop(ITEMS), content, 0.6))
    with torch.no_grad():
        for weight in (net.project.weight, net.evidence.scale, net.gaps.weight, net.rows.weight, net.actions.weight):
            weight.zero_()
        net.ids.weight.normal_(std=0.03)
        net.ids.weight[OPENING] = 0  # as the token that opens a page, and as those that open baskets, whose vectors are zero
        torch.nn.init.eye_(net.page_head.weight)
    return net


def twin(net: Any) -> Any:
    """The same weights as a `LlamaForCausalLM` whose tokens are the items."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pagellm.models.llama_weights import llama_settings, to_llama_state

    tokens = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": PADDING}
    llama = LlamaForCausalLM(
        LlamaConfig(**llama_settings(net.backbone.shape), vocab_size=ITEMS, tie_word_embeddings=True, **tokens)
    )
    with torch.no_grad():
        llama.model.load_state_dict(to_llama_state(net.backbone.state_dict()), strict=False)
        llama.model.embed_tokens.weight.copy_(net.ids.weight)
    return llama.eval()


class Ours:
    """Iterations of `ppo`, one a call."""

    def __init__(self, net: Any, worth: np.ndarray, candidates: int) -> None:
        from pagellm.config import PPOConfig
        from pagellm.data.contexts import contexts_at
        from pagellm.layout.compiled import compile_layout
        from pagellm.layout.spec import Layout
        from pagellm.models.codec import encode
        from pagellm.training.learner import Learner
        from pagellm.training.ppo import ppo
        from pagellm.training.rollouts import Asked, Desk

        rng = np.random.default_rng(1)
        config = PPOConfig(
            algorithm="grpo", learn="all", iterations=100_000, contexts=CONTEXTS, group=GROUP, candidates=candidates,
            temperature=1.0, ppo_epochs=1, minibatch=CONTEXTS, lr=LR, context_lr=LR, clip=1e9, kl_coef=0.0, kl_target=0.0,
        )  # fmt: skip
        contexts = contexts_at(one_basket_each(rng), np.arange(CONTEXTS, dtype=np.int32), np.full(CONTEXTS, int(1.6e9)))
        pool = np.stack([np.sort(rng.choice(ITEMS, candidates, replace=False)) for _ in range(CONTEXTS)]).astype(np.int32)
        asked = Asked(contexts, pool, np.zeros((CONTEXTS, candidates, 20), np.float32))
        desk = Desk(compile_layout(Layout.single_row(SLOTS), shop(ITEMS), 0), PROMPT)
        self.prompts = encode(contexts, PROMPT)
        learner = Learner.start(net, net, config, 0)
        self.steps = ppo(learner, lambda step: asked, lambda pages: worth[pages.items].sum(1), config, desk, 0)

    def __call__(self) -> Any:
        """Statistics of one more step."""
        return next(self.steps)


def one_basket_each(rng: np.random.Generator) -> Any:
    """A log in which each user's one basket and the tokens around it make a prompt of PROMPT tokens."""
    from pagellm.types import Event, Interactions

    each = PROMPT - 2
    events = CONTEXTS * each
    user, missing = np.repeat(np.arange(CONTEXTS, dtype=np.int32), each), np.full(events, np.nan, np.float32)
    item = np.concatenate([np.sort(rng.choice(ITEMS - 3, each, replace=False)) for _ in range(CONTEXTS)]).astype(np.int32)
    event, names = np.full(events, Event.INTERACTION, np.int8), np.array([f"u{u}" for u in range(CONTEXTS)])
    return Interactions(user, item, np.full(events, int(1.5e9)), np.zeros(events, np.int32), event, missing, missing, names)


class Trl:
    """TRL's trainer in another process; `cpu` counts the seconds that it has worked."""

    def __init__(self, python: str, folder: Path, llama: Any, tokens: np.ndarray, worth: np.ndarray) -> None:
        self.cpu, self.folder = 0.0, folder
        llama.save_pretrained(folder / "llama")
        np.savez(folder / "step.npz", prompts=tokens, worth=worth, special=SPECIAL, slots=SLOTS, group=GROUP, lr=LR)
        code = f"import trl_worker; trl_worker.work({str(folder)!r})"
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        self._worker = subprocess.Popen(
            [python, "-c", code], cwd=Path(__file__).parent, stdin=pipe, stdout=pipe, text=True, env=env
        )
        self.versions = self._answer()

    def __call__(self) -> dict[str, np.ndarray]:
        """One more step; returns what the first one did."""
        self._worker.stdin.write("step\n")  # type: ignore[union-attr]
        self._worker.stdin.flush()  # type: ignore[union-attr]
        self.cpu += self._answer()["cpu"]
        return dict(np.load(self.folder / "first.npz"))

    def _answer(self) -> dict[str, Any]:
        line = self._worker.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("TRL's process ended; what it wrote to standard error says why.")
        return dict(json.loads(line))


def first_step_agrees(net: Any, prompts: Any, first: dict[str, np.ndarray]) -> float:
    """The largest difference of log-probabilities on the pages of a peer's first step; loss and gradients have bounds of their own."""
    import torch

    from pagellm.models.llama_weights import to_llama_state
    from pagellm.models.whole_pages import WrittenPages, distributions, logprobs_of, page_logits
    from pagellm.training.losses import clipped_policy_loss

    pages = torch.from_numpy(first["pages"]).view(CONTEXTS, GROUP, SLOTS)
    items, codes, lengths = (torch.from_numpy(a) for a in (prompts.items, prompts.codes, prompts.lengths))
    pool, evidence = torch.arange(ITEMS).expand(CONTEXTS, -1), torch.zeros(CONTEXTS, ITEMS, 20)
    allowed = torch.ones(*pages.shape, ITEMS, dtype=torch.bool)
    given = WrittenPages(items, codes, lengths, pool, evidence, pages, torch.zeros_like(pages), allowed, None, ())
    net = copy.deepcopy(net).requires_grad_(True)
    logits = page_logits(net, given)
    told = logprobs_of(distributions(logits, given, 1.0), logits, given, 1.0)
    advantages = torch.from_numpy(first["advantages"]).float().view(CONTEXTS, GROUP, 1).expand_as(told)
    loss, _ = clipped_policy_loss(told, told.detach(), advantages, given.free, 0.2)
    loss.backward()
    off = float((told.detach().flatten(0, 1) - torch.from_numpy(first["logprobs"])).abs().max())
    assert off <= VALUES, f"log-probabilities differ by {off}"
    assert abs(float(loss.detach()) - float(first["loss"])) <= VALUES, (
        f"the loss is {float(loss.detach())}, the peer's {first['loss']}"
    )
    grads = to_llama_state({name: weight.grad for name, weight in net.backbone.named_parameters()})
    for name, grad in grads.items():
        wrong = float((grad - torch.from_numpy(first[f"grad model.{name}"])).abs().max() / grad.abs().max())
        assert wrong <= GRADIENTS, f"the gradient of {name} differs by {wrong} of its largest"
    return off


def comparisons() -> Sequence[Comparison]:
    net = plain_policy()
    worth = np.random.default_rng(2).normal(size=ITEMS).astype(np.float32)
    bare = without_page_evidence(net)
    same_model = Ours(copy.deepcopy(bare), worth, ITEMS)
    shipped = Ours(copy.deepcopy(net), worth, 100)
    tokens = np.where(same_model.prompts.items < 0, OPENING, same_model.prompts.items)
    tokens = np.concatenate([tokens, np.full((CONTEXTS, 1), OPENING)], 1)
    peers: dict[str, Any] = {"plain Hugging Face": Plain(twin(net), tokens, worth, Sizes(GROUP, SLOTS, SPECIAL, LR))}
    notes = {
        "contexts": CONTEXTS,
        "pages a context": GROUP,
        "prompt": PROMPT,
        "slots": SLOTS,
        "items": ITEMS,
    }
    with tempfile.TemporaryDirectory() as folder:
        python = os.environ.get("PAGELLM_TRL_PYTHON")
        if python:
            peers["TRL GRPOTrainer"] = trl = Trl(python, Path(folder), twin(net), tokens, worth)
            notes |= {f"{name} of TRL's process": version for name, version in trl.versions.items()}
        else:
            notes["TRL"] = "not measured: PAGELLM_TRL_PYTHON is not set"

        def cpu() -> float:
            return time.process_time() + sum(peer.cpu for peer in peers.values())

        def agree(peer: str, stats: Any, first: dict[str, np.ndarray]) -> float:
            assert np.isfinite(stats.loss), "our step is not finite"
            assert not stats.skipped, "our step was left out"
            return first_step_agrees(bare, same_model.prompts, first)

        out, target = [], {"TRL GRPOTrainer": TARGET}
        for name, ours, clock, bar in (
            ("same model, all items", same_model, "cpu", target),
            ("same model, all items", same_model, "wall", {}),
            ("as shipped, 100 candidates", shipped, "cpu", {}),
        ):
            timing: dict[str, Any] = {"clock": clock, "timer": cpu if clock == "cpu" else time.perf_counter, "rounds": 9}
            out.append(compare(f"P-RL-1, {name}", ours=ours, peers=peers, check=agree, target=bar, notes=notes, **timing))
    return out


if __name__ == "__main__":
    main("rl_step", comparisons)
