"""The folder that a training leaves behind, and the way back: everything that composing and judging pages need.

    config.json    the resolved configuration          card.json       the split in numbers
    data.json      name, fingerprint, evidence         catalog.parquet the items
    users.parquet  the users' ids                      events.parquet  the feedback
    pages.parquet, slots.parquet  the pages that were shown, where the log has them
    pairs.parquet, reward.safetensors, reward.json  preference pairs and both rewards, where the run has learned them
    content.safetensors  item vectors from text
    policy.safetensors  all weights                    ppo.safetensors, ppo.json  what reinforcement learning changed, and its course
    renewed.safetensors  the supervised policy fitted on to later feedback, where it was
                                                       layout.toml     the shop's layout, where it has one
    metrics.jsonl  a line a step                       backbone.json   architecture of a Hugging Face backbone, where it has one
    manifest.json  SHA-256 of each file, written last

Knows no training. Safetensors, JSON and Parquet only: nothing in a run folder can be code.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from pagellm import __version__
from pagellm.catalog import Catalog
from pagellm.config import RunConfig
from pagellm.data.click_rates import count_clicks
from pagellm.data.contexts import contexts_between, cut_time
from pagellm.data.evidence import GROUPS, IMPRESSIONS, NAMES, Evidence, build_evidence
from pagellm.data.likeness import Likeness, likeness_of
from pagellm.data.log import Log
from pagellm.data.splits import Split, make_split
from pagellm.data.whole_files import aside_of, refusals, remove, write_bytes
from pagellm.errors import RunError, UsageError
from pagellm.layout.spec import Layout
from pagellm.models.device import device_for
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
    MANIFEST,
    check_manifest,
    read_json,
    read_tensors,
    write_json,
    write_manifest,
    write_tensors,
)
from pagellm.types import F32, Bool, Contexts, Impressions, Interactions

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
POLICY = FILES[-1]
LAYOUT, METRICS, BACKBONE, PAGES, SLOTS = "layout.toml", "metrics.jsonl", "backbone.json", "pages.parquet", "slots.parquet"
PAIRS, REWARD, REWARD_FACTS = "pairs.parquet", "reward.safetensors", "reward.json"
PPO, PPO_FACTS = "ppo.safetensors", "ppo.json"
RENEWED = "renewed.safetensors"
OPTIONAL = (LAYOUT, METRICS, BACKBONE, PAGES, SLOTS, PAIRS, REWARD, REWARD_FACTS, PPO, PPO_FACTS, RENEWED)


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
    net: PolicyNet  # of the supervised stages: what rewards read with, and the reference of reinforcement learning
    impressions: Impressions | None = None  # None for review-type logs
    tuned: PolicyNet | None = None  # the supervised one with what reinforcement learning changed, where the run has it
    renewed: PolicyNet | None = None  # `net` fitted on to later feedback, where the run has it

    @property
    def supervised(self) -> PolicyNet:
        """The network of all supervised stages, the renewal with them: what reinforcement learning is compared with."""
        return self.renewed or self.net

    @property
    def policy(self) -> PolicyNet:
        """The network that pages are served from: the last stage's."""
        return self.tuned or self.net

    @property
    def stage(self) -> str:
        """The name of `policy`, as `named` takes it."""
        return "sft" if self.tuned is None else "ppo"

    @property
    def knows_all(self) -> bool:
        """Whether it has learned from all of its log, its own test part included."""
        last = self.config.sft.refresh if self.renewed is None else self.config.sft.renew
        return last == "end"

    def named(self, policy: str) -> PolicyNet:
        """The network of a stage, `sft` or `ppo`. Raises UsageError for another name, RunError where the run has not learned it."""
        if policy not in ("sft", "ppo"):
            raise UsageError(f"The policy must be sft or ppo. Got {policy!r}.")
        if policy == "ppo" and self.tuned is None:
            raise RunError(
                f"The run {self.folder} has no policy of the stage ppo. Train it: pagellm train DATA --until ppo --resume"
            )
        return self.supervised if policy == "sft" else self.policy

    @cached_property
    def likeness(self) -> Likeness:
        """How alike the catalog's items are, made once a run: its title vectors are the dear part."""
        return likeness_of(self.catalog, self.content, self.config.pairs.alike)


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
    with refusals(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove(folder / MANIFEST)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "card.json", split.card)
    write_json(folder / "data.json", data_facts(log) | {"evidence": list(evidence_groups(log, split, config))})
    write_bytes(folder / "catalog.parquet", as_parquet(log.catalog.frame))
    write_bytes(folder / "users.parquet", as_parquet(users_frame(log.interactions)))
    write_bytes(folder / "events.parquet", as_parquet(events_frame(log.interactions)))
    write_tensors(folder / "content.safetensors", {"content": torch.from_numpy(content)})
    if log.impressions is not None:
        write_bytes(folder / PAGES, as_parquet(pages_frame(log.impressions)))
        write_bytes(folder / SLOTS, as_parquet(slots_frame(log.impressions)))
    if log.layout is not None:
        write_bytes(folder / LAYOUT, log.layout.read_bytes())


