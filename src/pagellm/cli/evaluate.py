"""`pagellm evaluate`: judges a run's policy beside baselines. Renders a comparison; the pipeline makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pagellm.evaluation.protocol import Comparison, Estimate

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that training left behind.")]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="NAME,…|all",
        help="Baselines to compare with: popularity, popularity-7d, popularity-30d, popularity-90d, itemknn, text, ease, als, bpr, "
        "lambdamart, sasrec, sasrec+recency, gru4rec, item-lm, mmr, dpp, logging, sft. Left out: those that take seconds.",
    ),
]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")]

ACCURACY = ("ndcg@10", "ndcg@100", "recall@20", "hit@10", "mrr@10", "map@10")
PAGE = ("ild@10", "near_duplicates@10", "category_coverage@10", "catalog_coverage@10", "novelty@10")


def evaluate(run: Run, against: Against = None, json_file: Json = None) -> None:
    """Compare the run's policy with baselines on the test users of its split: means, 95 % intervals, paired differences."""
    from pagellm.evaluation.methods import resolve
    from pagellm.pipeline import evaluate_run

    comparison = evaluate_run(run, resolve(against), tell=lambda line: typer.echo(line, err=True))
    if json_file is not None:
        _write(json_file, comparison.as_json())
    if json_file is None or str(json_file) != "-":
        _print(comparison)
        typer.echo(f"Next: pagellm compose {run} --user ID --explain")


def _print(comparison: Comparison) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    users, candidates = f"{len(comparison.results.users):,}", f"{comparison.card['candidates']:,}"
    console.print(f"Split {comparison.split} · {users} warm test users · {candidates} candidates · 95 % intervals over users")
    for title, metrics in (("Do pages hold what users took next?", ACCURACY), ("What are pages like?", PAGE)):
        for some in _columns_that_fit(metrics, console.width):
            console.print(_table(title if some[0] == metrics[0] else None, comparison, some))
    if comparison.ratio:
        console.print(_pairs(comparison))
    for name, part in (("Users without history", comparison.cold_users), ("New items among themselves", comparison.cold_items)):
        if part is not None:
            console.print(_apart(name, part))
    left_out = comparison.card.get("left_out")
    for name, reason in left_out.items() if isinstance(left_out, dict) else ():
        console.print(f"Not compared with {name}: {reason}")


def _columns_that_fit(metrics: tuple[str, ...], width: int) -> list[tuple[str, ...]]:
    """The metrics in tables of equal width, as few as a terminal of this width has room for."""
    most = max((width - 15) // 20, 1)  # the longest name of a method, and of a metric with the space around it
    each = -(-len(metrics) // -(-len(metrics) // most))
    return [metrics[at : at + each] for at in range(0, len(metrics), each)]


def _table(title: str | None, comparison: Comparison, metrics: tuple[str, ...]) -> Table:
    """Methods by metrics; the best mean of each accuracy metric among the baselines carries a star."""
    table = _bare(title, "method", *metrics)
    starred = {m: comparison.best(m) for m in metrics if m in ACCURACY and len(comparison.methods) > 1}
    for name, row in comparison.methods.items():
        table.add_row(name, *(_figure(row[m]) + ("*" if starred.get(m) == name else "") for m in metrics))
    return table


def _pairs(comparison: Comparison) -> Table:
    """The subject against each other method: ratios for accuracy, a difference for near-duplicates."""
    table = _bare(f"{comparison.subject} against", "method", "ndcg@10 ×", "ndcg@100 ×", "near_duplicates@10 −")
    for name, row in comparison.ratio.items():
        ratios = (_range(row[m]) if m in row else "no ratio to 0" for m in ("ndcg@10", "ndcg@100"))
        table.add_row(name, *ratios, _range(comparison.paired[name]["near_duplicates@10"]))
    return table


def _apart(title: str, part: dict[str, object]) -> Table:
    methods = part["methods"]
    assert isinstance(methods, dict)
    table = _bare(f"{title} ({part['users']:,} users, {part['candidates']:,} candidates)", "method", "ndcg@10", "ndcg@100")
    for name, row in methods.items():
        table.add_row(name, *(f"{row[m]['mean']:.4f}" for m in ("ndcg@10", "ndcg@100")))
    return table


def _bare(title: str | None, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    return table


def _figure(e: Estimate) -> str:
    """The mean and half the width of its interval."""
    digits = 4 if abs(e.value) < 1 else 2
    return f"{e.value:.{digits}f} ±{(e.high - e.low) / 2:.{digits}f}"


def _range(e: Estimate) -> str:
    return f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"


def _write(path: Path, value: dict[str, object]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
    if str(path) == "-":
        typer.echo(text)
    else:
        path.write_text(text + "\n", encoding="utf-8")
