"""A small, budgeted search for a baseline's settings on validation contexts. Takes a split, a grid and a score; knows no method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pagellm.data.splits import Split
from pagellm.errors import UsageError
from pagellm.evaluation.metrics import accuracy
from pagellm.evaluation.protocol import Ranker
from pagellm.types import Bool, Contexts

Settings = dict[str, float]

BUDGET = 16
"""Settings that a walk through a grid may try."""

_CONTEXTS = 4_000

DECAYS = (0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0)
"""How fast a history may fade, per basket back; 1 never."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

    settings: Settings
    score: float


@dataclass(frozen=True)
class Search:
    """What was tried, in order, and what won."""

    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest score, the earliest among equals."""
        return max(self.trials, key=lambda t: t.score)


def tuning_contexts(split: Split) -> Contexts:
    """What every search is judged on: the warm contexts of the valid part, at most 4,000 spread evenly over its users.

    Raises UsageError where there is none.
    """
    warm = split.valid.warm & (split.valid.target_stop > split.valid.stop)
    if not warm.any():
        raise UsageError("The split has no warm valid context to tune a baseline on. Use a log with more users or more time.")
    return spread(split.valid, warm)


def spread(contexts: Contexts, kept: Bool) -> Contexts:
    """The contexts at which `kept` [context] holds, at most 4,000 of them, spread evenly."""
    some = np.flatnonzero(kept)
    return contexts.take(some[np.linspace(0, len(some) - 1, min(len(some), _CONTEXTS)).astype(np.int64)])


def validation_score(ranker: Ranker, contexts: Contexts) -> float:
    """Mean of NDCG@10 and NDCG@100, so that one setting serves the short and the long cut-off."""
    values = accuracy(ranker.rank(contexts, 100), contexts, (10, 100))
    return float((values["ndcg@10"] + values["ndcg@100"]).mean() / 2)


def sweep(grid: Mapping[str, Sequence[float]], score: Callable[[Settings], float]) -> Search:
    """Tries every combination, the last setting changing fastest."""
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return Search(tuple(Trial(s, score(s)) for s in settings))


def climb(grid: Mapping[str, Sequence[float]], score: Callable[[Settings], float], budget: int = BUDGET) -> Search:
    """Walks the grid from its middle: along one setting after the other to the better neighbor, until none is better.

    Each setting's values must be sorted. At most `budget` settings are tried, each once.
    """
    at = {name: len(values) // 2 for name, values in grid.items()}
    seen: dict[tuple[int, ...], Trial] = {}

    def try_at(places: Mapping[str, int]) -> float:
        key = tuple(places.values())
        if key not in seen:
            if len(seen) == budget:
                return -math.inf
            settings = {name: grid[name][p] for name, p in places.items()}
            seen[key] = Trial(settings, score(settings))
        return seen[key].score

    best, before = try_at(at), -math.inf
    while best > before:
        before = best
        for name in grid:
            best = max(best, _climb_along(name, len(grid[name]), at, best, try_at))
    return Search(tuple(seen.values()))


def _climb_along(name: str, length: int, at: dict[str, int], best: float, try_at: Callable[[Mapping[str, int]], float]) -> float:
    """Moves `at[name]` up, then down, while the score rises; returns the best score."""
    for step in (1, -1):
        while 0 <= at[name] + step < length and (found := try_at({**at, name: at[name] + step})) > best:
            at[name] += step
            best = found
    return best
