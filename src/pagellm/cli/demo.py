"""`pagellm demo`: plays every stage on a simulated shop and says where the page and the report are."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="Folder for everything that the demo writes; left out: runs/demo, runs/demo-2, …"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the shop, the training and the pages.")]


def demo(run: RunFolder = None, seed: Seed = 7) -> None:
    """Simulate a shop, check it, train, compose, evaluate, report: all stages in a few minutes, no network."""
    from pagellm.errors import UsageError

    run = free_folder(Path("runs/demo")) if run is None else run
    if not _is_free(run):
        raise UsageError(f"The folder {run} is not empty. Name another with --run, or remove it.")
    run.mkdir(parents=True, exist_ok=True)
    from pagellm.demo import run_demo

    begun = time.monotonic()
    typer.echo(f"pagellm demo · seed {seed} · folder {run} · no network needed · about three minutes on two cores")
    for number, stage in enumerate(run_demo(run, seed), 1):
        typer.echo(f" {number}/9 {stage.name:<11} {stage.said}   {stage.took_s:.0f} s")
    typer.echo(f"Done in {time.monotonic() - begun:.0f} s. A simulated shop and a tiny model: this shows the machinery.")
    typer.echo(f"Page: {run / 'page.html'}   Report: {run / 'report.html'}   Run: {run / 'run'}")
    typer.echo(f"Next: pagellm compose {run / 'run'} --user u000001 --explain    or your own data: pagellm data check DATA")


def free_folder(wanted: Path) -> Path:
    """The folder itself where nothing is in it, else the first free one of folder-2, folder-3, …"""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in itertools.count(2))
    return next(folder for folder in itertools.chain([wanted], numbered) if _is_free(folder))


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
