"""What an ablation compares: arms by name, as data.

An arm is a way of learning, what it learns from, and the settings in which it differs from the run's. Arms come in groups, so that a
part of the matrix can be run: the claim needs `controls` and `claim`, the rest asks why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pagellm.errors import UsageError

BUDGET = ("ppo.iterations=24", "ppo.kl_target=5", "ppo.kl_gain=2")
"""Arms are compared at one distance from the reference: the price of a nat is steered to 5 nats a page, fast."""

FARTHEST = 6.0
"""Nats a page beyond which a policy is not taken: an arm is the last of its policies within this."""

MIXES = {"joint": (), "page": ("reward.alpha=1",), "item": ("reward.alpha=0",)}
"""Which of the two rewards drives an arm: `alpha` is the share of the page reward."""

GROUPS = ("controls", "claim", "methods", "families", "alpha", "learn", "noise")


@dataclass(frozen=True)
class Arm:
    """One thing that is learned and judged."""

    name: str  # unique, a plain file name
    group: str
    method: str  # ppo, grpo, rloo, rejection, dpo, best-of-n
    reward: str  # joint, page, item
    setting: str  # in which it differs from its siblings, in words; empty for none
    settings: tuple[str, ...] = ()  # as `--set` takes them
    noise: float = 0.0  # share of the preference pairs whose sides are exchanged before the rewards learn from them


def learned_arms(groups: Iterable[str]) -> list[Arm]:
    """The arms of these groups, in the order in which they are run. Raises UsageError for an unknown group."""
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise UsageError(f"The group {unknown[0]!r} is not known. Groups: {', '.join(GROUPS)}.")
    return [arm for arm in _every() if arm.group in set(groups)]


def _every() -> Iterable[Arm]:
    for weight in (3, 1, 8):
        for reward in ("joint", "page"):
            told = f"redundancy={weight}"
            changes = (f"reward.redundancy={weight}", "ppo.learn=evidence")
            yield _ppo(f"ppo-{reward}-r{weight}", "claim", reward, told, *changes)
    yield _ppo("ppo-item", "claim", "item", "", "ppo.learn=evidence")
    yield _repetition("ppo-joint-rep-r3", "joint", 3)
    for price in (1, 1.25, 1.5, 3):
        yield _repetition(f"ppo-joint-rep-r{price:g}-d0", "joint", price, diversity=0)
    yield _repetition("ppo-page-rep-r3", "page", 3)
    yield _repetition("ppo-page-rep-r3-d0", "page", 3, diversity=0)
    yield _repetition("ppo-item-rep", "item", 3)
    for method in ("grpo", "rloo", "rejection", "best-of-n", "dpo"):
        for reward, mix in MIXES.items():
            way = (f"ppo.algorithm={method}",) if method in ("grpo", "rloo") else ()
            yield Arm(f"{method}-{reward}", "methods", method, reward, "", (*BUDGET, *mix, *way))
    for family in ("relevance", "ranking", "diversity", "redundancy"):
        yield _ppo(f"ppo-joint-no-{family}", "families", "joint", f"without {family}", f"reward.{family}=0")
    for share in (0.25, 0.75):
        yield _ppo(f"ppo-joint-a{share:g}", "alpha", "joint", f"alpha={share:g}", f"reward.alpha={share:g}")
    for part in ("page", "all"):
        yield _ppo(f"ppo-joint-{part}", "learn", "joint", f"learn={part}", f"ppo.learn={part}")
    yield _ppo("ppo-joint-verifiable", "learn", "joint", "and what users did next", "ppo.verifiable=1")
    yield _ppo("ppo-joint-last", "learn", "joint", "page reward at the last slot", "ppo.stepwise=false")
    for share in (0.1, 0.25, 0.4):
        yield Arm(f"ppo-joint-noise{share:g}", "noise", "ppo", "joint", f"{share:.0%} of pairs exchanged", BUDGET, share)


def _ppo(name: str, group: str, reward: str, setting: str, *changes: str) -> Arm:
    return Arm(name, group, "ppo", reward, setting, (*BUDGET, *MIXES[reward], *changes))


def _repetition(name: str, reward: str, redundancy: float, diversity: int = 1) -> Arm:
    """An arm that learns repetition alone; without diversity it has no reason to avoid what is merely alike."""
    weights = (f"redundancy={redundancy:g}", f"diversity={diversity}")
    settings = ("ppo.learn=repetition", *(f"reward.{weight}" for weight in weights))
    return _ppo(name, "claim", reward, ", ".join(("learn=repetition", *weights)), *settings)


@dataclass(frozen=True)
class Dial:
    """A re-ranker with one dial, over its whole range: what needs no learning."""

    name: str  # mmr, dpp, price
    letter: str
    values: tuple[float, ...]  # from the ranker's own order to pages that repeat nothing


DIALS = (
    Dial("mmr", "λ", (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)),
    Dial("dpp", "θ", (8.0, 4.0, 2.0, 1.4, 1.0, 0.8, 0.6, 0.4)),
    Dial("price", "price", (0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.5)),
)
