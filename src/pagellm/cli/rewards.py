"""`pagellm rewards`: whether a run's rewards know what a good page is. Reads options, prints tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pagellm.evaluation.calibration import Calibration
    from pagellm.evaluation.reward_checks import Law, PairAccuracy, Rate

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rewards learned from preference pairs.")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run trained with --until reward.")]
Window = Annotated[
    str,
    typer.Option(
        "--on", metavar="WINDOW", help="choices (between valid_at and test_at) or test (after it: figures to publish, once)."
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON.")]
Pages = Annotated[
    int,
    typer.Option(
        "--pages", metavar="N", min=10, help="Pages that are judged at most; of more, users are drawn with all of theirs."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of all draws.")]


@app.callback()
def root() -> None:
    """Rewards learned from preference pairs."""


@app.command()
def check(run: RunFolder, on: Window = "choices", as_json: Json = None, seed: Seed = 0, pages: Pages = 20_000) -> None:
    """Check the laws that every reward must obey, and its accuracy on users and defects that it has not met.

    Exits 4 where a law is broken.
    """
    from rich.console import Console

    from pagellm.rewarding.check import check_rewards

    found = check_rewards(run, on, seed, lambda line: typer.echo(line, err=True), pages)
    console = Console(markup=False, highlight=False)
    console.print(f"Judged on {found.sample.words}")
    console.print(_laws(found.laws))
    console.print(_accuracies(found.trained, "Told apart: pairs like those that the rewards learned from, of held-out users"))
    console.print(_accuracies(found.unseen, "Told apart: defects that they never learned from"))
    for line in _calibration(found.calibration):
        typer.echo(line)
    if as_json is not None:
        as_json.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
        typer.echo(f"Figures: {as_json}")
    if found.broken:
        typer.echo(f"Broken: {', '.join(law.name for law in found.broken)}")
        typer.echo(f"Next: pagellm pairs show {run / 'pairs.parquet'} --source {run}    to see what the rewards learned from")
        raise typer.Exit(4)
    typer.echo(f"Next: pagellm compose {run} --user ID --explain")


def _laws(laws: Sequence[Law]) -> Table:
    from rich.text import Text

    table = _table("Laws", "law", "holds at", "must", "cases", "")
    for law in laws:
        verdict = Text("holds") if law.holds else Text("BROKEN", "bold red")
        table.add_row(law.says, _rate(law.rate), f"{law.tolerance:.2f}", f"{law.rate.count:,}", verdict)
    return table


def _accuracies(kinds: Sequence[PairAccuracy], title: str) -> Table:
    """One line a kind of pair: the family's own score, the whole reward, the policy's log-probability alone."""
    table = _table(title, "family", "kind", "own score", "whole", "policy alone", "lead of own score", "pairs")
    for kind in kinds:
        lead = f"{kind.lead.value:+.3f} [{kind.lead.low:+.3f}, {kind.lead.high:+.3f}]"
        alone = f"{kind.probe.value:.3f}"
        whole = f"{kind.whole.value:.3f}"
        table.add_row(kind.family, kind.kind.replace("_", " "), _rate(kind.reward), whole, alone, lead, f"{kind.reward.count:,}")
    return table


def _calibration(found: Calibration) -> Iterator[str]:
    """Groups of pages, lowest prediction first."""
    yield (
        f"Engagement of a page, predicted and seen, by tenth of the prediction: calibration error {found.error:.3f}, "
        f"{found.relative_error:.0%} of the mean"
    )
    for p, r, low, high, n in zip(found.predicted, found.realised, found.low, found.high, found.pages, strict=True):
        yield f"  {p:7.3f}  {r:7.3f} [{low:.3f}, {high:.3f}]  {n:,} pages"


def _rate(rate: Rate) -> str:
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]" if rate.count else "nothing to count"


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE)
    for name in columns:
        table.add_column(name)
    return table
