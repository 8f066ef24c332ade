"""The folder that a training leaves behind, and the way back: everything that composing and judging pages need.

    config.json    the resolved configuration          card.json       the split in numbers
    data.json      name, fingerprint, release          catalog.parquet the items
    events.parquet the feedback                        content.safetensors  item vectors from text
    policy.safetensors  all weights                    layout.toml     the shop's layout, where it has one
    metrics.jsonl  a line a step                       backbone.json   architecture of a Hugging Face backbone, where it has one
    manifest.json  SHA-256 of each file, written last

Knows no training. Safetensors, JSON and Parquet only: nothing in a run folder can be code.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import ValidationError

from pagellm import __version__
from pagellm.catalog import Catalog
from pagellm.config import RunConfig
from pagellm.data.evidence import NAMES, Evidence, build_evidence
from pagellm.data.log import Log
from pagellm.data.splits import Split, make_split
from pagellm.errors import RunError
from pagellm.models.huggingface import HuggingFaceBackbone, pretrained_policy, stored_policy
from pagellm.models.model_files import read_architecture
from pagellm.models.policy import PolicyNet
from pagellm.models.storage import (
    check_manifest,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
    write_manifest,
    write_tensors,
)
from pagellm.types import F32, Interactions

FILES = (
    "config.json",
    "card.json",
    "data.json",
    "catalog.parquet",
    "events.parquet",
    "content.safetensors",
    "policy.safetensors",
)
LAYOUT, METRICS, BACKBONE = "layout.toml", "metrics.jsonl", "backbone.json"


@dataclass(frozen=True)
class Run:
    """A finished run, loaded."""

    folder: Path
    config: RunConfig
    facts: dict[str, Any]  # data.json
    catalog: Catalog
    split: Split
    content: F32  # [item, dim]
    evidence: Evidence
    net: PolicyNet


def data_facts(log: Log) -> dict[str, Any]:
    """What identifies the data that a run was made from."""
    return {
        "name": log.name,
        "fingerprint": log.fingerprint,
        "release": log.release,
        "pagellm": __version__,
        "torch": torch.__version__,
    }


def save_inputs(folder: Path, config: RunConfig, log: Log, split: Split, content: F32) -> None:
    """Writes what is known before training."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "card.json", split.card)
    write_json(folder / "data.json", data_facts(log))
    write_bytes(folder / "catalog.parquet", _parquet(log.catalog.frame))
    write_bytes(folder / "events.parquet", _parquet(_events_frame(log.interactions)))
    write_tensors(folder / "content.safetensors", {"content": torch.from_numpy(content)})
    if log.layout is not None:
        write_bytes(folder / LAYOUT, log.layout.read_bytes())


def save_policy(folder: Path, net: PolicyNet) -> None:
    """Writes the weights and, last of all, the manifest: from here on the run is finished."""
    write_tensors(folder / "policy.safetensors", dict(net.state_dict()))
    if isinstance(net.backbone, HuggingFaceBackbone):
        write_json(folder / BACKBONE, net.backbone.architecture)
    optional = [name for name in (LAYOUT, METRICS, BACKBONE) if (folder / name).exists()]
    write_manifest(folder, [*FILES, *optional])


def load_run(folder: Path | str) -> Run:
    """A finished run. Raises RunError where it is missing, unfinished, damaged or of another version's making."""
    folder = Path(folder)
    check_manifest(folder, FILES, (LAYOUT, METRICS, BACKBONE))
    try:
        config = RunConfig.model_validate(read_json(folder / "config.json"))
    except ValidationError as problem:
        raise RunError(
            f"The configuration of {folder} does not fit this version of pagellm ({problem.error_count()} settings)."
        ) from problem
    catalog = Catalog(_table(folder / "catalog.parquet"))
    log = _events(_table(folder / "events.parquet"), len(catalog))
    split = make_run_split(log, len(catalog), config)
    content = read_tensors(folder / "content.safetensors")[0]["content"].numpy()
    evidence = make_evidence(catalog, split, content, config)
    net = _net_of(folder, config, content)
    weights, _ = read_tensors(folder / "policy.safetensors")
    try:
        net.load_state_dict(weights)
    except RuntimeError as problem:  # names and shapes that are missing, left over or other
        raise RunError(f"The weights of {folder} do not fit its configuration. Train it again. ({problem})") from problem
    return Run(folder, config, read_json(folder / "data.json"), catalog, split, content, evidence, net.eval())


def make_run_split(log: Interactions, n_items: int, config: RunConfig) -> Split:
    """The split that a configuration asks for."""
    cuts = (config.split.valid_at, config.split.test_at)
    return make_split(log, n_items, config.split.protocol, cuts=cuts)


def make_evidence(catalog: Catalog, split: Split, content: F32, config: RunConfig) -> Evidence:
    """Evidence over the split's log: every event under a split in time, else only what may be fitted before validation."""
    known = None if split.point_in_time else split.fit_until_valid
    return build_evidence(catalog, split.log, content, known, config.candidates.drop)


def make_net(config: RunConfig, content: F32, catalog: Catalog) -> PolicyNet:
    """A fresh policy network for this configuration: weights drawn from the seed, or a Hugging Face model's own."""
    torch.manual_seed(config.seed)
    if config.model.backbone == "small":
        return PolicyNet(config.model, content, len(NAMES), blind="policy" in config.candidates.drop)
    return pretrained_policy(config, content, len(NAMES), catalog)


def _net_of(folder: Path, config: RunConfig, content: F32) -> PolicyNet:
    """The network of a finished run, its weights still to be loaded. Needs no other folder."""
    if config.model.backbone == "small":
        return PolicyNet(config.model, content, len(NAMES), blind="policy" in config.candidates.drop)
    return stored_policy(config, content, len(NAMES), read_architecture(folder / BACKBONE))


def _events_frame(log: Interactions) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": log.user_ids[log.user] if len(log) else np.empty(0, np.str_),
            "user": log.user,
            "item": log.item,
            "time": log.time,
            "basket": log.basket,
            "event": log.event,
            "rating": log.rating,
            "value": log.value,
        }
    )


def _events(frame: pl.DataFrame, n_items: int) -> Interactions:
    """The log as saved. Raises RunError for indexes that no log of this catalog has: compiled loops trust them."""
    user, places = frame["user"].to_numpy(), frame["item"].to_numpy()
    if len(frame) and not (user[0] >= 0 and (np.diff(user) >= 0).all() and places.min() >= 0 and places.max() < n_items):
        raise RunError(f"The events of this run do not fit its catalog of {n_items:,} items. Train it again.")
    ids = np.full(int(user.max(initial=-1)) + 1, "", frame["user_id"].to_numpy().astype(np.str_).dtype)
    ids[user] = frame["user_id"].to_numpy().astype(np.str_)
    item, time, basket, event, rating, value = (
        frame[n].to_numpy() for n in ("item", "time", "basket", "event", "rating", "value")
    )
    return Interactions(user, item, time, basket, event, rating, value, ids)


def _table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise RunError(f"The file {path} cannot be read ({problem}). Copy it again, or train the run again.") from problem


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
