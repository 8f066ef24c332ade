"""What a model's folder may hold and what it may not: nothing in it runs, nothing is fetched, and every refusal says what to do."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_lms import FAMILIES, settings, tea_shop, write_lm, write_tokenizer

from pagellm.data.content import content_vectors
from pagellm.data.log import Log
from pagellm.errors import PagellmError, UsageError
from pagellm.models.model_files import model_folder, read_architecture
from pagellm.models.run import make_net


@pytest.fixture(scope="session")
def shop() -> Log:
    return tea_shop()


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with which nothing is wrong."""
    return write_lm(tmp_path_factory.mktemp("lm"), "llama")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(f"somebody wanted to connect to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def lm(good: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(good, tmp_path / "lm")


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.canary,)


def load(folder: Path | str, shop: Log, *more: str) -> torch.nn.Module:
    return make_net(settings(folder, *more), content_vectors(shop.catalog, 16), shop.catalog)


def edit(file: Path, **changes: Any) -> None:
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, **changes}))


def without_weights(lm: Path) -> Path:
    (lm / "model.safetensors").unlink()
    return lm


def change_weights(lm: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(lm / "model.safetensors")
    change(weights)
    save_file(weights, lm / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("where", ["config.json", "deep in config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("model_type", ["llama", "evil"])
def test_code_that_comes_with_a_model_is_never_run(lm: Path, shop: Log, tmp_path: Path, where: str, model_type: str) -> None:
    canary = tmp_path / "canary"
    code = f"from pathlib import Path\nPath({str(canary)!r}).touch()\nclass EvilConfig: pass\nclass Evil: pass\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py"):
        (lm / name).write_text(code)
    (lm / "custom_generate").mkdir()
    (lm / "custom_generate" / "generate.py").write_text(code)
    if model_type == "evil":
        edit(lm / "config.json", model_type="evil")
    auto_map = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModelForCausalLM": "modeling_evil.Evil",
        "AutoTokenizer": ["tokenization_evil.Evil", None],
    }
    if where == "config.json":
        edit(lm / "config.json", auto_map=auto_map)
    elif where == "tokenizer_config.json":
        edit(lm / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Evil")
    else:
        edit(lm / "config.json", parts=[{"text_config": {"auto_map": auto_map}}])
    with pytest.raises(UsageError, match="asks for code that comes with the model"):
        load(lm, shop)
    assert not canary.exists()


def test_weights_that_could_hold_code_are_not_opened(lm: Path, shop: Log, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (lm / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    load(lm, shop)  # beside safetensors they do not matter
    with pytest.raises(UsageError, match=r"holds no model\.safetensors.*safe_serialization=True"):
        load(without_weights(lm), shop)
    assert not canary.exists()
    pickle.loads((lm / "pytorch_model.bin").read_bytes())  # noqa: S301  # the bomb is live
    assert canary.exists()


@pytest.mark.parametrize("part", ["pytorch_model.bin", "../lm/model.safetensors", "gone.safetensors", 3])
def test_an_index_of_weights_names_safetensors_of_its_folder_alone(lm: Path, shop: Log, tmp_path: Path, part: object) -> None:
    canary = tmp_path / "canary"
    (lm / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    index = {"metadata": {}, "weight_map": {"model.norm.weight": part}}
    (without_weights(lm) / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="which is no safetensors file of this folder"):
        load(lm, shop)
    assert not canary.exists()


def test_weights_in_several_parts_are_read(good: Path, shop: Log, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    parts = shutil.copytree(good, tmp_path / "parts", ignore=shutil.ignore_patterns("model.safetensors"))
    AutoModelForCausalLM.from_pretrained(good).save_pretrained(parts, max_shard_size="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    one, many = load(good, shop).state_dict(), load(parts, shop).state_dict()
    assert all(torch.equal(one[name], many[name]) for name in one)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda lm: (lm / "config.json").unlink(), r"config\.json cannot be read"),
    "config is no JSON": (lambda lm: (lm / "config.json").write_text("{"), r"config\.json cannot be read"),
    "config is a list": (lambda lm: (lm / "config.json").write_text("[]"), "names no model_type"),
    "config without a kind": (lambda lm: (lm / "config.json").write_text("{}"), "names no model_type"),
    "unknown architecture": (
        lambda lm: edit(lm / "config.json", model_type="warp-drive"),
        "does not know the architecture 'warp-drive'",
    ),
    "no decoder": (lambda lm: edit(lm / "config.json", model_type="t5"), "could not be loaded"),
    "quantized": (lambda lm: edit(lm / "config.json", quantization_config={"quant_method": "gptq"}), "quantized"),
    "weights named": (lambda lm: edit(lm / "config.json", transformers_weights="x.safetensors"), "a weights file of its own"),
    "an adapter": (lambda lm: (lm / "adapter_config.json").write_text("{}"), "merge_and_unload"),
    "no tokenizer": (lambda lm: [file.unlink() for file in lm.glob("*token*")], "has no tokenizer"),
    "tokenizer is no JSON": (lambda lm: (lm / "tokenizer.json").write_text("{"), "tokenizer in .* could not be read"),
    "cut-off weights": (
        lambda lm: (lm / "model.safetensors").write_bytes((lm / "model.safetensors").read_bytes()[:5_000]),
        "could not be loaded",
    ),
    "a tensor is missing": (
        lambda lm: change_weights(lm, lambda w: w.pop("model.layers.1.mlp.up_proj.weight")),
        r"lack 1 tensors.*layers\.1\.mlp\.up_proj",
    ),
    "a tensor has another shape": (
        lambda lm: change_weights(lm, lambda w: w.update({"model.norm.weight": torch.ones(31)})),
        r"in another shape: model\.norm\.weight",
    ),
    "not finite": (
        lambda lm: change_weights(lm, lambda w: w["model.layers.0.mlp.up_proj.weight"].fill_(torch.nan)),
        "values that are not finite",
    ),
    "an index of nothing": (
        lambda lm: (without_weights(lm) / "model.safetensors.index.json").write_text('{"weight_map": {}}'),
        "names no file",
    ),
    "an index of lists": (
        lambda lm: (without_weights(lm) / "model.safetensors.index.json").write_text('{"weight_map": {"a": ["b"]}}'),
        "no safetensors file of this folder",
    ),
    "config without end": (lambda lm: (lm / "config.json").write_text("[" * 100_000), r"config\.json cannot be read"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_named_in_one_message(lm: Path, shop: Log, fault: str) -> None:
    damage, words = BROKEN[fault]
    damage(lm)
    with pytest.raises(UsageError, match=words) as caught:
        load(lm, shop)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("left", [(), ("tokenizer_config.json",), ("tokenizer.json",)])
def test_an_empty_tokenizer_is_no_tokenizer(tmp_path: Path, shop: Log, family: str, left: tuple[str, ...]) -> None:
    """Without vocabulary files transformers makes a tokenizer that knows control tokens alone for some families."""
    lm = write_lm(tmp_path, family)
    for file in lm.glob("*token*"):
        if file.name not in left:
            file.unlink()
    if "tokenizer.json" in left:
        edit(lm / "tokenizer.json", model={"type": "BPE", "vocab": {}, "merges": [], "unk_token": None})
    with pytest.raises(UsageError, match="has no tokenizer"):
        load(lm, shop)


def test_the_tokenizer_must_be_the_models_own(tmp_path: Path, shop: Log) -> None:
    with pytest.raises(UsageError, match="the model only knows 60"):
        load(write_lm(tmp_path, "llama", vocab_size=60), shop)


def test_a_model_that_reads_both_ways_is_refused(tmp_path: Path, shop: Log) -> None:
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, "gpt2")
    with pytest.raises(UsageError, match=r"does not (read strictly from left to right|take vectors)"):
        load(tmp_path, shop)


def test_attention_kernels_are_not_fetched(lm: Path, shop: Log) -> None:
    edit(lm / "config.json", attn_implementation="somebody/kernel", _attn_implementation="somebody/kernel")
    net = load(lm, shop)
    assert net.backbone.decoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "name", ["./no/such/folder", "/no/such", "a/b/c", "~no-such-user/x", "-x", "a b", "\n", "x" * 300, "a\0"]
)
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is neither a folder nor a hub id"):
        model_folder(name)


def test_a_hub_model_is_read_from_the_cache_and_never_fetched(
    good: Path, shop: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")  # saying nothing is no leave to fetch
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE=0"):
        load("acme/tiny", shop)
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--acme--tiny"
    shutil.copytree(good, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert torch.equal(load("acme/tiny", shop).ids.weight, load(good, shop).ids.weight)


@pytest.mark.parametrize(("package", "adapter"), [("transformers", "full"), ("huggingface_hub", "full"), ("peft", "lora")])
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    good: Path, shop: Log, monkeypatch: pytest.MonkeyPatch, package: str, adapter: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    folder = "acme/tiny" if package == "huggingface_hub" else good
    with pytest.raises(UsageError, match=package) as caught:
        load(folder, shop, f"model.adapter={adapter}")
    assert str(caught.value).endswith("pip install 'pagellm[llm]'")


def test_a_finished_runs_architecture_is_checked_like_a_models(tmp_path: Path) -> None:
    file = tmp_path / "backbone.json"
    file.write_text(json.dumps({"model_type": "llama", "auto_map": {}}))
    with pytest.raises(PagellmError, match="asks for code"):
        read_architecture(file)
