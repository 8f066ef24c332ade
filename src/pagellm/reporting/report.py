"""The report of a run: one self-contained page, words first, then evidence, then what is needed to repeat it.

Takes plain values (evaluation, training rows, cards) and page views, returns HTML. Reads no file, computes no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pagellm.reporting.evidence import Figure
from pagellm.reporting.paper import DEVIATIONS, PAPER
from pagellm.reporting.render import render
from pagellm.reporting.tables import (
    ablation_table,
    apart_tables,
    beside_paper,
    customer_table,
    estimator_table,
    headline_table,
    metric_tables,
    online_words,
    page_tables,
    paired_table,
    refusals,
    reward_tables,
    slice_table,
)
from pagellm.reporting.training import training_figures
from pagellm.reporting.verdict import SUPERVISED, Verdict, judge, metric_of, number
from pagellm.reporting.view import PageView
from pagellm.reporting.words import plain


@dataclass(frozen=True)
class RunReport:
    """Everything that a report shows."""

    title: str
    evaluation: Mapping[str, Any]  # as `pagellm evaluate --json` writes it
    pages: Sequence[PageView] = ()  # drawn at random, not chosen
    pages_seed: int = 0  # of the draw, printed beside the pages
    training: Sequence[Mapping[str, Any]] = ()  # rows of metrics.jsonl
    protocol: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    appendix: Mapping[str, object] = field(default_factory=dict)  # command, versions, fingerprints
    caution: str = ""  # what a reader must know first, for instance that the shop is simulated
    subject: str = "pagellm"
    headline: str = "ndcg@10"
    gates: Sequence[Mapping[str, Any]] = ()  # name, rule, found, passed (None: not judged)
    cases: Sequence[CaseView] = ()  # users that were chosen by a rule
    figures: Sequence[Figure] = ()
    slices: Sequence[Mapping[str, Any]] = ()  # kind, name, users, subject, reference, ratio
    reference: str = ""  # what slices and gates compare with
    rewards: Mapping[str, Any] = field(default_factory=dict)  # as `pagellm rewards check --json`
    offpolicy: Mapping[str, Any] = field(default_factory=dict)  # as `pagellm ope --json`
    ablation: Sequence[Mapping[str, Any]] = ()  # pooled rows of an ablation of the same data
    costs: Mapping[str, object] = field(default_factory=dict)  # what training and pages took
    paper: Sequence[Mapping[str, Any]] | None = None  # of an ablation, what the paper has figures for; None leaves the paper out


@dataclass(frozen=True)
class CaseView:
    """One user's page before and after."""

    kind: str
    why: str
    after: PageView
    before: PageView | None = None


def report_html(report: RunReport) -> str:
    """The whole document. Raises PagellmError where the evaluation has a figure without interval or lacks the headline."""
    verdict: Verdict = judge(report.evaluation, report.subject, report.headline)
    before = SUPERVISED if SUPERVISED in report.evaluation["methods"] else report.reference
    return render(
        "report.html",
        report=report,
        title=plain(report.title),
        caution=plain(report.caution, 600),
        verdict=verdict,
        headline=metric_of(report.headline),
        main=headline_table(report.evaluation, report.headline),
        paired=paired_table(report.evaluation, report.subject, report.headline),
        tables=metric_tables(report.evaluation),
        apart=apart_tables(report.evaluation, report.headline),
        page_tables=page_tables(report.evaluation),
        changes=customer_table(report.evaluation, report.subject, before),
        online=online_words(report.offpolicy),
        training=training_figures(report.training),
        slices=slice_table(report.slices, report.subject, report.reference),
        rewards=reward_tables(report.rewards),
        estimators=estimator_table(report.offpolicy),
        refused=refusals(report.offpolicy),
        ablation=ablation_table(report.ablation),
        costs=flat(report.costs),
        beside=() if report.paper is None else beside_paper(report.paper),
        paper=PAPER,
        deviations=DEVIATIONS,
        protocol=flat(report.protocol),
        data=flat(report.data),
        appendix=flat(report.appendix),
    )


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested plain values as name and text; names of inner values are joined by dots."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{plain(key, 80)}"
        if isinstance(value, Mapping):
            found += flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            found.append((name, plain(", ".join(map(str, value)), 600)))
        else:
            found.append((name, number(value) if isinstance(value, float) else plain(value, 600)))
    return found
