"""P-EV-3: ranking a whole catalog and judging it in one pass: memory against the bar, time for a million users, and against torch.topk.

A factor model of 64 dimensions over 10,000 items; each user has seen 10 items and has 1 to 5 targets. Factors are small whole numbers, so
that scores are exact in float32 and both ways rank alike but for ties. First both ways judge the same few thousand users, outputs are
compared and rounds are interleaved; then ours judges a million users, keeping one figure a user, while the kernel notes the peak.

    python benchmarks/fused_eval.py [--users 1000000] [--threads 1] [--save | --smoke]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import RESULTS, compare, environment, table

ITEMS, DIM, SEEN, DEPTH, BATCH, FEW = 10_000, 64, 10, 100, 2_048, 4_096
CUTS = (10, DEPTH)
BAR = 1.2
ALIKE = 0.01  # share of users whose figures may differ: scores that tie, which torch orders as it likes
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def inputs(users: int) -> dict[str, Any]:
    """Factors, what each user has seen, and targets."""
    from pagellm.evaluation.full_catalog import ItemLists

    rng = np.random.default_rng(0)
    factors = np.empty((users, DIM), np.float32)
    for first in range(0, users, 65_536):
        factors[first : first + 65_536] = rng.integers(-127, 128, (min(65_536, users - first), DIM))
    items = rng.integers(-127, 128, (ITEMS, DIM)).astype(np.float32)
    counts = rng.integers(1, 6, users)
    seen = ItemLists(np.arange(users + 1) * SEEN, rng.integers(0, ITEMS, users * SEEN, dtype=np.int32))
    targets = ItemLists(np.concatenate(([0], np.cumsum(counts))), rng.integers(0, ITEMS, int(counts.sum()), dtype=np.int32))
    return {"factors": factors, "items": items, "seen": seen, "targets": targets}


def ours(data: dict[str, Any], users: int) -> np.ndarray:
    """[user, cut, measure] of the first users."""
    from pagellm.evaluation.full_catalog import ItemLists, factor_scores, judge_full_catalog

    first = (
        ItemLists(lists.offsets[: users + 1], lists.items[: lists.offsets[users]]) for lists in (data["seen"], data["targets"])
    )
    score = factor_scores(data["factors"], data["items"])
    return np.concatenate([part.values for part in judge_full_catalog(score, ITEMS, *first, CUTS, BATCH)])


def with_torch(data: dict[str, Any], users: int) -> np.ndarray:
    """The same by a matrix product, a scatter of -inf, torch.topk and the metrics as whole-array operations."""
    import torch

    items, out = torch.from_numpy(data["items"]), []
    discount = 1 / torch.log2(torch.arange(2, DEPTH + 2, dtype=torch.float64))
    for first in range(0, users, BATCH):
        last = min(first + BATCH, users)
        scores = torch.from_numpy(data["factors"][first:last]) @ items.T
        seen = torch.from_numpy(data["seen"].items[first * SEEN : last * SEEN].astype(np.int64)).view(-1, SEEN)
        scores.scatter_(1, seen, -torch.inf)
        ranked = scores.topk(DEPTH, dim=1).indices
        wanted, count = _padded(data["targets"], first, last)
        hits = (ranked[:, :, None] == torch.from_numpy(wanted)[:, None, :]).any(2).double()
        total, found = torch.from_numpy(count).double(), hits.cumsum(1)
        ideal = discount.cumsum(0)
        for_cuts = []
        for cut in CUTS:
            some = hits[:, :cut]
            best = ideal[torch.minimum(total, torch.tensor(float(cut))).long() - 1]
            any_hit = some.any(1)
            first_hit = torch.where(any_hit, 1 / (some.argmax(1) + 1).double(), 0.0)
            precision = (some * found[:, :cut] / torch.arange(1, cut + 1)).sum(1) / total
            for_cuts.append(
                torch.stack(
                    [(some * discount[:cut]).sum(1) / best, some.sum(1) / total, any_hit.double(), first_hit, precision], 1
                )
            )
        out.append(torch.stack(for_cuts, 1).numpy())
    return np.concatenate(out)


def _padded(targets: Any, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """([user, place] distinct targets, -1 pads; [user] how many)."""
    at = targets.offsets[first : last + 1]
    size = np.diff(at)
    inside = np.arange(size.max()) < size[:, None]
    wanted = np.where(inside, targets.items[np.minimum(at[:-1, None] + np.arange(size.max()), at[-1] - 1)], -1).astype(np.int64)
    wanted.sort(axis=1)
    wanted[:, 1:][wanted[:, 1:] == wanted[:, :-1]] = -1
    return wanted, (wanted >= 0).sum(1)


def same(_: str, a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the users that rank alike; raises where more than a few do not."""
    differ = np.abs(a - b).max(axis=(1, 2)) > 1e-9
    assert differ.mean() <= ALIKE, f"{differ.mean():.2%} of users differ"
    return float(np.abs(a - b)[~differ].max())


