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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decoding import shop
from harness import Comparison, compare, main, smoke
from plain_grpo import Plain, Sizes
from rl_logprobs import without_page_evidence

TARGET, LR = 5.0, 1e-5
VALUES, GRADIENTS = (
    1e-4,
    1e-4,
)  # largest differences: of log-probabilities and loss, and relative to each weight's largest gradient


@dataclass(frozen=True)
class Shape:
    """How much one step writes and reads."""

    items: int = 1_000
    prompt: int = 128  # tokens
    contexts: int = 8
    group: int = 8  # pages a context
    slots: int = 20

    @property
    def special(self) -> tuple[int, int, int]:
        """The items that open a page, end it and pad it for a language model; ordinary items to us."""
        return self.items - 1, self.items - 2, self.items - 3


SHAPE = Shape(contexts=2, group=3, slots=5) if smoke() else Shape()


def plain_policy(shape: Shape = SHAPE) -> Any:
    """A `PolicyNet` whose logits are those of a language model of the items: item vectors in and out, and nothing else."""
    import torch

    from pagellm.config import ModelConfig
    from pagellm.data.likeness import likeness_of
    from pagellm.models.policy import PolicyNet

    torch.manual_seed(0)
    content = np.random.default_rng(0).normal(size=(shape.items, 16)).astype(np.float32) / 4
    net = PolicyNet(ModelConfig(layers=2, dims=128, heads=4, ffn_dims=352), content, 20).eval()
    net.page_evidence.attach(likeness_of(shop(shape.items), content, 0.6))
    with torch.no_grad():
        for weight in (net.project.weight, net.evidence.scale, net.gaps.weight, net.rows.weight, net.actions.weight):
            weight.zero_()
        net.ids.weight.normal_(std=0.03)
        net.ids.weight[shape.special[0]] = (
            0  # as the token that opens a page, and as those that open baskets, whose vectors are zero
        )
        torch.nn.init.eye_(net.page_head.weight)
    return net


def twin(net: Any, shape: Shape = SHAPE) -> Any:
    """The same weights as a `LlamaForCausalLM` whose tokens are the items."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pagellm.models.llama_weights import llama_settings, to_llama_state

    tokens = {"bos_token_id": None, "eos_token_id": shape.special[1], "pad_token_id": shape.special[2]}
    llama = LlamaForCausalLM(
        LlamaConfig(**llama_settings(net.backbone.shape), vocab_size=shape.items, tie_word_embeddings=True, **tokens)
    )
    with torch.no_grad():
        llama.model.load_state_dict(to_llama_state(net.backbone.state_dict()), strict=False)
        llama.model.embed_tokens.weight.copy_(net.ids.weight)
    return llama.eval()


class Ours:
    """Iterations of `ppo`, one a call, on pages that `reward` gives a number each. `settings` are those of `PPOConfig` that differ."""

    def __init__(
        self,
        net: Any,
        reward: Callable[[np.ndarray], np.ndarray],
        candidates: int,
        shape: Shape = SHAPE,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        from pagellm.config import PPOConfig
        from pagellm.data.contexts import contexts_at
        from pagellm.layout.compiled import compile_layout
        from pagellm.layout.spec import Layout
        from pagellm.models.codec import encode
        from pagellm.training.learner import Learner
        from pagellm.training.ppo import ppo
        from pagellm.training.rollouts import Asked, Desk

        rng = np.random.default_rng(1)
        count, items = shape.contexts, shape.items
        same: dict[str, Any] = {
            "algorithm": "grpo", "learn": "all", "iterations": 100_000, "contexts": count, "group": shape.group, "temperature": 1.0,
            "candidates": candidates, "ppo_epochs": 1, "minibatch": count, "lr": LR, "context_lr": LR, "clip": 1e9, "kl_coef": 0.0,
            "kl_target": 0.0, "warmup": 0,
        }  # fmt: skip
        config = PPOConfig(**(same | settings))
        contexts = contexts_at(one_basket_each(rng, shape), np.arange(count, dtype=np.int32), np.full(count, int(1.6e9)))
        pool = np.stack([np.sort(rng.choice(items, candidates, replace=False)) for _ in range(count)]).astype(np.int32)
        self.asked = Asked(contexts, pool, np.zeros((count, candidates, 20), np.float32))
        self.desk = Desk(compile_layout(Layout.single_row(shape.slots), shop(items), 0), shape.prompt)
        self.prompts = encode(contexts, shape.prompt)
        self.net, learner = net, Learner.start(net, net, config, seed)
        self.steps = ppo(learner, lambda step: self.asked, lambda pages: reward(pages.items), config, self.desk, seed)

    def __call__(self) -> Any:
        """Statistics of one more step."""
        return next(self.steps)


def one_basket_each(rng: np.random.Generator, shape: Shape) -> Any:
    """A log in which each user's one basket and the tokens around it make a prompt of `shape.prompt` tokens."""
    from pagellm.types import Event, Interactions

    each, count = shape.prompt - 2, shape.contexts
    events = count * each
    user, missing = np.repeat(np.arange(count, dtype=np.int32), each), np.full(events, np.nan, np.float32)
    item = np.concatenate([np.sort(rng.choice(shape.items - 3, each, replace=False)) for _ in range(count)]).astype(np.int32)
    event, names = np.full(events, Event.INTERACTION, np.int8), np.array([f"u{u}" for u in range(count)])
    return Interactions(user, item, np.full(events, int(1.5e9)), np.zeros(events, np.int32), event, missing, missing, names)


