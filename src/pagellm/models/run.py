"""The folder that a training leaves behind, and the way back: everything that composing and judging pages need.

    config.json    the resolved configuration          card.json       the split in numbers
    data.json      name, fingerprint, release          catalog.parquet the items
    users.parquet  the users' ids                      events.parquet  the feedback
    pages.parquet, slots.parquet  the pages that were shown, where the log has them
    content.safetensors  item vectors from text
    policy.safetensors  all weights                    layout.toml     the shop's layout, where it has one
    metrics.jsonl  a line a step                       backbone.json   architecture of a Hugging Face backbone, where it has one
    manifest.json  SHA-256 of each file, written last

Knows no training. Safetensors, JSON and Parquet only: nothing in a run folder can be code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from pagellm.models.run_tables import (
    as_parquet,
    events_frame,
    pages_frame,
    read_events,
    read_impressions,
    read_table,
    slots_frame,
    users_frame,
)
from pagellm.models.storage import (
    check_manifest,
    read_json,
    read_tensors,
    write_bytes,
    write_json,
    write_manifest,
    write_tensors,
)
from pagellm.types import F32, Impressions, Interactions

FILES = (
    "config.json",
    "card.json",
    "data.json",
    "catalog.parquet",
    "users.parquet",
    "events.parquet",
    "content.safetensors",
    "policy.safetensors",
)
LAYOUT, METRICS, BACKBONE, PAGES, SLOTS = "layout.toml", "metrics.jsonl", "backbone.json", "pages.parquet", "slots.parquet"
OPTIONAL = (LAYOUT, METRICS, BACKBONE, PAGES, SLOTS)


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
    impressions: Impressions | None = None  # None for review-type logs


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
    write_bytes(folder / "catalog.parquet", as_parquet(log.catalog.frame))
    write_bytes(folder / "users.parquet", as_parquet(users_frame(log.interactions)))
    write_bytes(folder / "events.parquet", as_parquet(events_frame(log.interactions)))
    write_tensors(folder / "content.safetensors", {"content": torch.from_numpy(content)})
    if log.impressions is not None:
        write_bytes(folder / PAGES, as_parquet(pages_frame(log.impressions)))
        write_bytes(folder / SLOTS, as_parquet(slots_frame(log.impressions)))
    if log.layout is not None:
        write_bytes(folder / LAYOUT, log.layout.read_bytes())


def save_policy(folder: Path, net: PolicyNet) -> None:
    """Writes the weights and, last of all, the manifest: from here on the run is finished."""
    write_tensors(folder / "policy.safetensors", dict(net.state_dict()))
    if isinstance(net.backbone, HuggingFaceBackbone):
        write_json(folder / BACKBONE, net.backbone.architecture)
    optional = [name for name in OPTIONAL if (folder / name).exists()]
    write_manifest(folder, [*FILES, *optional])


def load_run(folder: Path | str) -> Run:
    """A finished run. Raises RunError where it is missing, unfinished, damaged or of another version's making."""
    folder = Path(folder)
    check_manifest(folder, FILES, OPTIONAL)
    try:
        config = RunConfig.model_validate(read_json(folder / "config.json"))
    except ValidationError as problem:
        raise RunError(
            f"The configuration of {folder} does not fit this version of pagellm ({problem.error_count()} settings)."
        ) from problem
    catalog = Catalog(read_table(folder / "catalog.parquet"))
    log = read_events(folder / "users.parquet", folder / "events.parquet", len(catalog))
    shown = read_impressions(folder / PAGES, folder / SLOTS, log, len(catalog)) if (folder / PAGES).exists() else None
    split = make_run_split(log, len(catalog), config)
    content = read_tensors(folder / "content.safetensors")[0]["content"].numpy()
    evidence = make_evidence(catalog, split, content, config)
    net = _net_of(folder, config, content)
    weights, _ = read_tensors(folder / "policy.safetensors")
    try:
        net.load_state_dict(weights)
    except RuntimeError as problem:  # names and shapes that are missing, left over or other
        raise RunError(f"The weights of {folder} do not fit its configuration. Train it again. ({problem})") from problem
    return Run(folder, config, read_json(folder / "data.json"), catalog, split, content, evidence, net.eval(), shown)


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
