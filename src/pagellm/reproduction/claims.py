"""What the ablation is for: each claim with the figures that decide it. Settings are chosen on the window of choices, figures are of the
test.

    kept      of the joint arms with at most half the near-duplicates of the best supervised control, the most accurate one loses less
              than 1 % of that control's NDCG, by the lower end of the paired interval
    frontier  a joint arm lies above what a re-ranker of the same policy reaches with as many near-duplicates
    rewards   the joint arm lies above the arms of either reward alone, at one distance from the reference
    truth     in a simulated shop: joint is worth more than page only, than item only, than the supervised policy (Holm's correction)
    paper     the figures that the paper's abstract has, for the same comparisons here; no claim rests on them

Takes points, gives findings. Knows no training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pagellm.evaluation.significance import holm, interval, ratio_interval, resampled_means, sign_flip_p
from pagellm.reproduction.supervised import CONTROLS
from pagellm.reproduction.tables import Point, Points
from pagellm.types import F64

LOSS = 0.99
"""Share of the best supervised control's accuracy that has to be kept."""

REPEATED = "near_duplicates@10"
ACCURATE = ("ndcg@10", "ndcg@100")
LEVELS = {REPEATED: "as many near-duplicates", "ild@10": "equal distance within pages"}
"""Figures of repetition and variety at which a learned arm and a re-ranker are compared."""

RERANKED = {"start": ("start",), "head": ("head",), "both": ("both",), "refreshed": ("refreshed", "both")}
"""Base of a learned arm -> supervised policies whose re-rankers it is compared with: its own, and on the language model of later labels
also the one whose head has them, too."""

_PLAIN = (("ppo-joint-r3", "ppo-page-r3", "ppo-item"), ("ppo-joint-rep-r3", "ppo-page-rep-r3", "ppo-item-rep"))
_RERANKERS = ("mmr", "dpp", "price")


@dataclass(frozen=True)
class Finding:
    """One comparison. `holds` is None where it is shown and no claim rests on it."""

    dataset: str
    claim: str
    what: str
    metric: str
    value: float  # ratio of means, or difference for the truth
    low: float
    high: float
    p: float | None
    holds: bool | None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def findings(points: Points) -> list[Finding]:
    """Every claim of every data set."""
    out: list[Finding] = []
    for dataset in points.datasets:
        some = points.of_dataset(dataset)
        out += kept(dataset, some)
        for base, rankers in RERANKED.items():
            for ranker in rankers:
                out += above_rerankers(dataset, some, base, ranker)
        out += above_single_rewards(dataset, some)
        out += true_value(dataset, some)
        out += as_the_paper(dataset, some)
    return out


def best_control(points: Sequence[Point]) -> Point | None:
    """The supervised policy of highest NDCG@10 on the choices."""
    controls = [p for p in points if p.method == "sft" and p.base in CONTROLS]
    return max(controls, key=lambda p: p.mean("choices", "ndcg@10"), default=None)


def kept(dataset: str, points: Sequence[Point]) -> Iterator[Finding]:
    """Accuracy of the joint arm that halves the near-duplicates, against the best supervised control."""
    control = best_control(points)
    if control is None:
        return
    most = control.mean("choices", REPEATED) / 2
    fit = [p for p in points if p.method == "ppo" and p.reward == "joint" and p.mean("choices", REPEATED) <= most]
    chosen = max(fit, key=lambda p: p.mean("choices", "ndcg@10"), default=None)
    if chosen is None:
        return
    what = f"{chosen.arm} on {chosen.base} against sft on {control.base}"
    for metric in (m for m in (*ACCURATE, REPEATED) if control.mean("test", m) > 0):
        value, low, high = ratio(chosen.users("test", metric), control.users("test", metric))
        holds = value <= 0.5 if metric == REPEATED else low >= LOSS
        yield Finding(dataset, "kept", what, metric, value, low, high, None, holds)


def above_rerankers(dataset: str, points: Sequence[Point], base: str, ranker: str) -> Iterator[Finding]:
    """Joint arms on a base against each re-ranker of a supervised policy, mixed so that both repeat, or vary, alike on the test."""
    for point in points:
        if point.method != "ppo" or point.reward != "joint" or point.base != base:
            continue
        for method in _RERANKERS:
            dial = [p for p in points if p.method == method and p.base == ranker]
            dial += [p for p in points if p.method == "sft" and p.base == ranker]
            for level, words in LEVELS.items():
                mixed = at_level(dial, level, point.mean("test", level))
                if mixed is None or not mixed.any():
                    continue
                value, low, high = ratio(point.users("test", "ndcg@10"), mixed)
                what = f"{point.arm} on {base} against {method} on {ranker} at {words}"
                yield Finding(
                    dataset, "frontier", what, "ndcg@10", value, low, high, None, low > 1 if method != "price" else None
                )