def tokens_of(prompts: Any, shape: Shape) -> np.ndarray:
    """[context, token] our prompts as a language model of the items reads them: whatever is no item opens a page."""
    tokens = np.where(prompts.items < 0, shape.special[0], prompts.items)
    return np.concatenate([tokens, np.full((len(tokens), 1), shape.special[0])], 1)


class TrlProcess:
    """A process of TRL's environment, which serves one training after the other."""

    def __init__(self, python: str) -> None:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        code, pipe = "import trl_worker; trl_worker.work()", subprocess.PIPE
        self._worker = subprocess.Popen(
            [python, "-c", code], cwd=Path(__file__).parent, stdin=pipe, stdout=pipe, text=True, env=env
        )
        self.versions: dict[str, Any] = {}  # known once a training has begun

    def ask(self, line: str) -> dict[str, Any]:
        """The answer to one request, see `trl_worker`."""
        self._worker.stdin.write(f"{line}\n")  # type: ignore[union-attr]
        self._worker.stdin.flush()  # type: ignore[union-attr]
        answer = self._worker.stdout.readline()  # type: ignore[union-attr]
        if not answer:
            raise RuntimeError("TRL's process ended; what it wrote to standard error says why.")
        return dict(json.loads(answer))


class Trl:
    """A training of TRL; `cpu` counts the seconds that it has worked."""

    def __init__(self, process: TrlProcess, folder: Path, llama: Any, given: dict[str, Any], shape: Shape = SHAPE) -> None:
        """`given` are prompts, what a page is worth, and settings that differ from a step's: see `trl_worker`."""
        self.cpu, self.folder, self._process = 0.0, folder, process
        llama.save_pretrained(folder / "llama")
        told = {"special": shape.special, "slots": shape.slots, "group": shape.group, "items": shape.items, "lr": LR}
        np.savez(folder / "step.npz", **(told | given))
        process.versions = process.ask(f"begin {folder}")

    def __call__(self) -> dict[str, np.ndarray]:
        """One more step; returns what the first one did."""
        self.step()
        return dict(np.load(self.folder / "first.npz"))

    def step(self) -> float:
        """One more step; returns its CPU seconds."""
        took = float(self._process.ask("step")["cpu"])
        self.cpu += took
        return took

    def fresh(self, pages: int) -> np.ndarray:
        """Pages [page, slot], so many for each context, that the model writes as it is now; no time counts."""
        return np.load(self.folder / str(self._process.ask(f"fresh {pages}")["written"]))

    def stop(self) -> None:
        """Ends the training; the process serves the next."""
        self._process.ask("stop")


def first_step_agrees(net: Any, prompts: Any, first: dict[str, np.ndarray], shape: Shape = SHAPE) -> float:
    """The largest difference of log-probabilities on the pages of a peer's first step; loss and gradients have bounds of their own."""
    import torch

    from pagellm.models.llama_weights import to_llama_state
    from pagellm.models.whole_pages import WrittenPages, distributions, logprobs_of, page_logits
    from pagellm.training.losses import clipped_policy_loss

    pages = torch.from_numpy(first["pages"]).view(shape.contexts, shape.group, shape.slots)
    items, codes, lengths = (torch.from_numpy(a) for a in (prompts.items, prompts.codes, prompts.lengths))
    pool, evidence = torch.arange(shape.items).expand(shape.contexts, -1), torch.zeros(shape.contexts, shape.items, 20)
    allowed = torch.ones(*pages.shape, shape.items, dtype=torch.bool)
    given = WrittenPages(items, codes, lengths, pool, evidence, pages, torch.zeros_like(pages), allowed, None, ())
    net = copy.deepcopy(net).requires_grad_(True)
    logits = page_logits(net, given)
    told = logprobs_of(distributions(logits, given, 1.0), logits, given, 1.0)
    advantages = torch.from_numpy(first["advantages"]).float().view(shape.contexts, shape.group, 1).expand_as(told)
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
    worth = np.random.default_rng(2).normal(size=SHAPE.items).astype(np.float32)
    bare = without_page_evidence(net)
    same_model = Ours(copy.deepcopy(bare), lambda items: worth[items].sum(1), SHAPE.items)
    shipped = Ours(copy.deepcopy(net), lambda items: worth[items].sum(1), 100)
    tokens = tokens_of(same_model.prompts, SHAPE)
    sizes = Sizes(SHAPE.group, SHAPE.slots, SHAPE.special, LR)
    peers: dict[str, Any] = {"plain Hugging Face": Plain(twin(net), tokens, worth, sizes)}
    notes = {
        "contexts": SHAPE.contexts,
        "pages a context": SHAPE.group,
        "prompt": SHAPE.prompt,
        "slots": SHAPE.slots,
        "items": SHAPE.items,
    }
    with tempfile.TemporaryDirectory() as folder:
        python = os.environ.get("PAGELLM_TRL_PYTHON")
        if python:
            process = TrlProcess(python)
            peers["TRL GRPOTrainer"] = Trl(process, Path(folder), twin(net), {"prompts": tokens, "worth": worth})
            notes |= {f"{name} of TRL's process": version for name, version in process.versions.items()}
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
