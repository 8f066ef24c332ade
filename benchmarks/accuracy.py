"""How well the supervised policy ranks a real data set beside its baselines: several seeds, intervals over users, ratios that are paired.

    python benchmarks/accuracy.py DATA --runs FOLDER --seeds 3 --save
    python benchmarks/accuracy.py DATA --runs FOLDER --seeds 1 --drop popularity       what a group of evidence is worth

Each seed is a run of its own, trained and judged as the command line does it; finished seeds are read from the folder, so that an
interrupted job goes on. A user's value is the mean over seeds, and users are what the bootstrap draws.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import RESULTS, environment
from pagellm.__main__ import tune_allocator

METRICS = ("ndcg@10", "ndcg@100", "recall@20", "near_duplicates@10", "ild@10")
BASELINES = (
    "popularity",
    "popularity-7d",
    "popularity-30d",
    "popularity-90d",
    "itemknn",
    "ease",
    "text",
    "sasrec",
    "sasrec+recency",
)
CONTROL = "sasrec+recency"


def one_seed(data: Path, folder: Path, seed: int, drop: list[str], settings: list[str], against: list[str]) -> dict[str, Any]:
    """Trains and judges one seed; per-user values [user] of each method and metric, and the seconds that training took."""
    from pagellm.config import resolve
    from pagellm.pipeline import evaluate_run, finished, train_run

    values = folder / "values.json"
    if values.exists():
        return dict(json.loads(values.read_text()))
    chosen = [*settings, *([f"candidates.drop={json.dumps(drop)}"] if drop else [])]
    began = time.monotonic()
    if not finished(folder / "run"):
        for _ in train_run(data, folder / "run", resolve("small", chosen, seed=seed), resume=(folder / "run").exists(), tell=say):
            pass
    took = time.monotonic() - began
    found = evaluate_run(folder / "run", against, tell=say, seed=seed).results
    out = {
        "train_s": took,
        "values": {name: {m: found.column(name, m).tolist() for m in METRICS} for name in found.values},
    }
    values.write_text(json.dumps(out))
    return out


def combined(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and intervals of each method, and ratios of the policy to each, over users; a user's value is the mean over seeds."""
    from pagellm.evaluation.significance import interval, ratio_interval, resampled_means

    names = list(seeds[0]["values"])
    table = {n: np.mean([[s["values"][n][m] for m in METRICS] for s in seeds], axis=0).T for n in names}  # [user, metric]
    draws = {n: resampled_means(v) for n, v in table.items()}
    methods = {n: _row(table[n].mean(0), interval(draws[n])) for n in names}
    ours = table["pagellm"].mean(0)
    ratios = {
        n: _row(ours[:2] / table[n].mean(0)[:2], ratio_interval(draws["pagellm"][:, :2], draws[n][:, :2]))
        for n in names
        if n != "pagellm"
    }
    per_seed = [[float(np.mean(s["values"]["pagellm"][m])) for m in METRICS[:2]] for s in seeds]
    return {"users": len(table["pagellm"]), "methods": methods, "ratios": ratios, "pagellm_by_seed": per_seed}


def report(result: dict[str, Any]) -> str:
    """The table that is printed."""
    lines = [f"{'method':<16} {'NDCG@10':>24} {'NDCG@100':>24}   ratio at 10 and 100, 95 %"]
    for name, row in result["methods"].items():
        cells = "".join(f"  {row[m][0]:.4f} [{row[m][1]:.4f}, {row[m][2]:.4f}]" for m in METRICS[:2])
        ratio = result["ratios"].get(name)
        ends = "" if ratio is None else "".join(f"  {r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]" for r in ratio.values())
        lines.append(f"{name:<16}{cells} {ends}")
    singles = [n for n in result["ratios"] if n != CONTROL]
    for metric in METRICS[:2]:
        best = max(singles, key=lambda n: result["methods"][n][metric][0])
        lines.append(f"best single at {metric}: {best}, ratio {result['ratios'][best][metric]}")
    return "\n".join(lines)


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Runs the seeds and prints or saves what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--runs", type=Path, help="folder of the runs, one a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--drop", nargs="*", default=[], help="groups of evidence to leave out")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--against", default=",".join(BASELINES))
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="does nothing: real data are not in the repository")
    options = parser.parse_args()
    if options.smoke or options.data is None or options.runs is None:
        print("This benchmark needs DATA, a folder with a real data set, and --runs FOLDER.")
        sys.exit(0 if options.smoke else 2)
    tune_allocator()
    against = [name for name in options.against.split(",") if name]
    name = options.data.name + "".join(f"-without-{group}" for group in options.drop)
    seeds = [
        one_seed(options.data, options.runs / name / str(seed), seed, options.drop, options.settings, against)
        for seed in range(options.seeds)
    ]
    result = {"data": name, "seeds": options.seeds, "train_s": [s["train_s"] for s in seeds], **combined(seeds)}
    print(report(result))
    if options.save:
        record = {"environment": environment(), "settings": options.settings, **result}
        (RESULTS / f"accuracy-{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def _row(means: Any, ends: Any) -> dict[str, tuple[float, float, float]]:
    return {m: (float(v), float(lo), float(hi)) for m, v, lo, hi in zip(METRICS, means, ends[0], ends[1], strict=False)}


if __name__ == "__main__":
    main()
