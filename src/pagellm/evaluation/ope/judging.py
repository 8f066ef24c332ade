"""All estimators on one log: a figure with intervals, or why there is none. Takes `Logged`; knows no file, no run and no command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pagellm.evaluation.ope.diagnostics import Overlap, Refusal, effective_sample_size, log_refusal, overlap, weight_refusal
from pagellm.evaluation.ope.estimators import (
    cascade_dr,
    combined,
    doubly_robust,
    iips,
    ips,
    page_weights,
    prefix_weights,
    pseudo_inverse,
    rips,
    slot_weights,
    sniips,
    snips,
)
from pagellm.evaluation.ope.intervals import (
    Interval,
    bootstrap,
    bootstrap_interval,
    empirical_bernstein,
    normal,
    unit_values,
)
from pagellm.evaluation.ope.records import ARRAYS, Logged, Predicted, Terms
from pagellm.evaluation.significance import RESAMPLES
from pagellm.types import F64

CLIPS = (10.0, 100.0, 1000.0)
"""Largest weights at which estimates are shown once more: clipping trades spread for a bias towards less (Ionides 2008)."""


@dataclass(frozen=True)
class Method:
    """An estimator with the weights that it reads."""

    name: str
    assumes: str
    level: str  # what its weights are of: "page", "slot" or "prefix"
    estimate: Callable[[Logged, F64], Terms]
    models: bool = False  # whether it needs a reward model
    whole: bool = True  # whether it needs whole pages


def _predicted(logged: Logged) -> Predicted:
    assert logged.predicted is not None  # `judge` has looked
    return logged.predicted


def _dr(logged: Logged, weights: F64) -> Terms:
    p = _predicted(logged)
    return doubly_robust(logged.rewards.sum(1), weights[:, 0], p.chosen.sum(1), p.alone.sum(1))


METHODS = (
    Method("ips", "nothing of how people read", "page", lambda g, w: ips(g.rewards.sum(1), w[:, 0]), whole=False),
    Method("snips", "nothing of how people read", "page", lambda g, w: snips(g.rewards.sum(1), w[:, 0]), whole=False),
    Method("iips", "slots earn alone", "slot", lambda g, w: iips(g.rewards, w, g.real, g.whole), whole=False),
    Method("sniips", "slots earn alone", "slot", lambda g, w: sniips(g.rewards, w, g.real, g.whole), whole=False),
    Method("pi", "a page earns a sum over slots", "slot", lambda g, w: pseudo_inverse(g.rewards.sum(1), w, g.due)),
    Method("rips", "people read downwards", "prefix", lambda g, w: rips(g.rewards, w)),
    Method(
        "cascade-dr", "people read downwards", "prefix", lambda g, w: cascade_dr(g.rewards, w, *_predicted(g).to_go), models=True
    ),
    Method("dr", "nothing of how people read", "page", _dr, models=True, whole=False),
)
"""All estimators, in the order in which they are shown."""


@dataclass(frozen=True)
class Figure:
    """One estimate, or why there is none."""

    name: str
    assumes: str
    pages: int  # rows that were read: pages, or single slots
    users: int
    overlap: Overlap | None  # None where the log itself forbids
    refusal: Refusal | None
    value: float | None = None  # reward a page; None where refused
    bootstrap: Interval | None = None
    bernstein: Interval | None = None
    normal: Interval | None = None
    logged: float | None = None  # what the logging policy earned on the same rows
    gain: Interval | None = None  # bootstrap interval of value - logged, on the same draws of users
    clipped: tuple[tuple[float, float], ...] = ()  # (largest weight allowed, the estimate then)

    def as_json(self) -> dict[str, Any]:
        """A number stands here only where it is meant."""
        head = {"assumes": self.assumes, "n": self.pages, "users": self.users}
        weights = {} if self.overlap is None else self.overlap.as_json()
        if self.refusal is not None:
            return {**head, **weights, "value": None, "refused": {"code": self.refusal.code, "verdict": self.refusal.verdict}}
        ends = {
            "bootstrap95": self.bootstrap,
            "empirical_bernstein95": self.bernstein,
            "normal95": self.normal,
            "gain95": self.gain,
        }
        return {
            **head,
            **weights,
            "value": self.value,
            "logged": self.logged,
            **{name: end.as_json() for name, end in ends.items() if end is not None},
            "clipped": {f"{cap:g}": value for cap, value in self.clipped},
        }


@dataclass(frozen=True)
class Judgement:
    """Every estimator's figure, and each slot's own by slot-wise weights."""

    figures: tuple[Figure, ...]
    slots: tuple[Figure, ...]  # iips of each slot alone
    judged: int  # leading slots that RIPS could be asked for (`--slots`), 0 where none

    @property
    def answered(self) -> bool:
        """Whether any figure, a single slot's among them, could be given."""
        return any(figure.refusal is None for figure in (*self.figures, *self.slots))

    def as_json(self) -> dict[str, Any]:
        """estimators and slots by name."""
        return {
            "estimators": {figure.name: figure.as_json() for figure in self.figures},
            "slots": {figure.name: figure.as_json() for figure in self.slots},
        }