def only_begun(folder: Path) -> bool:
    """Whether all that a folder holds is what `save_inputs` writes before data.json, from which on there is something to go on with."""
    first = ("config.json", "card.json")
    return all(
        path.name in {*first, *(aside_of(folder / name).name for name in (*first, "data.json"))} for path in folder.iterdir()
    )


def save_policy(folder: Path, net: PolicyNet) -> None:
    """Writes the policy's weights."""
    if isinstance(net.backbone, HuggingFaceBackbone):
        write_json(folder / BACKBONE, net.backbone.architecture)
    write_tensors(folder / POLICY, dict(net.state_dict()))  # last: whoever resumes takes it for the end of these stages


def save_renewed(folder: Path, net: PolicyNet) -> None:
    """Writes the weights of the supervised policy that was fitted on."""
    write_tensors(folder / RENEWED, dict(net.state_dict()))


def save_tuned(folder: Path, weights: dict[str, torch.Tensor], likeness: Likeness) -> None:
    """Writes the weights that reinforcement learning changed, with what page evidence compares items by."""
    codes = np.stack([likeness.groups, likeness.themes, likeness.brands])
    facts = {"likeness.titles": torch.from_numpy(likeness.titles), "likeness.codes": torch.from_numpy(codes)}
    write_tensors(folder / PPO, {f"net.{name}": value for name, value in weights.items()} | facts)


def finish(folder: Path) -> None:
    """Writes the manifest, last of all: from here on the run is finished."""
    optional = [name for name in OPTIONAL if (folder / name).exists()]
    write_manifest(folder, [*FILES, *optional])


def load_run(folder: Path | str) -> Run:
    """A finished run. Raises RunError where it is missing, unfinished, damaged or of another version's making."""
    folder = Path(folder)
    check_manifest(folder, FILES, OPTIONAL)
    return open_run(folder)


def open_run(folder: Path) -> Run:
    """A run whose policy is trained, finished or not. Raises RunError where files are missing or do not fit."""
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
    facts = read_json(folder / "data.json")
    reads_pages = IMPRESSIONS in facts.get("evidence", ())  # runs from before there was such evidence name no groups
    evidence = make_evidence(catalog, split, content, config, shown if reads_pages else None)
    net = _net_of(folder, config, content, len(evidence.names)).to(device_for(config))
    _load_weights(folder / POLICY, net)
    renewed = None
    if (folder / RENEWED).exists():
        renewed = copy.deepcopy(net)
        _load_weights(folder / RENEWED, renewed)
    tuned = _tuned(folder, renewed or net, content, config)
    return Run(folder, config, facts, catalog, split, content, evidence, net, shown, tuned, renewed)


def _load_weights(path: Path, net: PolicyNet) -> None:
    """Puts all weights of a file into a network that is done with training."""
    weights, _ = read_tensors(path)
    try:
        net.load_state_dict(weights)
    except RuntimeError as problem:  # names and shapes that are missing, left over or other
        raise RunError(
            f"The weights of {path} do not fit the run's configuration in this version of pagellm. Train it again. ({problem})"
        ) from problem
    net.eval()


def _tuned(folder: Path, net: PolicyNet, content: F32, config: RunConfig) -> PolicyNet | None:
    """The network after reinforcement learning, None where the run has not learned one."""
    if not (folder / PPO).exists():
        return None
    tensors, _ = read_tensors(folder / PPO)
    tuned = copy.deepcopy(net)
    known = dict(tuned.named_parameters())
    try:
        with torch.no_grad():
            for name in (n for n in tensors if n.startswith("net.")):
                known[name.removeprefix("net.")].copy_(tensors[name])
        groups, themes, brands = tensors["likeness.codes"].numpy()
        titles = tensors["likeness.titles"].numpy()
    except (KeyError, RuntimeError, ValueError) as problem:
        raise RunError(
            f"The file {folder / PPO} does not fit the run's policy ({problem!r}). Train the stage ppo again."
        ) from problem
    if len(titles) != len(content) or len(groups) != len(content):
        raise RunError(f"The file {folder / PPO} is of another catalog. Train the stage ppo again.")
    tuned.page_evidence.attach(Likeness(content, titles, groups, themes, brands, config.pairs.alike))
    return tuned.eval()


def run_layout(run: Run, slots: int) -> Layout:
    """The shop's own layout where the run has one, else one row of `slots`."""
    path = run.folder / LAYOUT
    return Layout.load(path) if path.exists() else Layout.single_row(slots)


def make_run_split(log: Interactions, n_items: int, config: RunConfig) -> Split:
    """The split that a configuration asks for."""
    cuts = (config.split.valid_at, config.split.test_at)
    return make_split(log, n_items, config.split.protocol, cuts=cuts)


