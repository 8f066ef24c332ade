"""The command tree: joins the command groups, prints errors as one message, maps them to exit codes."""

from __future__ import annotations

import typer
from rich.console import Console

from pagellm import __version__
from pagellm.cli import compose, data, demo, evaluate, layout, ope, pairs, report, reproduce, rewards, simulate, train
from pagellm.errors import PagellmError

app = typer.Typer(
    name="pagellm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.add_typer(data.app, name="data")
app.command()(demo.demo)
app.command()(train.train)
app.command()(compose.compose)
app.command()(evaluate.evaluate)
app.command()(report.report)
app.command()(ope.ope)
app.add_typer(layout.app, name="layout")
app.add_typer(pairs.app, name="pairs")
app.add_typer(rewards.app, name="rewards")
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(simulate.app, name="simulate")


@app.callback()
def root() -> None:
    """Fine-tune a language model to write whole pages from a shop's own feedback logs."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"pagellm {__version__}")


def run(args: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 ok, 1 failure, 2 usage, 3 data, 4 gate, 130 interrupted."""
    try:
        app(args=args)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except PagellmError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"error: {error}")
        return error.exit_code
    except OSError as error:  # a disk that is full, a folder that is not there: what the user can mend
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        typer.echo("interrupted: what was finished is saved; the same command with --resume goes on", err=True)
        return 130
    return 0
