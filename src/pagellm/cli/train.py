"""`pagellm train`: fits a policy on a data folder. Reads options, shows progress; the pipeline does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder with items and interactions, or impressions and events.")]
RunFolder = Annotated[Path, typer.Option("--run", metavar="RUN", help="Folder to write the run into.")]
Profile = Annotated[str, typer.Option("--profile", help="tiny (seconds, for a look), small (a laptop) or base (a GPU).")]
Until = Annotated[
    str,
    typer.Option(
        "--until",
        help="Last stage: sft (the policy), reward (page and item reward from preference pairs), ppo (pages learned from both) or "
        "renew (the policy fitted on to what rewards and pages were learned from, for serving).",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of all randomness: the same seed and threads give the same weights.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the same folder.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, for instance sft.epochs=4. May be repeated.")
]
Show = Annotated[bool, typer.Option("--show-config", help="Print the resolved configuration and stop.")]


def train(
    data: Data,
    run: RunFolder = Path("runs/latest"),
    profile: Profile = "small",
    until: Until = "sft",
    seed: Seed = 0,
    resume: Resume = False,
    settings: Settings = None,
    show_config: Show = False,
) -> None:
    """Train a policy from a shop's logs: language model, evidence head, with --until also rewards and reinforcement learning on pages; ends
    with a run folder to compose pages from."""
    from pagellm.config import STAGES
    from pagellm.errors import UsageError
    from pagellm.pipeline import stage_config, train_run

    if until not in STAGES:
        raise UsageError(f"The option --until must be one of {', '.join(STAGES)}. Got {until!r}.")
    config = stage_config(until, profile, settings or (), seed)
    if show_config:
        typer.echo(config.model_dump_json(indent=2))
        return
    from pagellm.cli.progress import show

    show(train_run(data, run, config, resume, tell=lambda line: typer.echo(line, err=True), until=until))
    typer.echo(f"Run: {run}")
    typer.echo(f"Next: pagellm compose {run} --user ID    or    pagellm evaluate {run}")
