"""From the finished jobs of a contest to its tables: one tidy file, one report a data set, the protocol in words.

A method's value for a user is the mean over its seeds; intervals draw users and, where a method has several, seeds. Takes a matrix, writes
into its folder.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pagellm.data.whole_files import write_bytes
from pagellm.evaluation.methods import SUBJECT
from pagellm.evaluation.metrics import CUTS
from pagellm.evaluation.results import Results, Tables, tables
from pagellm.evaluation.significance import interval, resampled_means
from pagellm.models.run_tables import as_parquet
from pagellm.models.storage import read_json, write_json
from pagellm.reporting.evidence import accuracy_by_depth, trade_off
from pagellm.reporting.paper import DEVIATIONS, PAPER
from pagellm.reporting.report import RunReport, report_html
from pagellm.reporting.verdict import METRICS
from pagellm.reproduction.jobs import Matrix, Outcome
from pagellm.reproduction.results import environment
from pagellm.types import F64

RULES = {
    "candidates": "items with an event in the log before the part that is judged; a target that is none counts as missed",
    "judged": "users with a history and a next basket, one context each; users without history are left out",
    "relevance": "binary: the items of the next basket, a set",
    "seen items": "left out of rankings and pages unless the run has split.repeats",
    "ties": "the item with more events before the cut stands first, then the lower catalog number",
    "search": "each method's settings once, with the first seed, on the warm contexts of the valid part by the mean of NDCG@10 and @100",
}
"""What rankings and pages are judged by, in words."""

CAUTION = (
    "A smoke run: few users, the smallest profile, quick baselines. It shows that everything works; its figures mean nothing."
)

KINDS = ("ranking", "page")
"""Rankings are judged for every test user, pages under the layout for at most 2,000 of them."""

_MOST_LINES = 6  # methods in the figure of accuracy by depth


@dataclass(frozen=True)
class Standing:
    """All methods of one data set under one kind of judging."""

    dataset: str
    kind: str  # one of KINDS
    results: Results
    figures: Tables
    seeds: dict[str, tuple[int, ...]]  # by method


def standings(outcomes: Mapping[str, Outcome]) -> list[Standing]:
    """One for each data set and kind. A method that lacks a seed which others have counts with the seeds that it has."""
    found: dict[str, dict[str, dict[int, Outcome]]] = defaultdict(lambda: defaultdict(dict))
    for key, outcome in outcomes.items():
        dataset, seed, method = key.split("/")
        if outcome.arrays:
            found[dataset][method][int(seed)] = outcome
    return [_standing(dataset, kind, methods) for dataset, methods in sorted(found.items()) for kind in KINDS]


def _standing(dataset: str, kind: str, methods: dict[str, dict[int, Outcome]]) -> Standing:
    first = next(iter(next(iter(methods.values())).values()))
    shared = [m.removeprefix(f"{kind}/") for m in first.arrays if m.startswith(f"{kind}/")]
    values, seeds = {}, {}
    for name in sorted(methods, key=lambda m: (m != SUBJECT, m)):
        every = np.stack(
            [np.stack([o.arrays[f"{kind}/{m}"] for m in shared], axis=1) for _, o in sorted(methods[name].items())]
        )  # [seed, user, metric]
        values[name] = every.mean(0)
        if len(every) > 1:
            seeds[name] = every
    users = first.arrays[f"users/{kind}"].astype(np.int32)
    results = Results(users, tuple(shared), values, seeds)
    return Standing(dataset, kind, results, tables(results, SUBJECT), {n: tuple(sorted(s)) for n, s in methods.items()})


def tidy(found: list[Standing], protocol: str) -> pl.DataFrame:
    """A row for each data set, kind, method, metric and seed (null: all), with 95 % intervals; `paired_*`: policy minus method."""
    return pl.DataFrame([row for standing in found for row in _rows(standing, protocol)], infer_schema_length=None)


def _rows(s: Standing, protocol: str) -> Iterator[dict[str, object]]:
    for method, figures in s.figures.methods.items():
        facts = {"dataset": s.dataset, "protocol": protocol, "kind": s.kind, "method": method}
        for metric, e in figures.items():
            row: dict[str, object] = {"seed": None, "metric": metric, "users": len(s.results.users), "mean": e.value}
            row |= {"lo": e.low, "hi": e.high, "seeds": len(s.seeds[method])}
            gap = s.figures.paired.get(method, {}).get(metric)
            if gap is not None:
                row |= {"paired_diff": gap.value, "paired_lo": gap.low, "paired_hi": gap.high}
                row |= {"p_holm": s.figures.p_holm[method][metric]}
            yield facts | row
        for seed, values in zip(s.seeds[method], _each_seed(s.results, method), strict=True):
            low, high = interval(resampled_means(values))
            for at, metric in enumerate(s.results.metrics):
                ends = {"lo": float(low[at]), "hi": float(high[at])}
                mean = float(values[:, at].mean())
                yield facts | {"seed": seed, "metric": metric, "users": len(values), "mean": mean, **ends, "seeds": 1}


def _each_seed(results: Results, method: str) -> F64:
    """[seed, user, metric]."""
    return results.seeds.get(method, results.values[method][None])


def write_standings(matrix: Matrix, command: str) -> pl.DataFrame:
    """Writes results.parquet, results.csv, protocol.json and DATASET.html; returns the table."""
    made_with = read_json(matrix.folder / "matrix.json")
    outcomes = {key: matrix.read(key) for key in matrix.finished()}
    found = standings(outcomes)
    table = tidy(found, made_with["protocol"])
    notes = {key: outcome.notes for key, outcome in outcomes.items()}
    card = protocol_card(made_with, notes, command)
    write_bytes(matrix.folder / "results.parquet", as_parquet(table))
    write_bytes(matrix.folder / "results.csv", table.write_csv().encode())
    write_json(matrix.folder / "protocol.json", card)
    for ranking, pages in zip(found[::2], found[1::2], strict=True):
        html = report_html(_report(ranking, pages, made_with, notes, command))
        write_bytes(matrix.folder / f"{ranking.dataset}.html", html.encode())
    return table


def protocol_card(made_with: dict[str, Any], notes: dict[str, dict[str, Any]], command: str) -> dict[str, Any]:
    """What was done, for whoever repeats it: split, searches, what was left out, environment, deviations from the paper."""
    return {
        "command": command,
        "made_with": made_with,
        "environment": environment(),
        "split": {key.split("/")[0]: n["split"] for key, n in notes.items() if "split" in n},
        "searches": {key: n["search"] for key, n in notes.items() if n.get("search")},
        "re-ranked": {key: n["base"] for key, n in notes.items() if n.get("base")},
        "last_stage": {key: n["stage"] for key, n in notes.items() if n["method"] == SUBJECT},
        "left_out": {key: n["left_out"] for key, n in notes.items() if "left_out" in n},
        "seconds": {key: n["seconds"] for key, n in notes.items()},
        "rules": dict(RULES) | {"cut-offs": list(CUTS)},
        "definitions": {name: metric.meaning for name, metric in METRICS.items()},
        "intervals": "95 % percentile bootstrap; users are drawn and, where a method has several, seeds; p after Holm over one table",
        "paper": PAPER,
        "deviations": list(DEVIATIONS),
    }


def _report(
    ranking: Standing, pages: Standing, made_with: dict[str, Any], notes: dict[str, dict[str, Any]], command: str
) -> RunReport:
    seeds = {method: len(s) for method, s in ranking.seeds.items()}
    split = next(n["split"] for key, n in notes.items() if key.startswith(f"{ranking.dataset}/") and "split" in n)
    evaluation = {"split": made_with["protocol"], "users": len(ranking.results.users), **ranking.figures.as_json()}
    evaluation |= {"pages": {"users": len(pages.results.users), **pages.figures.as_json()}}
    shown = sorted(ranking.results.values, key=lambda m: (m != SUBJECT, -ranking.figures.methods[m]["ndcg@10"].value))[
        :_MOST_LINES
    ]
    figures = accuracy_by_depth(evaluation, shown), trade_off(evaluation)
    return RunReport(
        f"{ranking.dataset}: every method, {max(seeds.values())} seeds",
        evaluation,
        protocol=split | RULES,
        caution=CAUTION if made_with["size"] == "smoke" else "",
        figures=[figure for figure in figures if figure is not None],
        paper=(),
        data={"seeds by method": json.dumps(seeds)},
        appendix={"command": command, **environment()},
        subject=SUBJECT,
    )
