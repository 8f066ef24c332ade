"""The command group `pagellm simulate`: writes shops with known truth. Imports the simulation inside its command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Simulate shops whose truth is known.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Simulate shops whose truth is known."""


@app.command()
def world(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist or be empty.")],
    profile: Annotated[str, typer.Option(help="Size of the world: tiny, demo or small.")] = "demo",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal shops.")] = 7,
    pages: Annotated[int | None, typer.Option(help="Logged pages (default: the profile's).")] = None,
    policy: Annotated[
        str, typer.Option(help="Who chose the pages: mixed, uniform, popularity, personal, epsilon or popular-top.")
    ] = "mixed",
    threads: Annotated[int, typer.Option(min=1, help="Threads; the result does not depend on them.")] = 1,
) -> None:
    """Write a simulated shop: items, users, logged pages with feedback, a layout, and the truth beside them."""
    from pagellm.simulation.disk import write_world
    from pagellm.simulation.logging_policies import mixture
    from pagellm.simulation.shop_log import simulate_log
    from pagellm.simulation.spec import profile as spec_of
    from pagellm.simulation.world import World

    spec = spec_of(profile) if pages is None else spec_of(profile, pages=pages)
    mixture(policy)  # an unknown name is told before the work starts
    typer.echo(f"simulating {spec.items:,} items, {spec.users:,} users, {spec.pages:,} pages · seed {seed}", err=True)
    shop = World.make(spec, seed)
    log = simulate_log(shop, policy, threads=threads)
    write_world(shop, log, out)
    seen = log.feedback
    typer.echo(
        f"{out}: {spec.items:,} items · {spec.users:,} users · {len(log.items):,} pages of {spec.rows} x {spec.cols} slots · "
        f"{int(seen.clicked.sum()):,} clicks · {int(seen.carted.sum()):,} carts · {int(seen.purchased.sum()):,} purchases"
    )
    typer.echo(f"Next: pagellm data check {out}")