def at_level(dial: Sequence[Point], figure: str, level: float) -> F64 | None:
    """[user] NDCG@10 of a coin between the two neighbours on a dial whose mean figure on the test is `level`; None beyond its range."""
    order = sorted(dial, key=lambda p: p.mean("test", figure))
    for less, more in pairwise(order):
        low, high = less.mean("test", figure), more.mean("test", figure)
        if low <= level <= high:
            share = (level - low) / (high - low) if high > low else 0.5
            return np.asarray((1 - share) * less.users("test", "ndcg@10") + share * more.users("test", "ndcg@10"))
    return None


def above_single_rewards(dataset: str, points: Sequence[Point]) -> Iterator[Finding]:
    """The joint arms against the page and the item reward alone, on the bases where all were judged."""
    for base in RERANKED:
        for single in (p for p in points if p.method == "ppo" and p.reward in ("page", "item") and p.base == base):
            joint = [p for p in points if p.method == "ppo" and p.reward == "joint" and p.base == base and p.kind == single.kind]
            if joint:
                mixed = at_level(joint, REPEATED, single.mean("test", REPEATED))
                nearest = min(joint, key=lambda p: abs(p.mean("test", REPEATED) - single.mean("test", REPEATED)))
                if not single.users("test", "ndcg@10").any():
                    continue
                told = (
                    "the joint arms at as many near-duplicates" if mixed is not None else f"{nearest.arm}, the nearest joint arm"
                )
                ours = nearest.users("test", "ndcg@10") if mixed is None else mixed
                value, low, high = ratio(ours, single.users("test", "ndcg@10"))
                yield Finding(
                    dataset, "rewards", f"{told} against {single.arm} on {base}", "ndcg@10", value, low, high, None, low > 1
                )


def as_the_paper(dataset: str, points: Sequence[Point]) -> Iterator[Finding]:
    """NDCG@100 of pages without either reward beside both, and of both beside none, at the weights that runs have."""
    arms = {p.arm: p for p in points if p.base == "start"}
    joint, page, item = (arms.get(name) for name in _PLAIN[0])
    for key, one, other in (
        ("without the page reward", item, joint),
        ("without the item reward", page, joint),
        ("both rewards", joint, arms.get("sft.start")),
    ):
        if one and other and other.mean("test", "ndcg@100") > 0:
            ends = ratio(one.users("test", "ndcg@100"), other.users("test", "ndcg@100"))
            yield Finding(dataset, "paper", f"{key}: {one.arm} against {other.arm}", "ndcg@100", *ends, None, None)


def true_value(dataset: str, points: Sequence[Point]) -> Iterator[Finding]:
    """Differences of true expected clicks a page, with p-values after Holm's correction (Holm 1979).

    Arms have the weights that runs have: nothing is chosen, so nothing can be chosen by the truth.
    """
    arms = {p.arm: p for p in points if p.base == "start" and p.has("test", "true_clicks")}
    pairs: list[tuple[Point, Point]] = []
    for names in _PLAIN:
        joint, page, item, sft = (arms.get(name) for name in (*names, "sft.start"))
        pairs += [(a, b) for a, b in ((joint, page), (joint, item), (page, sft), (item, sft), (joint, sft)) if a and b]
    gaps = [a.users("test", "true_clicks") - b.users("test", "true_clicks") for a, b in pairs]
    corrected = holm([float(sign_flip_p(gap[:, None])[0]) for gap in gaps])
    for (a, b), gap, p in zip(pairs, gaps, corrected, strict=True):
        low, high = interval(resampled_means(gap[:, None]))[:, 0]
        value, what = float(gap.mean()), f"{a.arm} less {b.arm}"
        yield Finding(dataset, "truth", what, "true_clicks", value, float(low), float(high), p, value > 0 and p < 0.01)


def ratio(ours: F64, theirs: F64) -> tuple[float, float, float]:
    """Ratio of two means over the same users, with its 95 % interval."""
    draws = resampled_means(np.stack([ours, theirs], 1))
    low, high = ratio_interval(draws[:, :1], draws[:, 1:])[:, 0]
    return float(ours.mean() / theirs.mean()), float(low), float(high)
