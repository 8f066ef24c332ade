"""`pagellm evaluate`: judges a run's policy beside baselines. Renders a comparison; the pipeline makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pagellm.evaluation.pages.judge import PageComparison
    from pagellm.evaluation.protocol import Comparison
    from pagellm.evaluation.results import Estimate, Tables

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Folder that training left behind; several are taken as seeds of one configuration."),
]
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


COMPOSED = {
    "Composed pages: what users took next, where people look": ("page_dcg", "page_ndcg", "expected_clicks", "filled"),
    "Composed pages: variety and reach": (
        *("repeats", "group_repeats", "near_duplicates", "row_overlap", "ild", "category_entropy", "brand_entropy"),
        *("novelty", "tail_share", "new_share", "coverage", "gini"),
    ),
    "Composed pages: prices and ads": ("price_level", "price_spread", "ad_share"),
}
CHECKED = ("violations_raw", "violations_served", "order_sensitivity")
_TOLD_ABOVE = ("near_duplicates", "ild", "novelty", "coverage")  # of the first ten, which a page of one row without rules is


def evaluate(runs: Runs, against: Against = None, json_file: Json = None) -> None:
    """Compare the run's policy with baselines on the test users of its split: rankings and composed pages, means, 95 % intervals, paired
    differences. Several runs, of one configuration with different seeds, count as one method whose seeds are drawn beside users."""
    from pagellm.comparing import evaluate_runs
    from pagellm.evaluation.methods import resolve

    comparison = evaluate_runs(runs, resolve(against), tell=lambda line: typer.echo(line, err=True))
    if json_file is not None:
        _write(json_file, comparison.as_json())
    if json_file is None or str(json_file) != "-":
        _print(comparison)
        typer.echo(f"Next: pagellm compose {runs[0]} --user ID --explain")


def _print(comparison: Comparison) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    users, candidates = f"{len(comparison.results.users):,}", f"{comparison.card['candidates']:,}"
    seeds = comparison.card.get("seeds")
    over = f"users and {len(seeds)} training seeds" if isinstance(seeds, list) else "users"
    console.print(f"Split {comparison.split} · {users} warm test users · {candidates} candidates · 95 % intervals over {over}")
    for title, metrics in (("Do pages hold what users took next?", ACCURACY), ("What are pages like?", PAGE)):
        for some in _columns_that_fit(metrics, console.width):
            starred = {m: comparison.best(m) for m in some if m in ACCURACY and len(comparison.methods) > 1}
            console.print(_table(title if some[0] == metrics[0] else None, comparison.methods, some, starred))
    if comparison.pages is not None:
        _print_pages(console, comparison.subject, comparison.pages)
    if comparison.ratio:
        console.print(_pairs(comparison))
        console.print(_tests(comparison))
    for name, part in (("Users without history", comparison.cold_users), ("New items among themselves", comparison.cold_items)):
        if part is not None:
            console.print(_apart(name, part))
    left_out = comparison.card.get("left_out")
    for name, reason in left_out.items() if isinstance(left_out, dict) else ():
        console.print(f"Not compared with {name}: {reason}")


def _columns_that_fit(metrics: tuple[str, ...], width: int) -> list[tuple[str, ...]]:
    """The metrics in tables of equal width, as few as a terminal of this width has room for."""
    if not metrics:
        return []
    most = max((width - 15) // 20, 1)  # the longest name of a method, and of a metric with the space around it
    each = -(-len(metrics) // -(-len(metrics) // most))
    return [metrics[at : at + each] for at in range(0, len(metrics), each)]


def _print_pages(console: Console, subject: str, pages: PageComparison) -> None:
    """What composed pages are like, then whether they keep the layout."""
    card = pages.card
    rows = len(card["rows"])  # type: ignore[arg-type]
    size = f"{rows} row{'s' if rows > 1 else ''}, {card['slots']} slots"
    console.print(f"Pages of layout {card['layout']} · {size} · {card['users']}")
    console.print(f"Look: {card['look']}. Ideal: {card['ideal']}.")
    for title, wanted in COMPOSED.items():
        metrics = tuple(m for m in wanted if m in pages.results.metrics and (card["ruled"] or m not in _TOLD_ABOVE))
        for some in _columns_that_fit(metrics, console.width):
            console.print(_table(title if some[0] == metrics[0] else None, pages.figures.methods, some, {}))
    table = _bare(f"Composed pages: rules ({len(pages.checked.users):,} users)", "method", *CHECKED)
    for name, row in pages.rates.items():
        table.add_row(name, *(_figure(_estimate(row[m])) if m in row else "-" for m in CHECKED))
    console.print(table)
    for name in (n for n, row in pages.rates.items() if row["violations_served"]["mean"]):
        console.print(f"Served pages of {name} break rules, which the masks should make impossible: please report it.")
    for name, rules in pages.broken.items():
        if rules:
            worst = ", ".join(f"{rule} {count:,}" for rule, count in list(rules.items())[:3])
            console.print(f"{name} without masks breaks most: {worst}")
    if pages.figures.paired:
        console.print(_page_pairs(subject, pages.figures))


def _table(
    title: str | None, methods: Mapping[str, Mapping[str, Estimate]], metrics: tuple[str, ...], starred: Mapping[str, str]
) -> Table:
    """Methods by metrics; `starred` names the best baseline of a metric."""
    table = _bare(title, "method", *metrics)
    for name, row in methods.items():
        table.add_row(name, *(_figure(row[m]) + ("*" if starred.get(m) == name else "") for m in metrics))
    return table


def _pairs(comparison: Comparison) -> Table:
    """The subject against each other method: ratios for accuracy, a difference for near-duplicates."""
    table = _bare(f"{comparison.subject} against", "method", "ndcg@10 ×", "ndcg@100 ×", "near_duplicates@10 −")
    for name, row in comparison.ratio.items():
        ratios = (_range(row[m]) if m in row else "no ratio to 0" for m in ("ndcg@10", "ndcg@100"))
        table.add_row(name, *ratios, _range(comparison.paired[name]["near_duplicates@10"]))
    return table


def _tests(comparison: Comparison) -> Table:
    """How likely such differences would be by chance alone, after Holm's correction over all tests of the comparison."""
    metrics = ("ndcg@10", "ndcg@100", "recall@20", "near_duplicates@10")
    count = sum(map(len, comparison.p_holm.values()))
    table = _bare(f"p of no difference, corrected for {count} tests (Holm)", "method", *metrics)
    for name, row in comparison.p_holm.items():
        table.add_row(name, *(f"{row[m]:.3f}" for m in metrics))
    return table


def _page_pairs(subject: str, figures: Tables) -> Table:
    """The subject's pages less those of each other method, with the corrected p of the first difference."""
    table = _bare(f"Pages of {subject} less those of", "method", "page_ndcg −", "p Holm", "near_duplicates −")
    for name, row in figures.paired.items():
        ndcg = row["page_ndcg"]
        told = f"{ndcg.value:+.4f} [{ndcg.low:+.4f}, {ndcg.high:+.4f}]"
        table.add_row(name, told, f"{figures.p_holm[name]['page_ndcg']:.3f}", _range(row["near_duplicates"]))
    return table


def _apart(title: str, part: dict[str, object]) -> Table:
    methods = part["methods"]
    assert isinstance(methods, dict)
    table = _bare(f"{title} ({part['users']:,} users, {part['candidates']:,} candidates)", "method", "ndcg@10", "ndcg@100")
    for name, row in methods.items():
        table.add_row(name, *(_figure(_estimate(row[m])) for m in ("ndcg@10", "ndcg@100")))
    return table


def _estimate(cell: Mapping[str, Any]) -> Estimate:
    """A cell of plain values as a record."""
    from pagellm.evaluation.results import Estimate

    return Estimate(cell["mean"], *cell["ci95"])


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
