"""The border to Hugging Face models: from a folder or hub id to a decoder that is proven to be what the policy needs.

Takes a name, gives a decoder without its vocabulary head, its architecture as plain values and a tokenizer. Nothing that a folder
holds runs as code: architectures are those of `transformers` itself, weights are safetensors, the rest is JSON. Knows no items.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pagellm.errors import RunError, UsageError
from pagellm.models.storage import read_json

INSTALL = "pip install 'pagellm[llm]'"
"""What brings transformers, peft and huggingface-hub."""

_FILES = ["*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")
_NEEDS_CODE = "auto_map"
_FOREIGN = {
    "quantization_config": "its weights are quantized: name the unquantized model",
    "transformers_weights": "it names its own weights file: save it again with save_pretrained",
    "configuration_files": "it names its own configuration files: keep config.json alone",
}
_SHORT = 300  # characters of a foreign message that are passed on


def model_folder(name: str) -> Path:
    """The local folder of a model: the folder of this name, else the hub model in the local cache.

    Fetches from the hub only where the user has set HF_HUB_OFFLINE=0. Raises UsageError where there is no such model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name):
        raise UsageError(
            f"The backbone {name!r} is neither a folder nor a hub id such as owner/name. Set model.backbone to 'small' or to one of these."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as missing:
        raise _not_installed("huggingface_hub") from missing
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=_offline()))
    except Exception as problem:  # whatever network, cache or server bring
        raise UsageError(
            f"The backbone {name!r} is no folder, and no hub model of this name could be read ({_first_line(problem)}). Name a folder "
            "that holds it, or set HF_HUB_OFFLINE=0 to let it be fetched: nothing is downloaded unless you say so."
        ) from problem


def read_architecture(file: Path) -> dict[str, Any]:
    """A model's config.json. Raises UsageError for one that asks for code of its own or that this project cannot train."""
    try:
        architecture = read_json(file)
    except RunError as problem:
        raise UsageError(f"The backbone has no readable {file.name}: {_first_line(problem)}") from problem
    if not isinstance(architecture, dict) or not isinstance(architecture.get("model_type"), str):
        raise UsageError(f"The file {file} names no model_type, so it is no configuration of a Hugging Face model.")
    for key in _keys(architecture):
        if key == _NEEDS_CODE:
            raise _wants_code(file)
        if key in _FOREIGN:
            raise UsageError(f"The backbone at {file.parent} cannot be used, {_FOREIGN[key]}.")
    return architecture


def check_folder(folder: Path) -> None:
    """Raises UsageError unless the weights are safetensors in this very folder and nothing in it asks for code of its own."""
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:
        raise UsageError(
            f"The folder {folder} holds an adapter for another model. Merge it first (peft: merge_and_unload, then save_pretrained)."
        )
    if "tokenizer_config.json" in names and _NEEDS_CODE in _keys(read_json(folder / "tokenizer_config.json")):
        raise _wants_code(folder / "tokenizer_config.json")
    if "model.safetensors" in names:
        return
    if "model.safetensors.index.json" not in names:
        raise UsageError(
            f"The folder {folder} holds no model.safetensors. Only safetensors weights are read, because other formats can hold code. "
            "Convert weights that you trust, in a place that you can spare: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)"
        )
    index = read_json(folder / "model.safetensors.index.json")
    parts = set(index.get("weight_map", {}).values()) if isinstance(index, dict) else set()
    wrong = [part for part in parts if not (isinstance(part, str) and part.endswith(".safetensors") and part in names)]
    if wrong or not parts:
        raise UsageError(
            f"The index of weights in {folder} names {wrong[0]!r}, which is no safetensors file of this folder."
            if wrong
            else f"The index of weights in {folder} names no file. Download the model again."
        )


def load_decoder(folder: Path) -> nn.Module:
    """The decoder of a checked folder with its weights, in float32, without the vocabulary head.

    Raises UsageError for an architecture that transformers does not know and for weights that are missing or of another shape.
    """
    architecture = read_architecture(folder / "config.json")
    check_folder(folder)
    transformers = _transformers()
    with _quiet(transformers), _foreign(f"The backbone at {folder} could not be loaded"):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=transformers.AutoConfig.for_model(**architecture),
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    decoder = _decoder_of(model, architecture)
    inside = sorted(name for name in report["missing_keys"] if name.startswith(f"{model.base_model_prefix}."))
    if inside:
        raise UsageError(
            f"The weights in {folder} lack {len(inside)} tensors of a {architecture['model_type']} model, {inside[0]} among them. "
            "Download the model again."
        )
    return decoder.float()


def build_decoder(architecture: dict[str, Any]) -> nn.Module:
    """A decoder of this architecture with random weights, for weights that come from elsewhere."""
    transformers = _transformers()
    with _quiet(transformers), _foreign("The backbone of this run could not be built"):
        config = transformers.AutoConfig.for_model(**architecture)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    return _decoder_of(model, architecture).float()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checked folder. Raises UsageError where it has none that transformers can read."""
    transformers = _transformers()
    with _quiet(transformers), _foreign(f"The folder {folder} has no tokenizer that can be read; save the model's own one there"):
        return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def add_lora(decoder: nn.Module, rank: int) -> None:
    """Freezes a decoder and adds low-rank matrices to all its linear layers (Hu et al. 2022; on all layers: Dettmers et al. 2023).

    Their product starts at zero, so the decoder computes what it did. Scale 2 (alpha = 2 · rank).
    """
    try:
        import peft
    except ImportError as missing:
        raise _not_installed("peft") from missing
    transposed = any(type(module).__name__ == "Conv1D" for module in decoder.modules())  # GPT-2 keeps its matrices so
    lora = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", fan_in_fan_out=transposed)
    peft.inject_adapter_in_model(lora, decoder)


def new_cache() -> Any:
    """An empty key-value cache that keeps every key of every layer."""
    return _transformers().DynamicCache()


def _decoder_of(model: Any, architecture: dict[str, Any]) -> nn.Module:
    decoder: nn.Module = model.base_model
    if decoder is model:
        raise UsageError(
            f"A {architecture['model_type']} model has no decoder apart from its head. Use a GPT-2, Llama or Qwen model."
        )
    return decoder


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as missing:
        raise _not_installed("transformers") from missing
    return transformers


def _not_installed(package: str) -> UsageError:
    return UsageError(f"A Hugging Face backbone needs the package {package}, which is not installed. Install it: {INSTALL}")


def _wants_code(file: Path) -> UsageError:
    return UsageError(
        f"The file {file} asks for code that comes with the model ({_NEEDS_CODE}), and such code is never run. Use a model whose "
        f"architecture transformers has itself; if it has this one's, take {_NEEDS_CODE} out of the file."
    )


def _offline() -> bool:
    """Whether the hub may not be asked: unless HF_HUB_OFFLINE says the contrary."""
    return os.environ.get("HF_HUB_OFFLINE", "1").strip().lower() not in {"0", "false", "no", "off"}


def _keys(value: Any) -> Iterator[str]:
    """All keys of a JSON value, at any depth."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _keys(part)


def _first_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:_SHORT]


@contextmanager
def _foreign(what: str) -> Iterator[None]:
    """Turns whatever a foreign folder makes a library raise into one message."""
    try:
        yield
    except Exception as problem:
        raise UsageError(f"{what}: {_first_line(problem)}") from problem


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """No bars and no reports of transformers: what matters of them is checked here."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
