"""The small backbone's weights as those of `transformers.LlamaModel`, and back. Pure functions on state dicts; loads no library.

Ours joins query, key and value into one matrix and both feed-forward gates into another; rotary positions turn the same halves, so no
row needs to move.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pagellm.errors import UsageError
from pagellm.models.backbone import BackboneShape

_SAME = {
    "attention_norm.weight": "input_layernorm.weight",
    "out.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "down.weight": "mlp.down_proj.weight",
}
_JOINED = {
    "qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
}
_IGNORED = ("embed_tokens.weight", "rotary_emb.inv_freq")


def llama_settings(shape: BackboneShape) -> dict[str, int | float | bool]:
    """Keyword arguments that make a `transformers.LlamaConfig` of this shape."""
    return {
        "hidden_size": shape.dims,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "intermediate_size": shape.ffn_dims,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
    }


def to_llama_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `SmallBackbone` state dict as that of a `LlamaModel` without its vocabulary."""
    out = {"norm.weight": state["norm.weight"]}
    for layer in range(_layers(state, "blocks.")):
        ours, theirs = f"blocks.{layer}.", f"layers.{layer}."
        out |= {theirs + name: state[ours + own] for own, name in _SAME.items()}
        for own, names in _JOINED.items():
            parts = state[ours + own].chunk(len(names))
            out |= {theirs + name: part.clone() for name, part in zip(names, parts, strict=True)}
    return out


def from_llama_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `LlamaModel` state dict as that of a `SmallBackbone`; its vocabulary is left out.

    Raises UsageError for a model with grouped key-value heads, biases or anything else that the small backbone has not.
    """
    if "norm.weight" not in state:
        raise UsageError(
            "These are not the weights of a LlamaModel: norm.weight is missing. Pass model.state_dict() of the decoder."
        )
    out = {"norm.weight": state["norm.weight"]}
    used = {"norm.weight"}
    for layer in range(_layers(state, "layers.")):
        ours, theirs = f"blocks.{layer}.", f"layers.{layer}."
        out |= {ours + own: state[theirs + name] for own, name in _SAME.items()}
        for own, names in _JOINED.items():
            parts = [state[theirs + name] for name in names]
            if len({part.shape for part in parts}) > 1:
                raise UsageError(
                    f"Layer {layer} groups its key-value heads; the small backbone has as many of them as of query heads."
                )
            out[ours + own] = torch.cat(parts)
        used |= {theirs + name for name in [*_SAME.values(), *(n for names in _JOINED.values() for n in names)]}
    left = sorted(name for name in state if name not in used and not name.endswith(_IGNORED))
    if left:
        raise UsageError(f"The small backbone has no place for {left[0]} of this Llama model.")
    return out


def _layers(state: dict[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})
