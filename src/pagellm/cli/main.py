"""The command tree: joins the command groups, prints errors as one message, maps them to exit codes."""

from __future__ import annotations

import sys

import click
import typer
from rich.console import Console

from pagellm import __version__
from pagellm.errors import PagellmError

app = typer.Typer(
    name="pagellm",
    help="Fine-tune a language model to write whole pages from a shop's own feedback logs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"pagellm {__version__}")


def run(args: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 ok, 1 failure, 2 usage, 3 data, 4 gate, 130 interrupted."""
    console = Console(stderr=True, highlight=False, markup=False)
    try:
        result = app(args=args, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except PagellmError as error:
        console.print(f"error: {error}", soft_wrap=True)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        console.print("interrupted: what was finished is saved; the same command with --resume goes on")
        return 130
