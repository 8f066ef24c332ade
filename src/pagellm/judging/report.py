"""From findings to the report that a product manager reads first and a scientist to its end: HTML and JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pagellm import __version__
from pagellm.judging.gates import middle_and_late
from pagellm.judging.offline import SUBJECT, Findings
from pagellm.models.run import METRICS
from pagellm.reporting.evidence import (
    Figure,
    accuracy_by_depth,
    calibration_figure,
    calibration_places,
    exposure_curve,
    margin_histogram,
    over_optimization,
    places_seen,
    trade_off,
)
from pagellm.reporting.report import CaseView, RunReport, report_html

_MOST_LINES = 5  # methods in the figure of accuracy by depth


def write_report(found: Findings, out: Path, command: str) -> Path:
    """Writes the report and, beside it, its figures as JSON; returns the path of the JSON."""
    out.write_text(report_html(report_of(found, command)), encoding="utf-8")
    beside = out.with_suffix(".json")
    beside.write_text(json.dumps(found.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return beside


def report_of(found: Findings, command: str) -> RunReport:
    """The report as plain values."""
    run, served = found.run, found.served
    lines = (run.folder / METRICS).read_text(encoding="utf-8").splitlines()
    times = [round(ms, 1) for ms in middle_and_late(served.milliseconds)] if served.milliseconds else ["none timed"] * 2
    return RunReport(
        f"{run.facts['name']}: pages judged offline",
        found.evaluation,
        found.samples,
        found.seed,
        [json.loads(line) for line in lines],
        protocol=run.split.card,
        data=run.facts,
        appendix={"command": command, "pagellm": __version__, "profile": run.config.profile, "seed of the run": run.config.seed}
        | {"policy": run.stage}
        | ({"policy fitted on to": f"the {run.config.sft.renew} of the log"} if run.renewed is not None else {}),
        subject=SUBJECT,
        gates=[gate.as_json() for gate in found.gates],
        cases=[CaseView(c.case.kind, c.case.why, c.after, c.before) for c in found.cases],
        figures=figures_of(found),
        slices=[s.as_json() for s in found.slices],
        reference=found.reference or "",
        rewards=found.rewards or {},
        offpolicy=found.offpolicy or {},
        ablation=found.ablation,
        paper=found.paper,
        costs={f"training, stage {stage}": took(cost) for stage, cost in found.cost.items()}
        | {
            "pages composed, one at a time": len(served.pages),
            "milliseconds, median": times[0],
            "milliseconds, 95 of 100 within": times[1],
            "seconds for 1,000 pages, one process": round(sum(served.milliseconds) / max(len(served.milliseconds), 1), 1),
            "rules broken": len(served.violations),
            "items that are not in the catalog": served.foreign,
            "items twice on a page": served.repeats,
            "pages with an empty slot": served.short,
        },
    )


def took(cost: Mapping[str, Any]) -> str:
    """What a stage of training took, in words."""
    threads = f"{cost['threads']} thread{'s' if cost['threads'] > 1 else ''}"
    minutes = f"{cost['seconds'] / 60:.1f} minutes by the clock, {cost['cpu_seconds'] / 60:.1f} of CPU on {threads}"
    gpu = f", {cost['gpu_peak_mb']:,} MB on the GPU" if cost["gpu_peak_mb"] else ""
    return f"{minutes}; {cost['peak_mb']:,} MB of memory at most{gpu}"


def figures_of(found: Findings) -> list[Figure]:
    """All figures that the run has the numbers for."""
    evaluation = found.evaluation
    methods = sorted(evaluation["methods"], key=lambda name: -evaluation["methods"][name]["ndcg@10"]["mean"])
    shown = list(dict.fromkeys([SUBJECT, *(["sft"] if "sft" in methods else []), *methods]))[:_MOST_LINES]
    made = [
        accuracy_by_depth(evaluation, shown),
        trade_off(evaluation),
        *(draw(found.rewards) for draw in (margin_histogram, calibration_figure, calibration_places) if found.rewards),
        over_optimization(found.course) if found.course else None,
        exposure_curve(found.exposure),
        places_seen(found.places) if found.places else None,
    ]
    return [figure for figure in made if figure is not None]
