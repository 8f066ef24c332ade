"""The arms of an ablation of the same data, as its long table tells them. Takes a path, gives rows. Knows no arm by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from pagellm.errors import DataError
from pagellm.models.storage import read_json
from pagellm.reporting.tables import ABLATION_METRICS

TABLE, CLAIMS = "ablation.parquet", "claims.json"
_COLUMNS = ("dataset", "part", "arm", "base", "metric", "mean", "lo", "hi", "paired_diff", "paired_lo", "paired_hi")


def ablation_rows(path: Path, dataset: str) -> list[dict[str, Any]]:
    """Pooled figures of the test part for a data set. `path` is the table (Parquet or CSV) or the folder that holds it.

    Raises DataError where there is none, it lacks a column, or it knows no such data set.
    """
    file = path / TABLE if path.is_dir() else path
    try:
        table = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
    except (OSError, PolarsError) as problem:
        raise DataError(
            f"No table of an ablation can be read from {file} ({problem}). Name what `pagellm reproduce ablation` left."
        ) from problem
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{file} lacks the columns {', '.join(missing)}. Name the table that `pagellm reproduce ablation` wrote.")
    known = table["dataset"].unique().sort().to_list()
    if dataset not in known:
        raise DataError(
            f"The ablation {file} is of {', '.join(map(str, known))}. This run is of {dataset!r}: name an ablation of its data."
        )
    pooled = table.filter(pl.col("seed").is_null()) if "seed" in table.columns else table
    wanted = (pl.col("dataset") == dataset) & (pl.col("part") == "test") & pl.col("metric").is_in(ABLATION_METRICS)
    return pooled.filter(wanted).select(_COLUMNS).to_dicts()


def paper_findings(path: Path, dataset: str) -> list[dict[str, Any]]:
    """What the ablation found where the paper's abstract has a figure; none where `path` is no folder that holds its claims."""
    if not (path / CLAIMS).exists():
        return []
    claims = read_json(path / CLAIMS)["claims"]
    return [claim for claim in claims if claim["claim"] == "paper" and claim["dataset"] == dataset]
