"""What a Hugging Face model's folder may hold: JSON and safetensors, nothing that runs. Finds folders and checks them; loads no model.

Takes a folder or a hub id, gives a checked folder and its architecture as plain values. Knows no items and imports no transformers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pagellm.errors import UsageError

INSTALL = "pip install 'pagellm[llm]'"
"""What brings transformers, peft and huggingface-hub."""

_FILES = ["*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[\w.-]{1,96})?")
_NEEDS_CODE = "auto_map"
_FOREIGN = {
    "quantization_config": "its weights are quantized. Name the unquantized model",
    "transformers_weights": "it names a weights file of its own. Save it again with save_pretrained",
    "configuration_files": "it names configuration files of its own. Keep config.json alone",
}
_VOCABULARIES = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"}
_SHORT = 200  # characters of a foreign message that are passed on


def model_folder(name: str) -> Path:
    """The local folder of a model: the folder of this name, else the hub model in the local cache.

    Fetches from the hub only where the user has set HF_HUB_OFFLINE=0. Raises UsageError where there is no such model.
    """
    folder = os.path.expanduser(name)  # Path raises for an unknown user or too long a name
    if os.path.isdir(folder):
        return Path(folder)
    if not _HUB_ID.fullmatch(name):
        raise UsageError(
            f"The backbone {name!r} is neither a folder nor a hub id such as owner/name. Set model.backbone to 'small' or to one of these."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as missing:
        raise not_installed("huggingface_hub") from missing
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=_offline()))
    except Exception as problem:  # whatever network, cache or server bring
        raise UsageError(
            f"The backbone {name!r} is no folder, and no hub model of this name could be read ({first_line(problem)}). Name a folder "
            "that holds it, or set HF_HUB_OFFLINE=0 to let it be fetched: nothing is downloaded unless you say so."
        ) from problem


def read_architecture(file: Path) -> dict[str, Any]:
    """A model's config.json. Raises UsageError for one that asks for code of its own or that this project cannot train."""
    architecture = _read(file)
    if not isinstance(architecture, dict) or not isinstance(architecture.get("model_type"), str):
        raise UsageError(f"The file {file} names no model_type, so it is no configuration of a Hugging Face model.")
    for key in _keys(architecture):
        if key == _NEEDS_CODE:
            raise _wants_code(file)
        if key in _FOREIGN:
            raise UsageError(f"The backbone at {file.parent} cannot be used: {_FOREIGN[key]}.")
    return architecture


def check_folder(folder: Path) -> None:
    """Raises UsageError unless the folder has a tokenizer and safetensors weights of its own and asks for no code of its own."""
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:
        raise UsageError(
            f"The folder {folder} holds an adapter for another model. Merge it first (peft: merge_and_unload, then save_pretrained)."
        )
    if "tokenizer_config.json" in names and _NEEDS_CODE in _keys(_read(folder / "tokenizer_config.json")):
        raise _wants_code(folder / "tokenizer_config.json")
    if not names & _VOCABULARIES:
        raise no_tokenizer(folder)  # for some architectures transformers would make an empty one
    if "model.safetensors" in names:
        return
    if "model.safetensors.index.json" not in names:
        raise UsageError(
            f"The folder {folder} holds no model.safetensors. Only safetensors weights are read, because other formats can hold code. "
            "Convert weights that you trust, in a place that you can spare: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)"
        )
    index = _read(folder / "model.safetensors.index.json")
    named = index.get("weight_map") if isinstance(index, dict) else None
    parts = list(named.values()) if isinstance(named, dict) else []
    wrong = [part for part in parts if not (isinstance(part, str) and part.endswith(".safetensors") and part in names)]
    if wrong or not parts:
        raise UsageError(
            f"The index of weights in {folder} names {wrong[0]!r}, which is no safetensors file of this folder."
            if wrong
            else f"The index of weights in {folder} names no file. Download the model again."
        )


def first_line(problem: BaseException) -> str:
    """The first line of a foreign message, cut to a length that people read."""
    lines = str(problem).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:_SHORT]


def no_tokenizer(folder: Path) -> UsageError:
    """What to say of a folder whose tokenizer is missing or empty."""
    return UsageError(
        f"The folder {folder} has no tokenizer, so no title can be encoded. Save the model's own one there: "
        "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
    )


def not_installed(package: str) -> UsageError:
    """What to say where a package of the extra is missing."""
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


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise UsageError(
            f"The file {file} cannot be read ({first_line(problem)}). A backbone's folder holds config.json, model.safetensors and a "
            "tokenizer, as save_pretrained writes them."
        ) from problem
