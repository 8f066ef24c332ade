"""The files that an ablation leaves: the long table as Parquet and CSV, the claims, the page for people.

Takes a matrix, writes into its folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from pagellm import __version__
from pagellm.data.whole_files import write_bytes
from pagellm.models.run_tables import as_parquet
from pagellm.models.storage import read_json, write_json
from pagellm.reporting.ablation import AblationPage, Frontier, ablation_html
from pagellm.reproduction.arms import learned_arms
from pagellm.reproduction.claims import REPEATED, RERANKED, Finding, findings
from pagellm.reproduction.jobs import Matrix
from pagellm.reproduction.tables import Point, Points, tidy

_DRAWN = frozenset(arm.name for arm in learned_arms(["claim"]))
_ACROSS = {REPEATED: "near-duplicates among 10 slots (fewer is better)", "ild@10": "distance within a page (more is better)"}
_SHOWN = ("ndcg@10", REPEATED, "ild@10", "true_clicks")


def write_results(matrix: Matrix, command: str) -> tuple[pl.DataFrame, list[Finding]]:
    """Writes ablation.parquet, ablation.csv, claims.json and ablation.html from all finished jobs; returns table and claims."""
    points = Points.of(matrix)
    table, claims = tidy(points), findings(points)
    facts = {"command": command} | environment() | read_json(matrix.folder / "matrix.json")
    write_bytes(matrix.folder / "ablation.parquet", as_parquet(table))
    write_bytes(matrix.folder / "ablation.csv", table.write_csv().encode())
    write_json(matrix.folder / "claims.json", {"facts": facts, "claims": [claim.as_json() for claim in claims]})
    pooled = table.filter(pl.col("seed").is_null() & (pl.col("part") == "test") & pl.col("metric").is_in(_SHOWN))
    page = AblationPage(
        "Ablation: which rewards and which learning make better pages",
        [claim.as_json() for claim in claims],
        frontiers(points),
        pooled.to_dicts(),
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()},
    )
    write_bytes(matrix.folder / "ablation.html", ablation_html(page).encode())
    return table, claims


def frontiers(points: Points) -> list[Frontier]:
    """Drawings of each data set and base: learned arms beside re-rankers, over repetition and over variety."""
    out = []
    for dataset in points.datasets:
        some = points.of_dataset(dataset)
        for base, ranker in ((base, ranker) for base, rankers in RERANKED.items() for ranker in rankers):
            named = [(name, point) for point in some if (name := _series(point, base, ranker))]
            if not any(name.startswith("PPO") for name, _ in named):
                continue
            reading = f"Arms on the policy {base}, re-rankers of the supervised policy {ranker}; each line is one dial."
            for figure, label in _ACROSS.items():
                series: dict[str, list[tuple[float, float]]] = {}
                for name, point in named:
                    series.setdefault(name, []).append((point.mean("test", figure), point.mean("test", "ndcg@10")))
                lines = {name: sorted(series[name]) for name in sorted(series)}
                title = f"{dataset}, on {base}" + (f" against {ranker}" if ranker != base else "")
                out.append(Frontier(title, reading, lines, label, "NDCG@10"))
    return out


def _series(point: Point, base: str, ranker: str) -> str:
    """The line that a point belongs to in a drawing; empty where it is not drawn."""
    if point.method == "ppo" and point.base == base and point.arm in _DRAWN:
        return f"PPO {point.reward}" + (", repetition alone" if point.kind == "repetition" else "")
    if point.base == ranker and point.method in ("mmr", "dpp", "price"):
        return {"mmr": "MMR", "dpp": "DPP", "price": "flat price"}[point.method]
    return "supervised" if point.base == ranker and point.method == "sft" else ""


def environment() -> dict[str, Any]:
    """Date, machine and versions: what a reader needs to repeat it."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "polars", "numba")}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "pagellm": __version__,
        "versions": versions,
    }


def command_of(data: list[Path], seeds: int, groups: list[str], profile: str, settings: list[str], out: Path) -> str:
    """The command that makes this matrix again."""
    parts = [
        "pagellm reproduce ablation",
        *map(str, data),
        f"--seeds {seeds}",
        f"--only {','.join(groups)}",
        f"--profile {profile}",
    ]
    return " ".join([*parts, *(f"--set {setting}" for setting in settings), f"--out {out}"])
