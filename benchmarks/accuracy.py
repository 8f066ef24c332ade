"""How well the supervised policy ranks a real data set beside its baselines: several seeds, intervals over users, ratios that are paired.

    python benchmarks/accuracy.py DATA --runs FOLDER --seeds 3 --save
    python benchmarks/accuracy.py DATA --runs FOLDER --seeds 3 --save --drop popularity     what a group of evidence is worth

Each seed is a run of its own, trained and judged as the command line does it; finished seeds are read from the folder, so that an
interrupted job goes on. A user's value is the mean over seeds, and users are what the bootstrap draws.

With `--drop`, the finished seeds' language models are taken as they are, for they read no evidence; the candidates are drawn and the
evidence head is fitted anew without the group. `--drop policy` leaves the language model itself out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import replace
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
SEEDED = ("sasrec", CONTROL)  # the others give the same figures for every seed and are judged once
WHOLE = "pagellm, whole"  # the policy with all evidence, beside an ablated one
LM = "lm.safetensors"  # the language model that the evidence head was fitted on, kept for ablations


def one_seed(data: Path, folder: Path, seed: int, settings: list[str], against: list[str]) -> dict[str, Any]:
    """Trains and judges one seed; per-user values [user] of each method and metric, and the seconds that training took."""
    from pagellm.comparing import evaluate_run
    from pagellm.config import resolve
    from pagellm.pipeline import finished, train_run
    from pagellm.training.run_sft import stage_file

    if (folder / "values.json").exists():
        return dict(json.loads((folder / "values.json").read_text()))
    began = time.monotonic()
    run = folder / "run"
    if not finished(run):
        for step in train_run(data, run, resolve("small", settings, seed=seed), resume=run.exists(), tell=say):
            if step.stage == "head" and step.step == 1:
                shutil.copy(stage_file(run, "lm"), folder / LM)
    took = time.monotonic() - began
    return saved(folder, took, evaluate_run(run, against, tell=say, seed=seed).results)


def one_ablation(base: Path, folder: Path, drop: list[str]) -> dict[str, Any]:
    """Fits the evidence head of a finished seed again without some evidence, and judges the policy alone."""
    from pagellm.data.content import content_vectors, title_vectors
    from pagellm.data.evidence import IMPRESSIONS
    from pagellm.evaluation.methods import CONTENT_DIMS
    from pagellm.evaluation.page_metrics import item_facts
    from pagellm.evaluation.protocol import evaluate
    from pagellm.models.composer import PolicyRanker
    from pagellm.models.run import load_run, make_evidence, make_net
    from pagellm.models.storage import read_tensors
    from pagellm.models.threads import set_threads
    from pagellm.training.run_sft import fit_evidence_head

    if (folder / "values.json").exists():
        return dict(json.loads((folder / "values.json").read_text()))
    whole = load_run(base / "run")
    config = whole.config.model_copy(update={"candidates": whole.config.candidates.model_copy(update={"drop": tuple(drop)})})
    set_threads(config)
    began, split = time.monotonic(), whole.split
    shown = whole.impressions if IMPRESSIONS in whole.evidence.groups else None
    evidence = make_evidence(whole.catalog, split, whole.content, config, shown)
    net = make_net(config, whole.content, whole.catalog, len(evidence.names))
    net.load_state_dict(read_tensors(base / LM)[0])
    for _ in fit_evidence_head(net, config, split.between_cuts(), evidence):
        pass
    head = {name: value for name, value in net.state_dict().items() if name.startswith("evidence.")}
    net.load_state_dict({**whole.net.state_dict(), **head})
    run = replace(whole, config=config, evidence=evidence, net=net.eval())
    content = content_vectors(run.catalog, CONTENT_DIMS)
    facts = item_facts(run.catalog, content, title_vectors(run.catalog), split.log, split.fit_until_test)
    judged = split.test.take(split.test.warm & (split.test.target_stop > split.test.stop))
    folder.mkdir(parents=True, exist_ok=True)
    results = evaluate([PolicyRanker(run, split.candidates_test)], judged, split.candidates_test, facts)
    return saved(folder, time.monotonic() - began, results)


def saved(folder: Path, took: float, results: Any) -> dict[str, Any]:
    """The per-user values of one seed, written beside its run."""
    values = {name: {m: results.column(name, m).tolist() for m in METRICS} for name in results.values}
    out = {"train_s": took, "values": values}
    (folder / "values.json").write_text(json.dumps(out))
    return out


def combined(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and intervals of each method, and ratios of the policy to each, over users; a user's value is the mean over seeds."""
    from pagellm.evaluation.significance import interval, ratio_interval, resampled_means

    names = list(seeds[0]["values"])
    table = {
        n: np.mean([[s["values"][n][m] for m in METRICS] for s in seeds if n in s["values"]], axis=0).T for n in names
    }  # [user, metric]; what has no seed stands in the first one alone
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
    singles = [n for n in result["ratios"] if n not in (CONTROL, WHOLE)]
    for metric in METRICS[:2] if singles else ():
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
    base, numbers = options.data.name, range(options.seeds)
    asked = [[name for name in against if n == 0 or name in SEEDED] for n in numbers]
    seeds = [one_seed(options.data, options.runs / base / str(n), n, options.settings, asked[n]) for n in numbers]
    name = base + "".join(f"-without-{group}" for group in options.drop)
    if options.drop:
        less = [one_ablation(options.runs / base / str(n), options.runs / name / str(n), options.drop) for n in numbers]
        for whole, part in zip(seeds, less, strict=True):
            part["values"][WHOLE] = whole["values"]["pagellm"]
        seeds = less
    result = {"data": name, "seeds": options.seeds, "train_s": [s["train_s"] for s in seeds], **combined(seeds)}
    print(report(result))
    if options.save:
        record = {"environment": environment(), "settings": options.settings, **result}
        (RESULTS / f"accuracy-{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def _row(means: Any, ends: Any) -> dict[str, tuple[float, float, float]]:
    return {m: (float(v), float(lo), float(hi)) for m, v, lo, hi in zip(METRICS, means, ends[0], ends[1], strict=False)}


if __name__ == "__main__":
    main()
