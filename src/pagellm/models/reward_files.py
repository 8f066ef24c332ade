"""Rewards in a run folder: reward.safetensors and reward.json, written and read back. Knows nothing of how rewards are learned."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagellm.data.look import Look
from pagellm.errors import RunError
from pagellm.models.device import device_of
from pagellm.models.multi_grained import MultiGrainedReward, RewardModel, Whitening
from pagellm.models.page_inputs import PageReader
from pagellm.models.reward import RewardNet
from pagellm.models.run import POLICY, REWARD, REWARD_FACTS, Run
from pagellm.models.storage import read_json, read_tensors, sha256, write_json, write_tensors


@dataclass(frozen=True)
class RewardFacts:
    """What is known of rewards beside their weights."""

    look: Look
    pairs: dict[str, int]  # family -> pairs that they learned from
    effective: dict[str, float]  # family -> effective sample size of those pairs' weights
    examination: str  # in words
    page: tuple[float, float, float, float]  # fields of `Whitening` of the page reward on the pages that they learned from
    item: tuple[float, float, float, float]  # of the sum of the item rewards
    made_with: dict[str, str]  # see `made_with`


def made_with(run: Run) -> dict[str, str]:
    """What rewards of a run read pages with: hashes of its catalog's item ids, in order, and of its policy's weights."""
    items = hashlib.sha256("\n".join(run.catalog.item_ids.tolist()).encode())
    return {"catalog": items.hexdigest(), "policy": sha256(run.folder / POLICY)}


def write_rewards(folder: Path, net: RewardNet, facts: RewardFacts) -> None:
    """Saves both files, each whole or not at all."""
    write_json(
        folder / REWARD_FACTS,
        {
            "look": facts.look.as_json(),
            "pairs": facts.pairs,
            "effective": {name: round(size, 1) for name, size in facts.effective.items()},
            "examination": facts.examination,
            "page": facts.page,
            "item": facts.item,
            "made_with": facts.made_with,
        },
    )
    write_tensors(folder / REWARD, dict(net.state_dict()))


def read_rewards(folder: Path, net: RewardNet) -> RewardFacts:
    """Puts the saved weights into `net`. Raises RunError where there are none or they do not fit."""
    if not (folder / REWARD).exists():
        raise RunError(
            f"The run {folder} has learned no rewards. Train one that has: pagellm train DATA --run NEW_RUN --until reward"
        )
    weights, saved = read_tensors(folder / REWARD)[0], read_json(folder / REWARD_FACTS)
    try:
        net.load_state_dict(weights)
        return _facts(saved)
    except (RuntimeError, KeyError, TypeError, ValueError) as problem:
        raise RunError(f"The rewards of {folder} do not fit this version of pagellm. Train it again. ({problem})") from problem


def _four(saved: list[Any]) -> tuple[float, float, float, float]:
    count, mean, squares, freedom = (float(value) for value in saved)
    return count, mean, squares, freedom


def _facts(saved: dict[str, Any]) -> RewardFacts:
    return RewardFacts(
        Look.from_json(saved["look"]),
        {str(k): int(v) for k, v in saved["pairs"].items()},
        {str(k): float(v) for k, v in saved["effective"].items()},
        str(saved["examination"]),
        _four(saved["page"]),
        _four(saved["item"]),
        {str(k): str(v) for k, v in saved["made_with"].items()},
    )


def load_rewards(run: Run) -> tuple[MultiGrainedReward, RewardFacts]:
    """The rewards of a run, whitened as on the pages that they learned from.

    Raises RunError where the run has learned none, or where they were learned with another catalog or another policy.
    """
    config = run.config
    reader = PageReader(run.net, run.evidence, run.likeness, run.catalog.shown, config.model.max_history)
    net = RewardNet(config.reward, config.split.repeats, len(reader.columns)).to(device_of(run.net))
    facts = read_rewards(run.folder, net)
    for name, digest in made_with(run).items():
        if facts.made_with.get(name) != digest:
            raise RunError(
                f"The rewards of {run.folder} were learned with another {name} than the run has "
                f"({digest[:12]}…, theirs {facts.made_with.get(name, 'unknown')[:12]}…). Rewards read pages with the eyes of their run: "
                "learn them again from its policy."
            )
    model = RewardModel(net.eval(), reader, facts.look, config.reward)
    return MultiGrainedReward(model, Whitening(*facts.page), Whitening(*facts.item)), facts
