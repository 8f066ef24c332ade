"""Reading contexts and drawing their candidates in bulk, without gradients. Takes a network and evidence; knows no rules."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.config import CandidateConfig
from pagellm.data.candidates import draw_pool
from pagellm.data.evidence import Evidence
from pagellm.models.codec import encode
from pagellm.models.device import device_of, tensor_for
from pagellm.models.policy import PolicyNet
from pagellm.types import F32, I32, I64, Bool, Contexts

_CHUNK = 512  # contexts that are read at once


def read_contexts(net: PolicyNet, contexts: Contexts, max_history: int) -> Float[Tensor, "context dim"]:
    """h_context of every context, in chunks of like length."""
    net.eval()
    order = np.argsort(np.minimum(contexts.stop - contexts.start, max_history), kind="stable")
    out = torch.empty(len(contexts), net.dims, device=device_of(net))
    for begin in range(0, len(order), _CHUNK):
        some = order[begin : begin + _CHUNK]
        out[torch.from_numpy(some)] = net.context_vectors(encode(contexts.take(some), max_history))
    return out


@torch.no_grad()
def policy_pool(
    net: PolicyNet,
    h: Float[Tensor, "context dim"],
    evidence: Evidence,
    contexts: Contexts,
    config: CandidateConfig,
    allowed: Bool,
    repeats: bool,
    since: I64 | None = None,
) -> I32:
    """Each context's candidates, the language model's own favorites among them. Shape [context, candidate]; `since` as in `draw_pool`."""
    favorites = None
    if config.policy and "policy" not in config.drop:
        parts = [net.favorites(some, config.policy, allowed) for some in h.split(_CHUNK)]
        favorites = torch.cat(parts).cpu().numpy().astype(np.int32)
    return draw_pool(evidence, contexts, config, allowed, favorites, repeats, since)


@torch.no_grad()
def pool_logprobs(net: PolicyNet, h: Float[Tensor, "context dim"], pool: I32) -> F32:
    """`PolicyNet.base_logprobs` in chunks. Padding gets the row's smallest value, so that no -inf enters a network."""
    places = tensor_for(net, pool.astype(np.int64))
    parts = [net.base_logprobs(a, b) for a, b in zip(h.split(_CHUNK), places.split(_CHUNK), strict=True)]
    base = torch.cat(parts).cpu().numpy()
    floor = np.where(pool >= 0, base, np.inf).min(axis=1, keepdims=True)
    return np.where(pool >= 0, base, np.where(np.isfinite(floor), floor, 0)).astype(np.float32)
