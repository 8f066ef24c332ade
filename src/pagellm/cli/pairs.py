"""`pagellm pairs`: mines preference pairs, shows them beside each other, exports them for preference trainers. Titles stay data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pagellm.data.preferences.mining import MiningReport

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Preference pairs from implicit feedback.")

Source = Annotated[Path, typer.Argument(metavar="DATA|RUN", help="A run, whose policy brings hard negatives, or a data folder.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Parquet file to write.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Pairs that `pagellm pairs mine` wrote.")]
First = Annotated[
    float | None, typer.Option("--from", min=0, max=1, help="Share of the events before the feedback that is mined begins.")
]
Last = Annotated[float | None, typer.Option("--to", min=0, max=1, help="Share of the events before which it ends.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, for instance pairs.slots=20. May be repeated.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of all draws.")]
Large = Annotated[
    bool, typer.Option("--large", help="Keep a log of pages in buckets on disk, so that memory does not grow with its length.")
]
Scratch = Annotated[
    Path | None,
    typer.Option("--scratch", metavar="FOLDER", help="Where the buckets are kept meanwhile; beside FILE if not named."),
]
Buckets = Annotated[int | None, typer.Option("--buckets", help="How many, a power of two; by the size of the log if not named.")]
Quarantined = Annotated[
    Path | None, typer.Option("--quarantine", metavar="FILE", help="Where rejected rows of a large log are written (NDJSON).")
]
Where = Annotated[
    Path | None, typer.Option("--source", metavar="DATA|RUN", help="Where items and users come from, if not where it was mined.")
]


@app.callback()
def root() -> None:
    """Preference pairs from implicit feedback."""


@app.command()
def mine(
    source: Source,
    out: Out = Path("pairs.parquet"),
    first: First = None,
    last: Last = None,
    settings: Settings = None,
    seed: Seed = 0,
    large: Large = False,
    scratch: Scratch = None,
    buckets: Buckets = None,
    quarantine: Quarantined = None,
) -> None:
    """Mine pairs of four families and swaps: two pages for one context, of which feedback says that the first is better."""
    from pagellm.errors import UsageError
    from pagellm.pairing import Disk, Window, mine_large, mine_pairs

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    if large:
        disk = Disk(scratch, buckets, quarantine)
        report = mine_large(source, out, settings or (), Window(first, last), seed, disk, tell)
    elif scratch or buckets or quarantine:
        raise UsageError("The options --scratch, --buckets and --quarantine say how a large log is read. Add --large.")
    else:
        report = mine_pairs(source, out, settings or (), Window(first, last), seed, tell)
    for line in _lines(report):
        typer.echo(line)
    typer.echo(f"Pairs: {out}")
    typer.echo(f"Next: pagellm pairs show {out} --n 5")


@app.command()
def show(
    file: File,
    family: Annotated[str | None, typer.Option("--family", help="relevance, ranking, diversity, redundancy or swap.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, max=1_000, help="Pairs to show.")] = 5,
    seed: Seed = 0,
    source: Where = None,
) -> None:
    """Show drawn pairs: the chosen page beside the rejected one, and the feedback behind them."""
    from rich.console import Console

    from pagellm.pairing import open_pairs
    from pagellm.reporting.pairs import pair_table

    console = Console(markup=False, highlight=False)
    opened = open_pairs(file, source, family)
    for place in opened.draw(n, seed):
        console.print(pair_table(opened.pairs, int(place), opened.catalog, opened.log.user_ids))
    typer.echo(f"{min(n, len(opened.pairs)):,} of {len(opened.pairs):,} pairs, drawn with seed {seed}.")
    typer.echo(f"Next: pagellm pairs export {file} --out pairs.jsonl")


@app.command()
def export(
    file: File,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON lines to write.")] = Path("pairs.jsonl"),
    family: Annotated[str | None, typer.Option("--family", help="One family only.")] = None,
    source: Where = None,
) -> None:
    """Write pairs as text, one JSON object a line with prompt, chosen, rejected and margin, as preference trainers read them."""
    import json

    from pagellm.pairing import open_pairs

    opened = open_pairs(file, source, family)
    aside = out.with_name(f".{out.name}.part")
    with open(aside, "w", encoding="utf-8") as lines:
        for row in opened.rows():
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(out)
    typer.echo(f"{len(opened.pairs):,} pairs: {out}")
    typer.echo("Next: give the file to a preference trainer, for instance TRL's RewardTrainer or DPOTrainer")


def _lines(report: MiningReport) -> list[str]:
    """The report in words."""
    lines = [
        f"{report.situations:,} pages looked at, {report.engaged:,} with engagement: {report.found:,} pairs, "
        f"{report.over_cap:,} of them over a user's or an item's cap",
        f"examination: {report.examination}",
    ]
    for family, count in report.families.items():
        lines.append(f"  {family:<12} {count:>9,} pairs   worth {report.effective[family]:>11,.0f} of equal weight")
    made = ", ".join(f"{operator} {count:,}" for operator, count in report.operators.items() if count)
    return [*lines, f"  by operator: {made}"]
