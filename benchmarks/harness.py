"""Times ours against peers, fairly. Takes callables, gives ratios with intervals; knows nothing of what they compute.

The rules are the same for every benchmark here: outputs are compared before any time counts, rounds are interleaved and
alternate their order, threads are pinned, the ratio carries a bootstrap interval, and a target is met only when the interval's
lower end meets it.

A script reads:

    def comparisons() -> list[Comparison]:
        return [compare("name", ours=f, peers={"peer": g}, check=same, target={"peer": 50})]

    if __name__ == "__main__":
        main("file_name", comparisons)
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "pagellm",
    "numpy",
    "scipy",
    "numba",
    "torch",
    "transformers",
    "polars",
    "duckdb",
    "scikit-learn",
    "ranx",
    "pytrec_eval-terrier",
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
_SHORTEST_S = 0.02  # a call faster than this is repeated within its round, so that the clock's grain does not matter
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Ratio:
    """How many times longer the peer takes."""

    peer: str
    ours_s: float  # median over rounds, of one call
    peer_s: float
    ratio: float  # of the medians
    ci95: tuple[float, float]  # percentile bootstrap over rounds, paired
    target: float | None  # the ratio that the lower end has to reach
    difference: float  # largest difference between the two outputs, as `check` measured it

    @property
    def passed(self) -> bool:
        """Whether the lower end of the interval reaches the target; True without a target."""
        return self.target is None or self.ci95[0] >= self.target


@dataclass(frozen=True)
class Comparison:
    """One benchmark: the same job by us and by peers, in one process and one run."""

    name: str
    rounds: int
    clock: str  # "cpu": process time over all threads; "wall": elapsed time
    ratios: tuple[Ratio, ...]
    notes: dict[str, Any] = field(default_factory=dict)  # sizes and settings that the reader needs


def compare(
    name: str,
    *,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    check: Callable[[str, Any, Any], float],
    rounds: int = 7,
    target: Mapping[str, float] | None = None,
    clock: str = "cpu",
    timer: Callable[[], float] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Comparison:
    """Runs all callables once, compares the outputs, then times them in interleaved rounds.

    `check(peer, ours_output, peer_output)` returns the largest difference and raises AssertionError where it is too large: a
    wrong answer has no time. The first run of each, compilation included, is not timed. `timer` counts the seconds in place of
    this process's clock, for work that other processes do.
    """
    if smoke():
        rounds = 1
    elif rounds < 5:
        raise ValueError(f"The rounds of {name} must be at least 5, or the interval means nothing. Got {rounds}.")
    ours_output = ours()
    differences = {peer: check(peer, ours_output, call()) for peer, call in peers.items()}
    seconds = timer or {"cpu": time.process_time, "wall": time.perf_counter}[clock]
    timed = _rounds({"": ours, **peers}, rounds, seconds)
    ratios = tuple(_ratio(peer, timed[""], timed[peer], (target or {}).get(peer), differences[peer]) for peer in peers)
    return Comparison(name, rounds, clock, ratios, dict(notes or {}))


def environment() -> dict[str, Any]:
    """Date, processor, cores, threads and versions: what a reader needs to judge an absolute time."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get(_THREADS[0], 0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def smoke() -> bool:
    """Whether the run only asks if the benchmark works and its outputs agree: one round, small sizes, no timing is judged."""
    return "--smoke" in sys.argv[1:]


def main(name: str, comparisons: Callable[[], Sequence[Comparison]]) -> None:
    """Command line of a benchmark script: `[--threads N] [--save | --smoke]`. Exit code 4 when a target is missed."""
    parser = argparse.ArgumentParser(description=f"Benchmark {name}. Absolute times are the machine's; ratios are the point.")
    parser.add_argument("--threads", type=int, default=1, help="threads of every numeric library (default: 1)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--save", action="store_true", help=f"write benchmarks/results/{name}.json")
    output.add_argument("--smoke", action="store_true", help="one round, small sizes; outputs are compared, no timing is judged")
    options = parser.parse_args()
    _pin(options.threads)
    done = list(comparisons())
    for comparison in done:
        print(table(comparison), end="\n\n")
    if options.save:
        print(f"written: {save(name, done)}")
    sys.exit(0 if options.smoke or all(r.passed for c in done for r in c.ratios) else 4)


def save(name: str, comparisons: Sequence[Comparison]) -> Path:
    """Writes results and environment to benchmarks/results/NAME.json; returns the path."""
    RESULTS.mkdir(exist_ok=True)
    rows = [{**asdict(c), "ratios": [{**asdict(r), "passed": r.passed} for r in c.ratios]} for c in comparisons]
    record = {
        "environment": environment(),
        "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "comparisons": rows,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def table(comparison: Comparison) -> str:
    """The comparison as plain text."""
    notes = ", ".join(f"{k} {v}" for k, v in comparison.notes.items())
    lines = [f"{comparison.name}: {comparison.rounds} rounds, {comparison.clock} time{'; ' + notes if notes else ''}"]
    lines.append(f"  {'peer':<28}{'ours ms':>10}{'peer ms':>11}{'ratio':>9}{'95 %':>20}{'target':>9}  largest difference")
    for r in comparison.ratios:
        interval = f"[{r.ci95[0]:.2f}, {r.ci95[1]:.2f}]"
        goal = "-" if r.target is None else f"{r.target:g} {'ok' if r.passed else 'MISSED'}"
        times = f"{1e3 * r.ours_s:>10.2f}{1e3 * r.peer_s:>11.2f}"
        lines.append(f"  {r.peer:<28}{times}{r.ratio:>9.2f}{interval:>20}{goal:>9}  {r.difference:.1e}")
    return "\n".join(lines)


def _rounds(calls: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    repeats = {name: _repeats(call, clock) for name, call in calls.items()}
    timed: dict[str, list[float]] = {name: [] for name in calls}
    for r in range(rounds):
        for name in list(calls)[:: 1 if r % 2 == 0 else -1]:
            timed[name].append(_seconds(calls[name], repeats[name], clock))
    return timed


def _seconds(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        call()
    return (clock() - began) / repeats


def _repeats(call: Callable[[], Any], clock: Callable[[], float]) -> int:
    once = _seconds(call, 1, clock)
    return 1 if once >= _SHORTEST_S else int(np.ceil(_SHORTEST_S / max(once, 1e-6)))


def _ratio(peer: str, ours: Sequence[float], theirs: Sequence[float], target: float | None, difference: float) -> Ratio:
    a, b = np.array(ours), np.array(theirs)
    draws = np.random.default_rng(0).integers(0, len(a), (_RESAMPLES, len(a)))
    low, high = np.percentile(np.median(b[draws], axis=1) / np.median(a[draws], axis=1), [2.5, 97.5])
    ours_s, peer_s = float(np.median(a)), float(np.median(b))
    return Ratio(peer, ours_s, peer_s, peer_s / ours_s, (float(low), float(high)), target, float(difference))


def _pin(threads: int) -> None:
    """Starts the script anew with pinned threads: numeric libraries read these variables when they are first imported."""
    wanted = {name: str(threads) for name in _THREADS}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    lines = [line for line in path.read_text().splitlines() if line.startswith("model name")]
    return lines[0].split(":", 1)[1].strip() if lines else platform.processor()
