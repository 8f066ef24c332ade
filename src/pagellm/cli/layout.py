"""`pagellm layout check`: what a layout file says, and whether any page can keep it. Prints; changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from pagellm.layout.spec import Layout

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rows and rules of pages.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Layout in TOML, as docs/layout.md describes.")]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="DATA", help="Data folder: checks the rules against its catalog as well.")
]


@app.callback()
def root() -> None:
    """Rows and rules of pages."""


@app.command()
def check(file: File, data: Data = None) -> None:
    """Read a layout, print its rows and rules, and say why no page can keep it, if so. Exit code 2 if none can."""
    import time

    from rich.console import Console

    from pagellm.errors import LayoutError
    from pagellm.layout.feasible import problems
    from pagellm.layout.spec import Layout

    layout = Layout.load(file)
    out = Console(markup=False, highlight=False)
    out.print(_rows(layout))
    out.print(_rules(layout))
    catalog = None
    if data is not None:
        from pagellm.data.readers import read_log

        catalog = read_log(data).catalog
    found = problems(layout, catalog, int(time.time()))
    if found:
        raise LayoutError(f"No full page can keep layout {file}:\n  " + "\n  ".join(found))
    held = (
        f"the {len(catalog):,} items of {data}"
        if catalog is not None
        else "its own terms; --data DATA checks it against a catalog"
    )
    typer.echo(f"Layout {layout.id!r} version {layout.version} can be kept on {held}.")
    typer.echo(f"Next: pagellm compose RUN --layout {file}")


def _rows(layout: Layout) -> Table:
    from rich.table import Table
    from rich.text import Text

    order = "in this order" if layout.order == "fixed" else f"{layout.shown} of {len(layout.rows)} in the policy's order"
    table = Table(title=Text(f"{layout.id}: rows, {order}"), title_justify="left")
    for name in ("row", "kind", "slots", "visible", "filled by", "title"):
        table.add_column(name, justify="right" if name in ("slots", "visible") else "left")
    for row in layout.rows:
        name = row.id + (" (optional)" if row.optional else "")
        cells = (name, row.kind, str(row.capacity), str(row.visible or row.capacity), row.source.words, " | ".join(row.titles))
        table.add_row(*(_plain(cell) for cell in cells))
    return table


def _rules(layout: Layout) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("rules, the first wins"), title_justify="left")
    for name in ("rule", "says", "soft"):
        table.add_column(name)
    rules = layout.rules
    says = [(rule.name, False) for rule in rules.exclude] + [(rule.name, False) for rule in rules.pin]
    says += [(rules.ads.name, False)] if rules.ads is not None else []
    says += [(rule.name, False) for rule in rules.max_per] + [(rule.name, rule.soft) for rule in rules.min_per]
    says += [(rule.name, rule.soft) for rule in rules.dedup]
    says += [(rules.frequency_cap.name, rules.frequency_cap.soft)] if rules.frequency_cap is not None else []
    for name, soft in says:
        kind, _, words = name.partition(" ")
        table.add_row(kind, _plain(words), "soft" if soft else "")
    for kind, factors in (("boost", rules.boost), ("bury", rules.bury)):
        for factor in factors:
            table.add_row(kind, _plain(f"\u00d7 {factor.factor:g} where {factor.where}"), "")
    table.add_row("repeat", "no item twice on a page", "")
    return table


def _plain(text: str) -> Text:
    from rich.text import Text

    from pagellm.catalog import clean_text

    return Text(clean_text(text))
