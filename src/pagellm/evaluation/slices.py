"""Who gains and who loses: one method over another within groups of users. Takes results and contexts, gives ratios with intervals.

Groups are made from what was known before the page: how much history, how long ago, the theme of what was taken last. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pagellm.evaluation.results import Estimate, Results
from pagellm.evaluation.significance import ratio_interval, resampled_means
from pagellm.types import DAY, F64, I32, Bool, Contexts

LEAST_USERS = 200
"""Smaller groups are left out: their intervals hold anything."""

MOST_THEMES = 8
"""Themes that have a group of their own, the most frequent ones."""

_LENGTHS = (1, 5, 10, 20)
_DAYS = (0, 7, 30, 90)


@dataclass(frozen=True)
class Slice:
    """One group of users."""

    kind: str  # what the users are grouped by
    name: str
    users: int
    subject: float  # mean of the metric
    reference: float
    ratio: Estimate | None  # subject over reference; None where the reference can be 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        ratio = None if self.ratio is None else {"ratio": self.ratio.value, "ci95": [self.ratio.low, self.ratio.high]}
        return {
            "kind": self.kind, "name": self.name, "users": self.users, "subject": self.subject, "reference": self.reference, "ratio": ratio,
        }  # fmt: skip


def groups_of(contexts: Contexts, theme: I32, theme_names: Sequence[str]) -> dict[str, dict[str, Bool]]:
    """Users by kind and name: [context] whether the context's user belongs to the group.

    `theme` [item] is the code of each item's theme, -1 where unknown, `theme_names` their names. Contexts without history belong to none.
    """
    length = contexts.stop - contexts.start
    has = length > 0
    last = np.where(has, contexts.stop - 1, 0)
    idle = np.where(has, (contexts.time - contexts.log.time[last]) / DAY, 0) if len(contexts.log) else np.zeros(len(contexts))
    mine = np.where(has, theme[contexts.log.item[last]], -1) if len(contexts.log) else np.full(len(contexts), -1)
    counts = np.bincount(mine[mine >= 0], minlength=len(theme_names))
    largest = [int(code) for code in np.argsort(-counts, kind="stable")[:MOST_THEMES] if counts[code]]
    return {
        "events before the page": {name: has & within for name, within in _ranges(length, _LENGTHS, "events")},
        "days since the last event": {name: has & within for name, within in _ranges(idle, _DAYS, "days")},
        "theme of the last item": {str(theme_names[code]): mine == code for code in largest},
    }


def slices(
    results: Results, groups: Mapping[str, Mapping[str, Bool]], subject: str, reference: str, metric: str, seed: int = 0
) -> list[Slice]:
    """The groups of at least `LEAST_USERS`, worst ratio first; those without a ratio last. `groups` are over the users of the results.

    Intervals are percentile bootstrap over the users of the group, subject and reference on the same draws.
    """
    ours, theirs = (results.column(name, metric) for name in (subject, reference))
    found = [
        _slice(kind, name, ours[some], theirs[some], seed)
        for kind, parts in groups.items()
        for name, some in parts.items()
        if some.sum() >= LEAST_USERS
    ]
    return sorted(found, key=lambda s: (s.ratio is None, 0.0 if s.ratio is None else s.ratio.value))


def _slice(kind: str, name: str, ours: F64, theirs: F64, seed: int) -> Slice:
    draws = resampled_means(np.stack([ours, theirs], 1), seed=seed)
    low, high = ratio_interval(draws[:, :1], draws[:, 1:])[:, 0]
    known = bool(np.isfinite([low, high]).all()) and theirs.mean() > 0
    ratio = Estimate(float(ours.mean() / theirs.mean()), float(low), float(high)) if known else None
    return Slice(kind, name, len(ours), float(ours.mean()), float(theirs.mean()), ratio)


def _ranges(values: np.ndarray, bounds: Sequence[int], unit: str) -> Iterator[tuple[str, Bool]]:
    """[low, next low) by name, the last without an end."""
    for low, high in pairwise(bounds):
        yield f"{low} to less than {high} {unit}", (values >= low) & (values < high)
    yield f"{bounds[-1]} {unit} or more", values >= bounds[-1]
