"""Supervised fine-tuning on the next basket: the language model on histories, then the evidence head on later contexts.

Takes a policy network and records; yields one `Step` a gradient step and leaves saving, logging and stopping to the caller. Every step
draws its randomness from the seed and its own number, so a fit that is stopped anywhere and resumed gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.config import CandidateConfig, SFTConfig
from pagellm.data.evidence import Evidence
from pagellm.models.codec import encode, shuffled_baskets
from pagellm.models.device import tensor_for
from pagellm.models.listwise import fit_listwise
from pagellm.models.policy import PolicyNet
from pagellm.models.pools import policy_pool, pool_logprobs, read_contexts
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Contexts, Interactions


@dataclass(frozen=True, slots=True)
class Step:
    """What one gradient step did. Deterministic values only, so that metrics of resumed and unbroken runs are equal."""

    stage: str
    step: int  # from 1
    steps: int  # in this stage
    loss: float
    lr: float
    grad_norm: float | None  # before clipping; None where nothing is clipped

    @property
    def figures(self) -> dict[str, float]:
        """What people watch."""
        return {"loss": self.loss}


@dataclass
class FitState:
    """What a fit needs to go on: the optimizer and the number of steps done."""

    optimizer: torch.optim.AdamW
    step: int = 0


@dataclass(frozen=True)
class HeadExamples:
    """What the evidence head learns from: contexts that have a target in their pool."""

    evidence: F32  # [context, candidate, feature]
    base: F32  # [context, candidate] log-probability under the language model, a finite stand-in where the pool is padding
    targets: F32  # [context, candidate] 1 for items of the target basket
    real: Bool = field(repr=False)  # [context, candidate] False where the pool is padding
    recall: float  # share of target items that the pools hold, over all contexts


def language_model_state(net: PolicyNet, config: SFTConfig) -> FitState:
    """A fresh optimizer over all but page head and evidence head. Matrices decay, vectors do not."""
    kept = [p for n, p in net.named_parameters() if p.requires_grad and not n.startswith(("page_", "evidence", "rows"))]
    groups = [
        {"params": [p for p in kept if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in kept if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return FitState(torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), foreach=False))


def fit_language_model(
    net: PolicyNet, spans: Contexts, config: SFTConfig, max_history: int, seed: int, state: FitState, stage: str = "lm"
) -> Iterator[Step]:
    """Full-softmax cross-entropy on the basket after each ASK token. Yields after every step; `state.step` counts them."""
    per_epoch = -(-len(spans) // config.batch)
    steps = per_epoch * max(config.epochs, -(-config.min_steps // max(per_epoch, 1)))
    plan: list[I64] = []
    item = event = None
    trained = [
        p for group in state.optimizer.param_groups for p in group["params"]
    ]  # others may hold gradients of an earlier stage
    while state.step < steps:
        epoch, at = divmod(state.step, per_epoch)
        if at == 0 or not plan:
            rng = np.random.default_rng((seed, epoch))
            order = shuffled_baskets(spans.log, rng)
            item, event = spans.log.item[order], spans.log.event[order]
            plan = _batches(spans, config.batch, rng)
        torch.manual_seed(seed * 1_000_003 + state.step)
        net.train()
        loss = next_basket_loss(net, spans.take(plan[at]), max_history, item, event)
        lr = _learning_rate(config, state.step, steps)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, config.clip)
        state.optimizer.step()
        state.step += 1
        yield Step(stage, state.step, steps, float(loss.detach()), lr, float(norm))


def next_basket_loss(
    net: PolicyNet, contexts: Contexts, max_history: int, item: I32 | None = None, event: np.ndarray | None = None
) -> Float[Tensor, ""]:
    """Mean over ASK tokens of the cross-entropy between the softmax over all items and the basket that follows."""
    prompts = encode(contexts, max_history, item, event)
    table = net.item_vectors()
    hidden = net.read(prompts, table).flatten(0, 1).index_select(0, tensor_for(net, prompts.places))
    logits = hidden @ table.T + net.bias
    ask, target = (tensor_for(net, a) for a in _basket_targets(contexts.log, prompts.begin, prompts.end))
    per_item = logits[ask, target] / tensor_for(net, prompts.end - prompts.begin)[ask]
    chosen = per_item.new_zeros(len(hidden)).index_add(0, ask, per_item)
    return (logits.logsumexp(-1) - chosen).mean()


def head_examples(
    net: PolicyNet,
    evidence: Evidence,
    contexts: Contexts,
    config: CandidateConfig,
    allowed: Bool,
    max_history: int,
    repeats: bool,
) -> HeadExamples:
    """Pools, evidence and targets of the contexts that the head can learn from."""
    h = read_contexts(net, contexts, max_history)
    pool = policy_pool(net, h, evidence, contexts, config, allowed, repeats)
    targets = target_matrix(contexts, pool)
    wanted = int((contexts.target_stop - contexts.stop).sum())
    useful = np.flatnonzero(targets.sum(axis=1) > 0)
    some, pool = contexts.take(useful), pool[useful]
    return HeadExamples(
        evidence.features(some, pool),
        pool_logprobs(net, h[torch.from_numpy(useful)], pool),
        targets[useful],
        pool != NO_ITEM,
        float(targets.sum()) / max(wanted, 1),
    )


def fit_head(net: PolicyNet, examples: HeadExamples, config: SFTConfig, seed: int) -> Iterator[Step]:
    """Fits the evidence head alone. Yields after every step."""
    fit = fit_listwise(
        net.evidence,
        examples.evidence,
        examples.base,
        examples.targets,
        examples.real,
        epochs=config.head_passes(len(examples.targets)),
        batch=config.head_batch,
        lr=config.head_lr,
        seed=seed,
    )
    for step, steps, loss, lr in fit:
        yield Step("head", step, steps, loss, lr, None)


def target_matrix(contexts: Contexts, pool: I32) -> F32:
    """1 where a candidate is in the context's target basket. Shape [context, candidate]."""
    out = np.zeros(pool.shape, np.float32)
    for c in range(len(contexts)):
        out[c] = np.isin(pool[c], contexts.target(c))
    return out


def _basket_targets(log: Interactions, begin: I64, end: I64) -> tuple[I64, I64]:
    """(ask, item) for every item of every basket."""
    size = end - begin
    ask = np.repeat(np.arange(len(begin)), size)
    within = np.arange(len(ask)) - np.repeat(np.cumsum(size) - size, size)
    return ask, log.item[np.repeat(begin, size) + within].astype(np.int64)


def _batches(spans: Contexts, batch: int, rng: np.random.Generator) -> list[I64]:
    """Batches of spans of like length, in random order."""
    length = (spans.target_stop - spans.start) + rng.uniform(0, 6, len(spans))
    order = np.argsort(length, kind="stable")
    batches = [order[at : at + batch] for at in range(0, len(order), batch)]
    return [batches[b] for b in rng.permutation(len(batches))]


def _learning_rate(config: SFTConfig, step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to a twentieth."""
    return config.lr * min(1.0, (step + 1) / max(config.warmup_steps, 1)) * max(0.05, 1 - step / steps)
