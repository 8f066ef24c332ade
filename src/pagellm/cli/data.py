"""`pagellm data check` and `pagellm data stats`: what a data folder holds and what is wrong with it. Prints; changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pagellm.data.readers import Checked

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at a data folder: checks and figures.")

Folder = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder with items.* and interactions.*, or impressions.* and events.*.")
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")]
Share = Annotated[float, typer.Option("--max-reject-share", help="Share of rejected rows of a file above which it is an error.")]
Store = Annotated[Path | None, typer.Option("--quarantine", metavar="FILE", help="Where rejected rows are written (NDJSON).")]
Base = Annotated[int, typer.Option("--position-base", help="The number that the log gives to the first row and column: 0 or 1.")]


@app.command()
def check(
    data: Folder, json_file: Json = None, max_reject_share: Share = 0.01, quarantine: Store = None, position_base: Base = 0
) -> None:
    """Read every row and say what is wrong: counts, samples, the line to change. Exit code 3 if a finding is an error."""
    from pagellm.data.readers import check_log

    store = quarantine or Path(f"{data.resolve().name}.quarantine.ndjson")
    checked = check_log(data, max_reject_share=max_reject_share, quarantine=store, position_base=position_base)
    if json_file is not None:
        _write(json_file, _report(checked))
    if json_file is None or str(json_file) != "-":
        _print_check(checked)
        typer.echo(f"Next: {_next(data, checked)}")
    if checked.errors:
        raise typer.Exit(3)


@app.command()
def stats(data: Folder, json_file: Json = None, max_reject_share: Share = 0.01, position_base: Base = 0) -> None:
    """Figures of the accepted records: counts, dates, concentration, repetition, click rates."""
    from pagellm.data.describe import describe
    from pagellm.data.readers import read_log

    figures = describe(read_log(data, max_reject_share=max_reject_share, position_base=position_base))
    if json_file is not None:
        _write(json_file, figures)
    if json_file is None or str(json_file) != "-":
        for line in _lines(figures):
            typer.echo(line)
        typer.echo(f"Next: pagellm train {data} --run RUN")


def _report(checked: Checked) -> dict[str, object]:
    """The check as JSON-able values."""
    from dataclasses import asdict

    return {
        "data": checked.log.name,
        "release": checked.log.release,
        "ok": not checked.errors,
        "fingerprint": checked.log.fingerprint,
        "records": {
            "items": len(checked.log.catalog),
            "users": checked.log.interactions.users,
            "interactions": len(checked.log.interactions),
            "pages": len(checked.log.impressions) if checked.log.impressions is not None else None,
        },
        "files": [
            {"file": f.file, "rows": f.rows, "accepted": f.accepted, "quarantined": f.quarantined, "reasons": dict(f.reasons)}
            for f in checked.files
        ],
        "findings": [asdict(finding) | {"share": finding.share} for finding in checked.findings],
        "quarantine": str(checked.quarantine) if checked.quarantine else None,
    }


def _print_check(checked: Checked) -> None:
    log = checked.log
    typer.echo(f"{log.name}{f' · {log.release}' if log.release else ''}")
    for file in checked.files:
        typer.echo(f"  {file.file}: {file.rows:,} rows = {file.accepted:,} accepted + {file.quarantined:,} quarantined")
    pages = f" · {len(log.impressions):,} pages" if log.impressions is not None else ""
    events = f"{len(log.interactions):,} engagements of {log.interactions.users:,} users"
    typer.echo(f"  {len(log.catalog):,} items · {events}{pages}")
    for finding in checked.findings:
        typer.echo(f"{finding.severity:5}  {finding.code}  {finding.count:,} of {finding.total:,} ({finding.share:.1%})")
        typer.echo(f"       {finding.message}")
        for sample in finding.samples:
            typer.echo(f"         {sample}")
        typer.echo(f"       → {finding.change}")
    if checked.quarantine is not None:
        typer.echo(f"Quarantined rows: {checked.quarantine}")
    count = {severity: sum(f.severity == severity for f in checked.findings) for severity in ("error", "warn", "info")}
    typer.echo(f"{count['error']} errors · {count['warn']} warnings · {count['info']} notes")


def _next(data: Path, checked: Checked) -> str:
    return f"mend the errors, then pagellm data check {data}" if checked.errors else f"pagellm data stats {data}"


def _lines(figures: dict[str, object], depth: int = 0) -> list[str]:
    """Nested figures as indented lines."""
    lines: list[str] = []
    for name, value in figures.items():
        label = f"{'  ' * depth}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            lines.append(label)
            lines += _lines(value, depth + 1)
        elif value is not None:
            text = (
                ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)
            )
            lines.append(f"{label:<48} {text}")
    return lines


def _write(path: Path, value: dict[str, object]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=True)
    if str(path) == "-":
        typer.echo(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")
