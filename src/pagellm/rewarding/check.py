"""All figures on the rewards of a run: laws, accuracy, calibration, and their JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagellm.data.preferences.pairs import Family
from pagellm.evaluation.calibration import Calibration
from pagellm.evaluation.reward_checks import MARGIN_EDGES, Cases, Law, PairAccuracy, margins, pair_accuracy, pool_cases
from pagellm.models.reward_files import RewardFacts, load_rewards
from pagellm.models.run import load_run
from pagellm.models.threads import set_threads
from pagellm.rewarding.judge import judge_of
from pagellm.rewarding.laws import laws_of
from pagellm.rewarding.sampling import MOST_PAGES, Sample


@dataclass(frozen=True)
class RewardCheck:
    """All figures on one window."""

    run: str
    window: str
    laws: list[Law]
    trained: list[PairAccuracy]  # kinds of pairs that the rewards learned from
    unseen: list[PairAccuracy]  # kinds that they never saw
    calibration: Calibration
    by_place: Calibration
    facts: RewardFacts
    cases: list[Cases]  # of `trained`, for whoever pools seeds
    unseen_cases: list[Cases]
    sample: Sample  # how many pages were judged, of how many

    @property
    def broken(self) -> list[Law]:
        """Laws that do not hold."""
        return [law for law in self.laws if not law.holds]

    def as_json(self) -> dict[str, Any]:
        """The form of `pagellm rewards check --json`."""
        accuracy = {name: self._family_json(name) for name in (family.name.lower() for family in Family)}
        return {
            "run": self.run,
            "window": self.window,
            "judged": self.sample.as_json(),
            "laws": {law.name: law.as_json() for law in self.laws},
            "pair_accuracy": accuracy,
            "margins": {"edges": list(MARGIN_EDGES), "pairs": self._margins()},
            "calibration": self.calibration.as_json(),
            "calibration_by_place": self.by_place.as_json(),
        }

    def _margins(self) -> dict[str, list[int]]:
        """Histograms of margins by family, of pairs like those that the rewards learned from; families without pairs are left out."""
        parts = {family.name.lower(): [c for c in self.cases if c.family == family.name.lower()] for family in Family}
        return {family: margins(cases) for family, cases in parts.items() if cases}

    def _family_json(self, family: str) -> dict[str, Any]:
        """Rates over all kinds of pairs of a family, each with those of its kinds; None where it has no pair of that sort.

        By the family's own score on pairs like those that it learned from, by the whole reward on unseen defects, and by the policy's
        log-probability alone on both.
        """
        out: dict[str, Any] = {}
        for kinds, cases, columns in (
            (self.trained, self.cases, {"held_out_users": "reward", "reference_logprob_probe": "probe"}),
            (self.unseen, self.unseen_cases, {"unseen_operators": "whole", "reference_logprob_probe_unseen": "probe"}),
        ):
            mine = [c for c in cases if c.family == family]
            pooled = pair_accuracy(pool_cases(mine)) if mine else None
            for column, score in columns.items():
                parts = {kind.kind: getattr(kind, score).as_json() for kind in kinds if kind.family == family}
                out[column] = getattr(pooled, score).as_json() | {"kinds": parts} if pooled else None
        return out


def check_rewards(
    folder: Path, window: str = "choices", seed: int = 0, tell: Callable[[str], None] = print, pages: int = MOST_PAGES
) -> RewardCheck:
    """Judges the rewards of a run on at most so many pages. Raises RunError where it has none, UsageError for an unknown window,
    DataError for an empty one."""
    run = load_run(folder)
    set_threads(run.config)
    reward, facts = load_rewards(run)
    judge = judge_of(run, reward, window, seed, pages)
    tell(f"Judging held-out users, {window}: {judge.sample.words}; feedback on {sum(len(s) for s in judge.chunks):,}")
    trained, unseen = judge.trained(), judge.unseen()
    known, new = ([pair_accuracy(cases, seed) for cases in kinds] for kinds in (trained, unseen))
    laws = laws_of(judge, unseen)
    return RewardCheck(folder.name, window, laws, known, new, *judge.calibration(), facts, trained, unseen, judge.sample)