@dataclass(frozen=True, eq=False)
class _Question:
    """One method on one log."""

    method: Method
    logged: Logged
    weights: F64  # [page, column]; empty where the log forbids them
    overlap: Overlap | None
    refusal: Refusal | None


def judge(logged: Logged, seed: int = 0, resamples: int = RESAMPLES, by_slot: bool = True) -> Judgement:
    """Asks every estimator, and slot by slot unless told not to. One set of draws of users serves all estimators, so their differences
    are paired."""
    forbidden = log_refusal(logged)
    figures = _figures([_ask(method, logged, forbidden) for method in METHODS], seed, resamples)
    slots: list[Figure] = []
    if forbidden is None and by_slot:
        slot_wise = next(method for method in METHODS if method.name == "iips")
        for at, part in _columns(logged):
            slots += _figures([_ask(replace(slot_wise, name=f"slot {at + 1}"), part, None)], seed, resamples)
    return Judgement(tuple(figures), tuple(slots), 0 if forbidden else _judged(logged))


def _ask(method: Method, logged: Logged, forbidden: Refusal | None) -> _Question:
    refused = forbidden
    if refused is None and method.whole and not logged.whole:
        refused = Refusal("single_slots", "it holds single slots, and pages cannot be put together from them")
    if refused is None and method.models and logged.predicted is None:
        refused = Refusal("no_reward_model", "there is no reward model to correct")
    if refused is not None:
        return _Question(method, logged, np.empty((0, 0)), None, refused)
    weights = _weights(method, logged)
    found = overlap(weights, logged.real if method.level != "page" else np.ones((len(logged), 1), bool))
    if method.name == "pi":  # its own weight is a sum over slots, and may be heavy where no slot's is
        found = replace(found, ess=min(found.ess, effective_sample_size(combined(weights, logged.due))))
    return _Question(method, logged, weights, found, weight_refusal(found, len(logged)))


def _weights(method: Method, logged: Logged) -> F64:
    if method.level == "slot":
        return np.where(logged.real, slot_weights(logged.alone, logged.logging_alone), 1.0)
    if method.level == "prefix":
        return prefix_weights(logged.given, logged.logging)
    return page_weights(logged.given, logged.logging)[:, None]


def _figures(asked: list[_Question], seed: int, resamples: int) -> list[Figure]:
    """The figures of questions about the same rows; one set of draws serves all."""
    open_ = [q for q in asked if q.refusal is None]
    draws = np.empty((0, 0))
    if open_:
        terms = [q.method.estimate(q.logged, q.weights) for q in open_]
        earned = [_earned(q) for q in open_]
        draws = bootstrap([*terms, *earned], open_[0].logged.unit, resamples, seed)
    figures = []
    for q in asked:
        figure = Figure(q.method.name, q.method.assumes, len(q.logged), q.logged.units, q.overlap, q.refusal)
        if q.refusal is None:
            at = open_.index(q)
            figure = _answered(figure, q, terms[at], earned[at], draws[:, [at, len(open_) + at]])
        figures.append(figure)
    return figures


def _earned(q: _Question) -> Terms:
    """What the logging policy earned on the same rows, in the unit of the method's estimate."""
    rewards, ones = q.logged.rewards, np.ones(q.logged.rewards.shape)
    return iips(rewards, ones, q.logged.real, q.logged.whole) if q.method.level == "slot" else ips(rewards.sum(1), ones[:, 0])


def _answered(figure: Figure, q: _Question, terms: Terms, earned: Terms, draws: F64) -> Figure:
    values = unit_values(terms.contributions, q.logged.unit)
    return replace(
        figure,
        value=terms.value,
        bootstrap=bootstrap_interval(draws[:, 0]),
        bernstein=empirical_bernstein(values),
        normal=normal(values),
        logged=earned.value,
        gain=bootstrap_interval(draws[:, 0] - draws[:, 1]),
        clipped=tuple((cap, q.method.estimate(q.logged, np.minimum(q.weights, cap)).value) for cap in CLIPS),
    )


def _columns(logged: Logged) -> Iterator[tuple[int, Logged]]:
    """Each slot alone, of the rows that have it."""
    for slot in range(logged.rewards.shape[1]):
        rows = logged.real[:, slot]
        if rows.any():
            some = {name: getattr(logged, name)[rows][:, [slot]] for name in ARRAYS}
            yield slot, replace(logged, **some, unit=logged.unit[rows], predicted=None)


def _judged(logged: Logged) -> int:
    """How many leading slots have prefix weights that may be trusted."""
    if not logged.whole:
        return 0
    weights, count = prefix_weights(logged.given, logged.logging), 0
    for slot in range(weights.shape[1]):
        if weight_refusal(overlap(weights[:, : slot + 1], logged.real[:, : slot + 1]), len(logged)) is not None:
            break
        count = slot + 1
    return count
