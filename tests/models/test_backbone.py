"""The small backbone is a Llama: its twin in transformers gives the same vectors. Reading in steps equals reading at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pagellm.errors import UsageError
from pagellm.models.backbone import BackboneShape, SmallBackbone
from pagellm.models.llama_weights import from_llama_state, llama_settings, to_llama_state

SHAPE = BackboneShape(dims=32, layers=3, heads=4, ffn_dims=48, rope_theta=500.0)


def small(seed: int = 0) -> SmallBackbone:
    torch.manual_seed(seed)
    backbone = SmallBackbone(SHAPE).eval()
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
            else:
                weight.mul_(10)  # so that attention is far from uniform
    return backbone


def llama(**changes: object) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(1)
    return LlamaModel(LlamaConfig(**{**llama_settings(SHAPE), "vocab_size": 8, **changes})).eval()


@torch.no_grad()
def test_equals_llama_with_its_weights_carried_over() -> None:
    backbone, twin = small(), llama()
    missing, unexpected = twin.load_state_dict(to_llama_state(backbone.state_dict()), strict=False)
    assert missing == ["embed_tokens.weight"]
    assert not unexpected
    x = torch.randn(4, 17, SHAPE.dims)
    torch.testing.assert_close(backbone(x), twin(inputs_embeds=x).last_hidden_state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_llama_equals_the_backbone_with_its_weights_carried_over() -> None:
    backbone, twin = SmallBackbone(SHAPE).eval(), llama()
    backbone.load_state_dict(from_llama_state(twin.state_dict()))
    x = torch.randn(4, 17, SHAPE.dims)
    torch.testing.assert_close(backbone(x), twin(inputs_embeds=x).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_weights_go_there_and_back_unchanged() -> None:
    before = small().state_dict()
    after = from_llama_state(to_llama_state(before))
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_llama_with_other_parts_is_refused() -> None:
    with pytest.raises(UsageError, match="groups its key-value heads"):
        from_llama_state(llama(num_key_value_heads=2).state_dict())
    with pytest.raises(UsageError, match=r"no place for layers\.0\.self_attn\.k_proj\.bias"):
        from_llama_state(llama(attention_bias=True).state_dict())
    with pytest.raises(UsageError, match=r"norm\.weight is missing"):
        from_llama_state({f"model.{name}": value for name, value in llama().state_dict().items()})


@torch.no_grad()
@examples(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), pages=st.integers(1, 3), seed=st.integers(0, 99))
def test_prefill_and_steps_equal_the_full_forward(lengths: list[int], pages: int, seed: int) -> None:
    backbone, tokens = small(), 4
    prompts, written = sequences(lengths, pages, tokens, seed)
    h, cache = backbone.prefill(padded(prompts), torch.tensor(lengths), pages, tokens)
    for c, prompt in enumerate(prompts):
        torch.testing.assert_close(h[c, 0], backbone(prompt[None])[0, -1], atol=1e-5, rtol=1e-5)
    for t in range(tokens):
        got = backbone.step(written[:, :, t], cache)
        for c, prompt in enumerate(prompts):
            for page in range(pages):
                whole = torch.cat([prompt, written[c, page, : t + 1]])
                torch.testing.assert_close(got[c, page], backbone(whole[None])[0, -1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pages", [1, 3])
def test_a_tail_is_the_last_tokens_of_each_prompt(pages: int) -> None:
    backbone, lengths = small(), [5, 2, 9]
    prompts, _ = sequences(lengths, pages, 0, 3)
    hidden, _ = backbone.prefill(padded(prompts), torch.tensor(lengths), pages, 0, tail=2)
    for c, prompt in enumerate(prompts):
        torch.testing.assert_close(hidden[c], backbone(prompt[None])[0, -2:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@examples(max_examples=15, deadline=None)
@given(length=st.integers(1, 12), padding=st.integers(0, 12), seed=st.integers(0, 99))
def test_padding_on_the_right_changes_nothing(length: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    backbone, x = small(), torch.randn(2, length + padding, SHAPE.dims)
    torch.testing.assert_close(backbone(x)[:, :length], backbone(x[:, :length]), atol=1e-5, rtol=1e-5)


def sequences(lengths: list[int], pages: int, tokens: int, seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Prompts of these lengths [token, dim], and what is written after them [context, page, token, dim]."""
    torch.manual_seed(seed)
    return [torch.randn(n, SHAPE.dims) for n in lengths], torch.randn(len(lengths), pages, tokens, SHAPE.dims)


def padded(prompts: list[torch.Tensor]) -> torch.Tensor:
    """Prompts in one batch, with noise where nothing stands."""
    out = torch.randn(len(prompts), max(map(len, prompts)), SHAPE.dims)
    for row, prompt in zip(out, prompts, strict=True):
        row[: len(prompt)] = prompt
    return out