@dataclass(frozen=True)
class Schedule:
    """Which part of time each supervised stage learns from, and where rewards and reinforcement learning begin."""

    first: Bool | None  # [event] what the language model reads before the evidence head is fitted; None where it has read already
    head: Contexts  # what the evidence head learns from: later than `first`
    refresh: Bool  # [event] what the language model reads in the end
    rewards: (
        tuple[int, int] | None
    )  # unix seconds, [begin, end), of the feedback that rewards learn from; None where they learn from none


def make_schedule(split: Split, config: RunConfig) -> Schedule:
    """All that precedes the test for the policy alone; where rewards are learned too, the policy stops at `split.reward_at`.

    Raises UsageError where rewards cannot be learned later than the policy.
    """
    log, cuts = split.log, config.split
    if not cuts.reward_at:
        every = np.ones(len(log), bool)
        return Schedule(
            split.fit_until_valid, split.between_cuts(), every if config.sft.refresh == "end" else split.fit_until_test, None
        )
    begin = _head_begin(config)
    if not split.point_in_time:
        raise UsageError(
            f"Rewards learn from later feedback than the policy, and the split {split.protocol} has no later. Use temporal."
        )
    if not 0 < begin < cuts.reward_at < cuts.valid_at:
        raise UsageError(
            "The cuts must satisfy test_at - valid_at < reward_at < valid_at, because the evidence head learns from a window before "
            f"reward_at that is as long as the one between valid_at and test_at. Got split.reward_at={cuts.reward_at:g}, "
            f"valid_at={cuts.valid_at:g}, test_at={cuts.test_at:g}."
        )
    if config.sft.refresh == "end":
        raise UsageError(
            "With sft.refresh=end the policy knows all answers, so no reward can be learned beside it. Use test or off."
        )
    first, last = cut_time(log, begin), cut_time(log, cuts.reward_at)
    contexts = contexts_between(log, first, last)
    return Schedule(log.time < first, contexts.take(contexts.warm), log.time < last, (last, cut_time(log, cuts.valid_at)))


def renewal_schedule(split: Split, config: RunConfig) -> Schedule:
    """All since rewards began, up to the test or the end: the head learns from it under a language model that has not read it."""
    log, cuts = split.log, config.split
    end = cut_time(log, cuts.test_at) if config.sft.renew == "test" else int(log.time.max(initial=0)) + 1
    contexts = contexts_between(log, cut_time(log, cuts.reward_at), end)
    return Schedule(None, contexts.take(contexts.warm), log.time < end, None)


def make_evidence(catalog: Catalog, split: Split, content: F32, config: RunConfig, shown: Impressions | None = None) -> Evidence:
    """Evidence over the split's log: every event under a split in time, else only what may be fitted before validation.

    `shown` are the log's pages. They are read under a split in time alone, because nothing else says which of them are past. Where people
    look is learned from those that precede all contexts that the evidence head learns from.
    """
    if not split.point_in_time:
        return build_evidence(catalog, split.log, content, split.fit_until_valid, config.candidates.drop)
    clicks = None
    if shown is not None:
        before = cut_time(split.log, _head_begin(config)) if config.split.reward_at else int(str(split.card["valid_cut"]))
        clicks = count_clicks(shown, split.log.user_ids, len(catalog), before)
    return build_evidence(catalog, split.log, content, None, config.candidates.drop, clicks)


def evidence_groups(log: Log, split: Split, config: RunConfig) -> tuple[str, ...]:
    """Groups of evidence that a run on this log reads: its networks have columns for these."""
    reads_pages = config.candidates.impressions and log.impressions is not None and split.point_in_time
    return tuple(group for group in GROUPS if group != IMPRESSIONS or reads_pages)


def make_net(config: RunConfig, content: F32, catalog: Catalog, columns: int = len(NAMES)) -> PolicyNet:
    """A fresh policy network for this configuration and so many columns of evidence: weights drawn from the seed, or a Hugging Face
    model's own."""
    torch.manual_seed(config.seed)
    if config.model.backbone == "small":
        net = PolicyNet(config.model, content, columns, blind="policy" in config.candidates.drop)
    else:
        net = pretrained_policy(config, content, columns, catalog)
    return net.to(device_for(config))


def _head_begin(config: RunConfig) -> float:
    """Share of the events before those that the evidence head learns from, where the policy stops at `split.reward_at`."""
    return config.split.reward_at - (config.split.test_at - config.split.valid_at)


def _net_of(folder: Path, config: RunConfig, content: F32, columns: int) -> PolicyNet:
    """The network of a finished run, its weights still to be loaded. Needs no other folder."""
    if config.model.backbone == "small":
        return PolicyNet(config.model, content, columns, blind="policy" in config.candidates.drop)
    return stored_policy(config, content, columns, read_architecture(folder / BACKBONE))
