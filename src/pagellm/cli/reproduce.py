"""The command group `pagellm reproduce`: experiments that anybody can repeat. Reads options, prints tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl

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
Protocol = Annotated[str, typer.Option("--protocol", help="How the log is split: temporal, last-out or multivae.")]
SizeName = Annotated[
    str, typer.Option("--size", help="full (every baseline, profile small), or smoke (1,500 users, profile tiny: minutes).")
]
Methods = Annotated[
    str | None,
    typer.Option("--methods", metavar="NAME,…|all", help="Baselines, as in `pagellm evaluate`; left out: those of the size."),
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


@app.command()
def main(
    data: Data,
    out: Out,
    protocol: Protocol = "temporal",
    seeds: Seeds = 3,
    size: SizeName = "full",
    methods: Methods = None,
    settings: Settings = None,
) -> None:
    """Judge the policy beside every baseline, over data sets and seeds. Goes on where it stopped.

    Writes results.parquet, results.csv, protocol.json and a page for each data set.
    """
    from pagellm.evaluation.methods import SUBJECT, resolve
    from pagellm.reproduction.contest import SIZES, Plan, run_contest
    from pagellm.reproduction.standings import write_standings

    known = SIZES.get(size, SIZES["full"]).methods if methods is None else (SUBJECT, *resolve(methods))
    plan = Plan(tuple(data), out, protocol, seeds, size, tuple(known), tuple(settings or ()))
    matrix = run_contest(plan, lambda line: typer.echo(line, err=True))
    words = ["pagellm reproduce main", *map(str, data), f"--out {out} --protocol {protocol} --seeds {seeds} --size {size}"]
    words += [f"--methods {methods}"] if methods else []
    table = write_standings(matrix, " ".join([*words, *(f"--set {setting}" for setting in settings or ())]))
    _print_standings(table)
    typer.echo(f"{len(table):,} figures: {out / 'results.parquet'}, {out / 'results.csv'}; protocol: {out / 'protocol.json'}")


def _print_standings(table: pl.DataFrame) -> None:
    """Methods of each data set by NDCG@10, with the policy's difference from each."""
    import polars as pl
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 100)  # in a file nothing is cut off
    shown = table.filter(pl.col("seed").is_null() & (pl.col("kind") == "ranking"))
    for (dataset,), part in shown.group_by("dataset", maintain_order=True):
        rows = {(row["method"], row["metric"]): row for row in part.to_dicts()}
        drawn = Table(title=f"{dataset}: {part['users'][0]:,} users", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("method", "seeds", "ndcg@10", "ndcg@100", "pagellm less it", "p (Holm)"):
            drawn.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
        for method in sorted(dict.fromkeys(part["method"]), key=lambda m: -rows[m, "ndcg@10"]["mean"]):
            ten, hundred = rows[method, "ndcg@10"], rows[method, "ndcg@100"]
            gap = ("", "")
            if ten.get("paired_diff") is not None:
                gap = (_half(ten["paired_diff"], ten["paired_lo"], ten["paired_hi"], "+"), f"{ten['p_holm']:.4f}")
            figures = (_half(row["mean"], row["lo"], row["hi"]) for row in (ten, hundred))
            drawn.add_row(method, str(ten["seeds"]), *figures, *gap)
        console.print(drawn)


def _half(value: float, low: float, high: float, sign: str = "") -> str:
    """The figure and half the width of its interval."""
    return f"{value:{sign}.4f} ±{(high - low) / 2:.4f}"


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
