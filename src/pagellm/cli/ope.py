"""`pagellm ope`: what a policy would have earned, from a log that another policy wrote, or why the log cannot say. Prints tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pagellm.evaluation.ope.judging import Figure
    from pagellm.offpolicy.verdict import OffPolicy

RunFolder = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="A run whose policy is judged; left out, the policy of --target-log is.")
]
Log = Annotated[Path, typer.Option("--log", metavar="DATA", help="A folder of logged pages; without RUN a log of single slots.")]
Target = Annotated[
    Path | None,
    typer.Option(
        "--target-log", metavar="DATA", help="Slot log of the policy to be judged, without RUN; left out, --log itself."
    ),
]
LoggedBy = Annotated[str | None, typer.Option("--logged-by", metavar="ID", help="Read only what this logging policy logged.")]
TargetBy = Annotated[
    str | None, typer.Option("--target-by", metavar="ID", help="The policy to be judged, by its id in the slot log.")
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="COLUMN=VALUE", help="Rows of slot logs that are read. May be repeated.")
]
Policy = Annotated[
    str | None, typer.Option("--policy", metavar="sft|ppo", help="Stage whose policy is judged; left out: the last.")
]
Temperature = Annotated[float, typer.Option("--temperature", max=10, help="At which the run's policy draws; above 0.")]
Reward = Annotated[str, typer.Option("--reward", metavar="NAME", help="clicks, carts, purchases or value, a page.")]
Slots = Annotated[int | None, typer.Option("--slots", metavar="K", min=1, help="Judge the first K slots of each page alone.")]
LayoutFile = Annotated[
    Path | None,
    typer.Option("--layout", metavar="FILE", help="Layout of the logged pages; left out: the run's own, else one row."),
]
Estimate = Annotated[
    bool, typer.Option("--estimate-propensities", help="Estimate missing propensities; every figure then says so.")
]
Pages = Annotated[int, typer.Option("--pages", metavar="N", min=10, help="Logged pages read at most; of more, users are drawn.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of all draws.")]


def ope(
    log: Log,
    run: RunFolder = None,
    target_log: Target = None,
    logged_by: LoggedBy = None,
    target_by: TargetBy = None,
    only: Only = None,
    policy: Policy = None,
    temperature: Temperature = 1.0,
    reward: Reward = "clicks",
    slots: Slots = None,
    layout: LayoutFile = None,
    estimate_propensities: Estimate = False,
    pages: Pages = 20_000,
    json_file: Json = None,
    seed: Seed = 0,
) -> None:
    """Judge a policy from a log that another policy wrote. Exits 4 where the log cannot say anything."""
    from pagellm.errors import UsageError

    slot_options = [name for name, given in (("--target-log", target_log), ("--target-by", target_by), ("--only", only)) if given]
    if run is not None and slot_options:
        raise UsageError(f"{slot_options[0]} is for two slot logs, and RUN is for logged pages. Give one or the other.")
    if run is None:
        if target_log is None and target_by is None:
            raise UsageError("Nothing says which policy is to be judged. Give RUN, or --target-log, or --target-by.")
        page_options = {
            "--policy": policy is not None,
            "--temperature": temperature != 1.0,
            "--reward": reward != "clicks",
            "--slots": slots is not None,
            "--layout": layout is not None,
        }
        if any(page_options.values()):
            strange = next(name for name, given in page_options.items() if given)
            raise UsageError(
                f"{strange} says how a run is judged on pages, and two slot logs hold neither. Leave it out, or give RUN."
            )
        from pagellm.offpolicy.judged_slots import judge_slots

        found = judge_slots(log, target_log or log, logged_by, target_by, _choices(only or []), seed, estimate_propensities)
    else:
        from pagellm.layout.spec import Layout
        from pagellm.offpolicy.judged_run import Asked, judge_run

        chosen = None if layout is None else Layout.load(layout)
        asked = Asked(policy, temperature, reward, slots, logged_by, chosen, estimate_propensities, pages, seed)
        found = judge_run(run, log, asked, tell=lambda line: typer.echo(line, err=True))
    _show(found, json_file)
    if not found.judgement.answered:
        raise typer.Exit(4)


def _choices(only: Sequence[str]) -> dict[str, str]:
    from pagellm.errors import UsageError

    for text in only:
        if "=" not in text.strip("="):
            raise UsageError(f"A choice of rows is COLUMN=VALUE, for instance campaign=men. Got {text!r}.")
    return dict(text.split("=", 1) for text in only)


def _show(found: OffPolicy, json_file: Path | None) -> None:
    from rich.console import Console

    if json_file is not None:
        text = json.dumps(found.as_json(), indent=2, allow_nan=False)
        typer.echo(text) if str(json_file) == "-" else json_file.write_text(text + "\n", encoding="utf-8")
    if json_file is not None and str(json_file) == "-":
        return
    console = Console(markup=False, highlight=False, emoji=False, width=None)
    console.print(" · ".join(f"{name} {value}" for name, value in found.facts.items()))
    for note in found.words:
        console.print(f"Note: {note}.")
    judgement = found.judgement
    for title, figures in (("Estimators", judgement.figures), ("Slot by slot (iips)", judgement.slots)):
        if any(figure.refusal is None for figure in figures):
            console.print(_table(title, figures))
    for figure in (*judgement.figures, *judgement.slots):
        if figure.refusal is not None:
            console.print(f"{figure.name}: {figure.refusal.verdict}.")
    if found.truth:
        console.print(f"The evaluation policy's own log: {_own(found)}")
    if judgement.judged and any(f.refusal is not None for f in judgement.figures if f.name == "rips"):
        console.print(f"Next: the first {judgement.judged} slots can be judged with prefix weights: --slots {judgement.judged}")


def _table(title: str, figures: Sequence[Figure]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (
        "estimator",
        "value [bootstrap 95 %]",
        "Bernstein 95 %",
        "against logged",
        "n",
        "ESS",
        "max w",
        "support",
        "clip 10 / 100",
    ):
        table.add_column(column, justify="left" if column == "estimator" else "right")
    for figure in figures:
        if figure.refusal is None:
            table.add_row(*_cells(figure))
    return table


def _cells(f: Figure) -> list[str]:
    assert f.value is not None
    assert f.bootstrap is not None
    assert f.bernstein is not None
    assert f.gain is not None
    assert f.logged is not None
    assert f.overlap is not None
    at = dict(f.clipped)
    return [
        f.name,
        f"{f.value:.4g} [{f.bootstrap.low:.4g}, {f.bootstrap.high:.4g}]",
        f"[{f.bernstein.low:.3g}, {f.bernstein.high:.3g}]",
        f"{f.value - f.logged:+.3g} [{f.gain.low:+.3g}, {f.gain.high:+.3g}]",
        f"{f.pages:,}",
        f"{f.overlap.ess:,.0f}",
        f"{f.overlap.max_weight:,.3g}",
        f"{f.overlap.support:.0%}",
        f"{at[10.0]:.4g} / {at[100.0]:.4g}",
    ]


def _own(found: OffPolicy) -> str:
    parts = []
    for name in ("a_row", "a_page"):
        entry = found.truth[name]
        assert isinstance(entry, dict)
        low, high = entry["bootstrap95"]
        parts.append(f"{entry['value']:.4g} [{low:.4g}, {high:.4g}] {name.replace('_', ' ')}")
    return f"{' · '.join(parts)} ({found.truth['rows']:,} rows)"
