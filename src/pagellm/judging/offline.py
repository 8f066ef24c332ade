"""Everything that is known of a run before anybody has seen its pages: gathered once, for the report and for whoever reads JSON.

    compare with baselines → groups of users → rewards → course of PPO → pages composed, timed and proved → gates → report

Takes a run folder, gives findings. Renders nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pagellm.comparing import Arena
from pagellm.data.likeness import theme_column
from pagellm.evaluation.cases import cases
from pagellm.evaluation.protocol import Comparison
from pagellm.evaluation.slices import Slice, groups_of, slices
from pagellm.judging.arms import ablation_rows, paper_findings
from pagellm.judging.gates import Gate, clean_pages, fast_enough, lawful, near_reference, no_losing_slice, not_worse
from pagellm.judging.looked_at import looked_at
from pagellm.judging.shown import BeforeAfter, Served, before_after, page_shown, serve
from pagellm.models.composer import PolicyRanker
from pagellm.models.run import PPO_FACTS, REWARD, Run
from pagellm.models.storage import read_json
from pagellm.offpolicy.judged_run import Asked, judge_run
from pagellm.reporting.verdict import NO_RIVALS
from pagellm.reporting.view import PageView
from pagellm.rewarding.check import check_rewards
from pagellm.training.cost import read_cost
from pagellm.types import I32, I64, NO_ITEM, Contexts

SUBJECT = "pagellm"
METRIC = "ndcg@10"
SAMPLED = 20
"""Pages that are shown as they come, not chosen."""

SERVED = 200
"""Pages that are composed one at a time, timed and proved."""

_EXPOSED = 2_000  # contexts whose first ten places are counted


@dataclass(frozen=True)
class Findings:
    """What was found of a run."""

    run: Run
    evaluation: dict[str, Any]  # as `pagellm evaluate --json`
    reference: str | None  # what the gates compare with
    slices: list[Slice]
    rewards: dict[str, Any] | None  # as `pagellm rewards check --json`
    course: dict[str, Any] | None  # as ppo.json
    exposure: dict[str, list[int]]  # by policy: how often each candidate was shown
    served: Served
    cases: list[BeforeAfter]
    samples: list[PageView]  # as they come
    gates: list[Gate]
    offpolicy: dict[str, Any] | None  # as `pagellm ope --json`; None where no log of pages was named
    places: dict[str, Any] | None  # where customers look, by the run's own pages; None where it has none
    cost: dict[str, Any]  # what training took, by stage
    ablation: list[dict[str, Any]]  # rows of an ablation of the same data; none where none was named
    paper: list[dict[str, Any]]  # of its findings, those that the paper's abstract has figures for
    seed: int

    @property
    def failed(self) -> list[Gate]:
        """Gates that were not passed."""
        return [gate for gate in self.gates if gate.passed is False]

    def as_json(self) -> dict[str, Any]:
        """report.json: every figure of the report."""
        return {
            "run": self.run.folder.name,
            "evaluation": self.evaluation,
            "reference": self.reference,
            "gates": [gate.as_json() for gate in self.gates],
            "slices": [s.as_json() for s in self.slices],
            "rewards": self.rewards,
            "ppo": self.course,
            "exposure": self.exposure,
            "ope": self.offpolicy,
            "places": self.places,
            "cost": self.cost,
            "ablation": self.ablation,
            "paper": self.paper,
            "served": {
                "pages": len(self.served.pages), "milliseconds": [round(ms, 2) for ms in self.served.milliseconds],
                "violations": list(self.served.violations), "foreign": self.served.foreign, "short": self.served.short,
                "repeats": self.served.repeats,
            },
            "seed": self.seed,
        }  # fmt: skip


def judge_offline(
    folder: Path,
    against: Sequence[str],
    most_ms: float,
    log: Path | None = None,
    ablation: Path | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> Findings:
    """Judges a run on the test part of its split.

    `against` are baselines by name, `most_ms` the milliseconds that a page may take, `log` a folder of pages that another policy wrote,
    `ablation` the table of an ablation of the same data, or its folder.

    Raises RunError for a run that is not finished, DataError where its test part is empty or the ablation is of other data.
    """
    arena = Arena.of(folder)
    name = str(arena.run.facts["name"])
    arms, paper = (ablation_rows(ablation, name), paper_findings(ablation, name)) if ablation else ([], [])
    offpolicy = None  # first, because a log that cannot be read is told before the long work
    if log is not None:
        tell(f"judging the policy on the pages of {log}")
        offpolicy = judge_run(folder, log, Asked(seed=seed), tell).as_json()
    comparison, run, warm = arena.compare(arena.lineup(against, tell), seed, tell), arena.run, arena.contexts
    test = run.split.test.take(run.split.test.target_stop > run.split.test.stop)
    others = [name for name in comparison.methods if name not in (SUBJECT, *NO_RIVALS)]
    reference = max(others, key=lambda name: comparison.methods[name][METRIC].value) if others else None
    groups = groups_of(warm, *_theme_names(run))
    found = slices(comparison.results, groups, SUBJECT, reference, METRIC, seed) if reference else []
    before = reference if run.tuned is None else "sft"
    gain = comparison.results.column(SUBJECT, METRIC) - (comparison.results.column(before, METRIC) if before else 0)
    tell("composing pages")
    slots, rng = run.config.pairs.slots, np.random.default_rng((seed, 31))
    places = rng.permutation(len(test))
    served = serve(run, test, places[: SERVED + 1], slots)
    chosen = cases(test, np.flatnonzero(test.warm), gain, _kept_away(comparison, test), METRIC)
    rewards = course = None
    if (folder / REWARD).exists():
        tell("checking the rewards")
        rewards = check_rewards(folder, "test", seed, tell).as_json()
    if (folder / PPO_FACTS).exists():
        course = read_json(folder / PPO_FACTS)
    evaluation = comparison.as_json()
    gates = [
        not_worse(evaluation, SUBJECT, reference, METRIC),
        no_losing_slice(found),
        clean_pages(len(served.pages), len(served.violations), served.foreign, next(iter(served.violations), "")),
        fast_enough(served.milliseconds, most_ms),
        near_reference(course, run.config.ppo.kl_budget),
        lawful(rewards),
    ]
    return Findings(
        run, evaluation, reference, found, rewards, course, exposures(run, warm, rng), served,
        [before_after(run, test, case, slots) for case in chosen],
        [page_shown(run, test, int(place), slots) for place in places[:SAMPLED]], gates, offpolicy,
        looked_at(run.impressions, seed), read_cost(folder), arms, paper, seed,
    )  # fmt: skip


def _kept_away(comparison: Comparison, test: Contexts) -> I64:
    """[context] rules that the page would break if none were masked, of the users for whom that was looked at; 0 for all others."""
    out = np.zeros(len(test), np.int64)
    if comparison.pages is not None:
        checked = comparison.pages.checked
        raw = dict(zip(checked.users.tolist(), checked.column(SUBJECT, "violations_raw").tolist(), strict=True))
        out[:] = [raw.get(user, 0) for user in test.user.tolist()]
    return out


def exposures(run: Run, contexts: Contexts, rng: np.random.Generator) -> dict[str, list[int]]:
    """By policy: how often each candidate stands among the first ten places of a drawn part of the contexts.

    The log's own policy counts by the pages of the test part, where the log has pages.
    """
    some = contexts.take(np.sort(rng.permutation(len(contexts))[:_EXPOSED]))
    candidates = run.split.candidates_test
    nets = {SUBJECT: run.policy} | ({} if run.tuned is None else {"sft": run.supervised})
    counts = {}
    for name, net in nets.items():
        ranked = PolicyRanker(run, candidates, net=net).rank(some, 10)
        counts[name] = np.bincount(ranked[ranked != NO_ITEM], minlength=len(candidates))[candidates].tolist()
    shown = run.impressions
    if shown is not None:
        slots = np.repeat(shown.time >= int(contexts.time.min()), np.diff(shown.offsets))
        counts["logging"] = np.bincount(shown.item[slots], minlength=len(candidates))[candidates].tolist()
    return counts


def _theme_names(run: Run) -> tuple[I32, list[str]]:
    """[item] code of each item's theme, and what the codes stand for."""
    theme, column = run.likeness.themes, theme_column(run.catalog)
    if column is None:
        return theme, [f"cluster {code}" for code in range(int(theme.max(initial=-1)) + 1)]
    return theme, run.catalog.codes(column)[1]
