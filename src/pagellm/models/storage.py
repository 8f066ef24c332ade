"""Tensors, JSON and manifests in a run folder, each file whole or not there. Knows nothing of what they mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pagellm.data.whole_files import write_bytes
from pagellm.errors import RunError

MANIFEST = "manifest.json"
"""Names every file of a finished run with its hash; without it a run is not finished."""

_LONGEST_NAME = 100  # of a file in a manifest; beyond it file systems raise errors of their own


def write_json(path: Path, content: Any) -> None:
    """Replaces a JSON file in one step."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """A JSON file. Raises RunError where it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise RunError(
            f"The file {path} cannot be read ({problem}). Name a run folder that `pagellm train` has finished."
        ) from problem


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], notes: dict[str, str] | None = None) -> None:
    """Replaces a safetensors file in one step. Raises RunError rather than save a value that is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RunError(
                f"Tensor {name!r} holds values that are not finite, so {path.name} was not written. The last good file stands."
            )
    write_bytes(path, save({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, notes))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and notes of a safetensors file. Raises RunError where it is missing or damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as problem:
        raise RunError(f"The file {path} cannot be read ({problem}). Copy it again, or train the run again.") from problem


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, names: list[str]) -> None:
    """Names and digests of all files of a folder, written last: a folder without it is unfinished."""
    files = {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(names)}
    write_json(folder / MANIFEST, {"files": files})


def check_manifest(folder: Path, required: Iterable[str] = (), known: Iterable[str] = ()) -> None:
    """Raises RunError unless every file is there and has the digest that the manifest says.

    `required` files must be in the manifest, `known` ones must be if they are in the folder: nothing unchecked is read later.
    """
    if not folder.is_dir():
        raise RunError(f"There is no run folder {folder}. Train one: pagellm train DATA --run {folder}")
    if not (folder / MANIFEST).exists():
        raise RunError(
            f"The run {folder} is not finished: it has no manifest.json. Go on with: pagellm train DATA --run {folder} --resume"
        )
    try:
        entries = dict(read_json(folder / MANIFEST)["files"])
        digests = {name: str(entry["sha256"]) for name, entry in entries.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise RunError(
            f"The manifest of {folder} is damaged ({problem!r}). Copy the folder again, or train it again."
        ) from problem
    unchecked = [name for name in required if name not in digests]
    unchecked += [name for name in known if name not in digests and (folder / name).exists()]
    if unchecked:
        raise RunError(f"The manifest of {folder} does not name {unchecked[0]!r}. Copy the folder again, or train it again.")
    for name, digest in digests.items():
        if Path(name).name != name or len(name) > _LONGEST_NAME:
            raise RunError(f"The manifest of {folder} names {name!r}, which is not a plain file name. Do not use this folder.")
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise RunError(
                f"The file {folder / name} is missing or differs from the manifest. Copy the folder again, or train it again."
            )
