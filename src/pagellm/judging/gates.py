"""What a run must pass before anybody shows its pages to customers. Takes findings as plain values, gives verdicts with their reason.

A gate that nothing could be counted for is open: it neither passes nor fails, and says what is missing. Knows no run and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pagellm.evaluation.slices import Slice
from pagellm.reporting.verdict import read_estimate

WORST_SLICE = 0.95
"""A group of users may not surely lose more than a twentieth."""


@dataclass(frozen=True)
class Gate:
    """One condition."""

    name: str
    rule: str  # in words
    found: str
    passed: bool | None  # None where it could not be judged

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "rule": self.rule, "found": self.found, "passed": self.passed}


def not_worse(evaluation: Mapping[str, Any], subject: str, reference: str | None, metric: str) -> Gate:
    """The metric does not surely fall against what the pages are compared with."""
    rule = f"{metric.upper()} is not surely below that of {reference or 'the reference'}"
    gap = None if reference is None else read_estimate(evaluation.get("paired", {}), reference, metric, "diff")
    if gap is None:
        return Gate("accuracy", rule, "nothing to compare with: name a baseline with --against", None)
    return Gate("accuracy", rule, f"difference {gap.text(signed=True)}", gap.high >= 0)


def no_losing_slice(found: Sequence[Slice]) -> Gate:
    """No group of users surely loses more than a twentieth."""
    rule = f"No group of customers surely keeps less than {WORST_SLICE:.0%}"
    judged = [(s, s.ratio) for s in found if s.ratio is not None]
    if not judged:
        return Gate("groups", rule, "no group is large enough to be judged", None)
    worst, ratio = judged[0]
    failed = [s for s, r in judged if r.high < WORST_SLICE]
    told = f"worst: {worst.kind}, {worst.name}: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] times, {worst.users:,} customers"
    return Gate("groups", rule, f"{told}; {len(failed)} of {len(judged)} fail", not failed)


def clean_pages(pages: int, violations: int, foreign: int, example: str) -> Gate:
    """Every served page keeps every rule and holds items of the catalog alone."""
    rule = "Served pages break no rule of the layout and hold no item that is not in the catalog"
    if not pages:
        return Gate("rules", rule, "no page was composed", None)
    told = f"{violations:,} violations and {foreign:,} unknown items on {pages:,} pages"
    return Gate("rules", rule, f"{told}{f', for instance {example}' if example else ''}", violations == 0 and foreign == 0)


def fast_enough(milliseconds: Sequence[float], most: float) -> Gate:
    """A page is composed within the time that is allowed, in 95 of 100 cases, on this machine."""
    rule = f"95 of 100 pages are composed within {most:g} ms, one at a time, on this machine"
    if not milliseconds:
        return Gate("speed", rule, "no page was timed", None)
    middle, late = middle_and_late(milliseconds)
    told = f"median {middle:.0f} ms, 95 of 100 within {late:.0f} ms, {len(milliseconds)} pages"
    return Gate("speed", rule, told, late <= most)


def middle_and_late(milliseconds: Sequence[float]) -> tuple[float, float]:
    """(median, within which 95 of 100 are) of times, one at least."""
    ordered = sorted(milliseconds)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def near_reference(course: Mapping[str, Any] | None, budget: float) -> Gate:
    """Reinforcement learning stayed within its budget of distance and kept a policy that held-out users did not lose by."""
    rule = f"The policy that was kept is within {budget:g} nats a page of the supervised one, and its page value is not below it"
    if course is None:
        return Gate("distance", rule, "the run has not learned from its own pages", None)
    first = course["curve"][0]["value"]
    kept = next(sight for sight in course["curve"] if sight["step"] == course["best"])
    told = f"{kept['kl']:.1f} nats after step {kept['step']}, page value {kept['value']:.4f} from {first:.4f}; {course['health']}"
    return Gate("distance", rule, told, kept["kl"] <= budget and kept["value"] >= first)


def lawful(check: Mapping[str, Any] | None) -> Gate:
    """The rewards obey their laws."""
    rule = "The rewards obey every law of “pagellm rewards check”"
    if check is None:
        return Gate("rewards", rule, "the run has learned no rewards", None)
    broken = [name for name, law in check["laws"].items() if not law["holds"]]
    return Gate("rewards", rule, f"{len(check['laws'])} laws, broken: {', '.join(broken) or 'none'}", not broken)
