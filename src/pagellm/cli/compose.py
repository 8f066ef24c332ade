"""`pagellm compose`: one page for a user or a history, as a grid, JSON or HTML. The pipeline makes it; titles stay data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that training left behind.")]
User = Annotated[str | None, typer.Option("--user", metavar="ID", help="A user of the log; an unknown one is treated as new.")]
History = Annotated[
    str | None, typer.Option("--history", metavar="ID,ID,…", help="Items in the order they were taken, oldest first.")
]
LayoutFile = Annotated[
    Path | None, typer.Option("--layout", metavar="FILE", help="Layout TOML; left out: the shop's own, else one row.")
]
K = Annotated[int, typer.Option("--k", min=1, max=500, help="Slots of the page where there is no layout.")]
Query = Annotated[
    str | None, typer.Option("--query", metavar="TEXT", help="Search text: only items whose text is alike are considered.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", min=0, max=10, help="0 writes the best page, 1 draws from the policy.")
]
Hybrid = Annotated[
    int | None, typer.Option("--hybrid", min=0, help="Slots written one by one before the rest is ranked at once.")
]
Group = Annotated[int, typer.Option("--group", min=1, max=256, help="Pages to write for this context.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of drawn pages.")]
At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="When the page is asked for, RFC 3339; else the end of the log.")
]
Policy = Annotated[str | None, typer.Option("--policy", metavar="sft|ppo", help="Stage whose policy writes; left out: the last.")]
Beside = Annotated[
    str | None, typer.Option("--beside", metavar="sft|ppo", help="Show the page of this stage's policy beside it (with --html).")
]
Explain = Annotated[bool, typer.Option("--explain", help="Show what each choice rests on.")]
Json = Annotated[bool, typer.Option("--json", help="Print the page as JSON.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a preview that opens in any browser.")]


def compose(
    run: RunFolder,
    user: User = None,
    history: History = None,
    layout: LayoutFile = None,
    k: K = 10,
    query: Query = None,
    temperature: Temperature = 0.0,
    hybrid: Hybrid = None,
    group: Group = 1,
    seed: Seed = 0,
    at: At = None,
    policy: Policy = None,
    beside: Beside = None,
    explain: Explain = False,
    as_json: Json = False,
    html: Html = None,
) -> None:
    """Write a page for a user or a history, within the layout's rules."""
    from pagellm.errors import UsageError

    if user is not None and history is not None:
        raise UsageError("Give --user or --history, not both: a user's history is read from the run's log.")
    from pagellm.composition import Composed, compose_for, parse_time
    from pagellm.layout.spec import Layout
    from pagellm.models.decoding import Writing
    from pagellm.models.run import load_run

    if beside is not None and html is None:
        raise UsageError("Two pages are shown beside each other in the preview. Add --html FILE.")
    opened = load_run(run)

    def written(stage: str | None) -> Composed:
        return compose_for(
            opened,
            user=user,
            history=[part.strip() for part in (history or "").split(",") if part.strip()],
            layout=None if layout is None else Layout.load(layout),
            slots=k,
            query=query,
            writing=Writing(temperature, hybrid),
            group=group,
            seed=seed,
            at=None if at is None else parse_time(at),
            explain=explain,
            stage=stage,
        )

    composed = written(policy)
    if html is not None:
        from pagellm.reporting.preview import page_html

        other = None if beside is None else written(beside).views[0]
        html.write_text(page_html(composed.views[0], other), encoding="utf-8")
    if as_json:
        pages = composed.as_json()
        typer.echo(json.dumps(pages[0] if group == 1 else pages, indent=2, ensure_ascii=True))
        return
    from rich.console import Console

    from pagellm.reporting.terminal import page_grid

    console = Console(markup=False, highlight=False, emoji=False)
    for view in composed.views:
        console.print(page_grid(view, console.width))
    if html is not None:
        typer.echo(f"Preview: {html}")
    typer.echo(f"Next: pagellm evaluate {run}" if html else f"Next: pagellm compose {run} --user ID --html page.html")
