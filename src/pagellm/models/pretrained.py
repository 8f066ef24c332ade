"""From a checked folder to a Hugging Face decoder and tokenizer: the one room that calls transformers and peft.

Takes folders that `model_files` has checked, or an architecture as plain values; gives a decoder without its vocabulary head. The
architectures are those of transformers itself. Knows no items.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pagellm.errors import UsageError
from pagellm.models.model_files import check_folder, first_line, no_tokenizer, not_installed, read_architecture

_TESTED = "GPT-2, Llama and Qwen models are tested."


def load_decoder(folder: Path) -> nn.Module:
    """The decoder of a checked folder with its weights, in float32, without the vocabulary head.

    Raises UsageError for an architecture that transformers does not know and for weights that are missing or of another shape.
    """
    architecture = read_architecture(folder / "config.json")
    check_folder(folder)
    transformers = _transformers()
    config = _configuration(transformers, architecture)
    with _quiet(transformers), _foreign(f"The backbone at {folder} could not be loaded"):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            output_loading_info=True,
        )
    decoder = _decoder_of(model, architecture)
    absent = [name for name in report["missing_keys"] if name.startswith(f"{model.base_model_prefix}.")]
    misfits = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]  # transformers 4 and 5 differ
    wrong = sorted([*absent, *misfits])
    if wrong:
        raise UsageError(
            f"The weights in {folder} lack {len(wrong)} tensors of this {architecture['model_type']} model or hold them in another "
            f"shape: {', '.join(wrong[:3])}. Download the model again."
        )
    return decoder.float()


def build_decoder(architecture: dict[str, Any]) -> nn.Module:
    """A decoder of this architecture with random weights, for weights that come from elsewhere."""
    transformers = _transformers()
    config = _configuration(transformers, architecture)
    with _quiet(transformers), _foreign("The backbone of this run could not be built"):
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    return _decoder_of(model, architecture).float()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checked folder. Raises UsageError where it has none that transformers can read."""
    transformers = _transformers()
    with _quiet(transformers), _foreign(f"The tokenizer in {folder} could not be read", "Save the model's own one there."):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        ordinary = set(tokenizer.get_vocab()) - {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    if not ordinary:
        raise no_tokenizer(folder)
    return tokenizer


def add_lora(decoder: nn.Module, rank: int) -> None:
    """Freezes a decoder and adds low-rank matrices to all its linear layers (Hu et al. 2022; on all layers: Dettmers et al. 2023).

    Their product starts at zero, so the decoder computes what it did. Scale 2 (alpha = 2 · rank).
    """
    try:
        import peft
    except ImportError as missing:
        raise not_installed("peft") from missing
    transposed = any(type(module).__name__ == "Conv1D" for module in decoder.modules())  # GPT-2 keeps its matrices so
    lora = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", fan_in_fan_out=transposed)
    peft.inject_adapter_in_model(lora, decoder)


def new_cache() -> Any:
    """An empty key-value cache that keeps every key of every layer."""
    return _transformers().DynamicCache()


def _configuration(transformers: ModuleType, architecture: dict[str, Any]) -> Any:
    kind = architecture["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        raise UsageError(f"transformers {transformers.__version__} does not know the architecture {kind!r}. {_TESTED}")
    with _quiet(transformers), _foreign(f"The configuration of this {kind} model is not accepted"):
        return transformers.AutoConfig.for_model(**architecture)


def _decoder_of(model: Any, architecture: dict[str, Any]) -> nn.Module:
    decoder: nn.Module = model.base_model
    if decoder is model:
        raise UsageError(f"A {architecture['model_type']} model has no decoder apart from its head. {_TESTED}")
    return decoder


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as missing:
        raise not_installed("transformers") from missing
    return transformers


@contextmanager
def _foreign(what: str, advice: str = _TESTED) -> Iterator[None]:
    """Turns whatever a foreign folder makes a library raise into one message."""
    try:
        yield
    except Exception as problem:
        raise UsageError(f"{what}: {first_line(problem).rstrip('.')}. {advice}") from problem


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
