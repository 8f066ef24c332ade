"""`pagellm report`: one file about a run, words first, then evidence. Judging gathers it; this reads options and says what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that training left behind.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The report; its figures are written beside it as JSON.")]
Against = Annotated[
    str | None,
    typer.Option("--against", metavar="NAME,…|all", help="Baselines, as in `pagellm evaluate`; left out: the quick ones."),
]
MostMs = Annotated[
    float, typer.Option("--max-ms", metavar="MS", min=0.1, help="Milliseconds within which 95 of 100 pages must be composed.")
]
Log = Annotated[
    Path | None,
    typer.Option("--log", metavar="DATA", help="Pages that another policy logged: adds off-policy estimates, see `pagellm ope`."),
]
Ablation = Annotated[
    Path | None,
    typer.Option("--ablation", metavar="DIR", help="What `pagellm reproduce ablation` left of the same data: adds its table."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of all draws.")]


def report(
    run: Run,
    out: Out = Path("report.html"),
    against: Against = None,
    max_ms: MostMs = 300.0,
    log: Log = None,
    ablation: Ablation = None,
    seed: Seed = 0,
) -> None:
    """Judge a run offline and write one self-contained report. Exits 4 where a gate is not passed."""
    from pagellm.evaluation.methods import resolve
    from pagellm.judging.offline import judge_offline
    from pagellm.judging.report import write_report

    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder. Name a file, for instance --out {out / 'report.html'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    found = judge_offline(run, resolve(against), max_ms, log, ablation, seed, lambda line: typer.echo(line, err=True))
    words = [
        f"pagellm report {run}",
        f"--out {out}",
        *([f"--against {against}"] if against else []),
        f"--max-ms {max_ms:g}",
        *([f"--log {log}"] if log else []),
        *([f"--ablation {ablation}"] if ablation else []),
    ]
    beside = write_report(found, out, " ".join([*words, f"--seed {seed}"]))
    for gate in found.gates:
        mark = {True: "passed", False: "FAILED", None: "not judged"}[gate.passed]
        typer.echo(f"{mark:>10}  {gate.name}: {gate.found}")
    typer.echo(f"Report: {out}    Figures: {beside}")
    if found.failed:
        typer.echo(f"Gates that were not passed: {', '.join(gate.name for gate in found.failed)}")
        raise typer.Exit(4)