def one_pass(data: dict[str, Any], users: int) -> dict[str, Any]:
    """All users: seconds, and how far the process's memory grew beyond its inputs and the one figure a user that is kept."""
    from pagellm.evaluation.full_catalog import factor_scores, judge_full_catalog

    kept = np.zeros(users, np.float32)
    kept[:] = 1
    score = factor_scores(data["factors"], data["items"])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin, cpu = _status("VmRSS"), time.perf_counter(), time.process_time()
    for part in judge_full_catalog(score, ITEMS, data["seen"], data["targets"], CUTS, BATCH):
        kept[part.first : part.first + len(part.values)] = part.values[:, -1, 0]
    spent = {"wall_s": round(time.perf_counter() - begin, 1), "cpu_s": round(time.process_time() - cpu, 1)}
    grown = _status("VmHWM") - before
    matrix = min(BATCH, users) * ITEMS * 4
    return {
        "users": users,
        **spent,
        "us_a_user": round(1e6 * spent["cpu_s"] / users, 1),
        "grown_mb": round(grown / 2**20, 1),
        "matrix_mb": round(matrix / 2**20, 1),
        "memory_ratio": round(grown / matrix, 3),
        "ndcg@100": float(kept.mean()),
    }


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="P-EV-3: memory and time of the fused full-catalog evaluation.")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--save", action="store_true", help="write benchmarks/results/fused_eval.json")
    output.add_argument("--smoke", action="store_true", help="few users, one round; outputs are compared, nothing is judged")
    options = parser.parse_args()
    wanted = {name: str(options.threads) for name in _THREADS}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
    users, few = (4_096, 1_024) if options.smoke else (options.users, min(FEW, options.users))
    data = inputs(users)
    notes = {"users": few, "items": ITEMS, "dim": DIM, "depth": DEPTH, "batch": BATCH, "threads": options.threads}
    compared = compare(
        "full catalog",
        ours=lambda: ours(data, few),
        peers={"torch.topk": lambda: with_torch(data, few)},
        check=same,
        rounds=5,
        notes=notes,
    )
    print(table(compared))
    measured = one_pass(data, users)
    met = measured["memory_ratio"] <= BAR
    print(json.dumps(measured))
    print(f"memory grew by {measured['memory_ratio']:.2f} of batch x items x 4 bytes (at most {BAR}): {met}")
    if options.save:
        ratio = compared.ratios[0]
        result = {
            "name": "fused_eval",
            "environment": environment(),
            "bar": BAR,
            "met": met,
            "one_pass": measured,
            "against_torch": {"ratio": ratio.ratio, "ci95": ratio.ci95, "ours_s": ratio.ours_s, "torch_s": ratio.peer_s, **notes},
        }
        (RESULTS / "fused_eval.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if options.smoke or met else 4)


if __name__ == "__main__":
    main()
