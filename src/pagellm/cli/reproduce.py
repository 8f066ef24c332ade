"""The command group `pagellm reproduce`: experiments that anybody can repeat. Reads options, prints tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pagellm.reproduction.claims import Finding

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Experiments over data sets, seeds and methods.")

Data = Annotated[list[Path], typer.Argument(metavar="DATA…", help="Data folders, simulated shops among them.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the matrix; what is done there is not done again.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=100, help="Runs of each data set, from seed 0.")]
Only = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="GROUP,…",
        help="Parts of the matrix: controls, claim, methods, families, alpha, learn, noise. Left out: all.",
    ),
]
Profile = Annotated[str, typer.Option("--profile", help="Size of the runs: tiny, small or base.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of all runs, as in `pagellm train`.")
]


@app.callback()
def root() -> None:
    """Experiments over data sets, seeds and methods."""


@app.command()
def ablation(
    data: Data, out: Out, seeds: Seeds = 3, only: Only = None, profile: Profile = "small", settings: Settings = None
) -> None:
    """Compare pages learned from both rewards, from one, and by other ways, with supervised controls and re-rankers.

    Goes on where it stopped. Writes ablation.parquet, ablation.csv, claims.json and ablation.html.
    """
    from pagellm.reproduction.ablation import run_ablation
    from pagellm.reproduction.arms import GROUPS
    from pagellm.reproduction.results import command_of, write_results

    groups = list(GROUPS) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    matrix = run_ablation(data, out, seeds, groups, profile, settings or [], lambda line: typer.echo(line, err=True))
    table, claims = write_results(matrix, command_of(data, seeds, groups, profile, settings or [], out))
    _print(claims)
    typer.echo(f"{len(table):,} figures: {out / 'ablation.parquet'}, {out / 'ablation.csv'}")
    typer.echo(f"Next: open {out / 'ablation.html'}")


def _print(claims: Sequence[Finding]) -> None:
    """One line a comparison, by data set and claim."""
    from pagellm.reporting.words import plain

    heading = None
    for c in claims:
        if heading != (c.dataset, c.claim):
            heading = (c.dataset, c.claim)
            typer.echo(f"\n{plain(c.dataset)}: {c.claim}")
        holds = {True: "✓", False: "✗", None: "·"}[c.holds]
        told = "" if c.p is None else f", p {c.p:.4f}"
        typer.echo(f"  {holds} {c.value:.3f} [{c.low:.3f}, {c.high:.3f}]{told}  {c.metric}: {c.what}")
    typer.echo("")
