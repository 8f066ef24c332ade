"""P-RL-4: CPU seconds until a policy writes pages worth 95 % of the best, ours against TRL's GRPOTrainer.

A fast step is no merit if it learns less. Both sides start from the same weights (the Llama of P-RL-1, vocabulary of items), read the same
prompts, write as many pages a step, and are paid by the same planted reward, whose best value is 1; what is planted and the start weights
differ from seed to seed. After every step both write fresh pages, uncounted; the clock of a side stops when those
are worth .95 on average. The first steps of a process count nowhere. Each side has the learning rate of one grid that reached .95 in the
fewest CPU seconds on seeds of its own. The sides of a seed run interleaved, step by step; the clock is process time of one thread, since
other work may share the machine.

*same loss* is our GRPO with one pass over the pages; *PPO* is our default algorithm, with a value head and two passes. Ours may not
repeat an item on a page, which is its rule; TRL may. `--planted items` pays for each slot that holds one of 24 items, so TRL needs to find
one of them and ours ten; `--planted themes` pays for the first item of each theme alone, so the rule is worth much to ours. Neither is
even. PAGELLM_TRL_PYTHON names the interpreter of an environment with TRL, see rl_step.py; without it ours run alone.

    python benchmarks/rl_time_to_quality.py [--planted items] [--seeds 0 1 2 3 4] [--out DIR] [--save] [--smoke]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import RESULTS, environment, smoke
from harness import _pin as pin
from planted import PLANTED, planted_themes
from rl_logprobs import without_page_evidence
from rl_step import Ours, Shape, Trl, TrlProcess, plain_policy, tokens_of, twin

SHAPE = Shape(items=300, prompt=64, contexts=8, group=8, slots=10)
THEMES, EACH = 12, 2  # planted themes and items of each: a page drawn evenly shows less than one of them
QUALITY, TARGET = 0.95, 4.0
GRID = (1e-2, 3e-3, 3e-2, 1e-3, 1e-1)  # in the order in which they are tried, so that the likeliest sets the time to beat
EVERY, FRESH, MOST = 1, 8, 400  # steps between looks, pages a context at each, steps after which a run is given up
CHOOSING = 100  # first seed that learning rates are chosen on
OURS: dict[str, dict[str, Any]] = {
    "ours, same loss": {"algorithm": "grpo"},
    "ours, PPO": {"algorithm": "ppo", "ppo_epochs": 2},
}
PEER = "TRL GRPOTrainer"


@dataclass
class Runner:
    """One side of one seed: steps that are timed, pages that are not."""

    step: Callable[[], float]  # CPU seconds of one more step
    fresh: Callable[[], np.ndarray]  # [page, slot] as the policy is now
    close: Callable[[], None]
    worth: Callable[[np.ndarray], np.ndarray]  # [page] of pages
    steps: int = 0
    cpu: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # step, CPU seconds, worth of fresh pages

    @property
    def done(self) -> bool:
        """Whether its pages are good enough."""
        return bool(self.curve) and self.curve[-1][2] >= QUALITY

    def go_on(self) -> None:
        """One more step, and a look where one is due."""
        self.cpu += self.step()
        self.steps += 1
        if self.steps % EVERY == 0:
            self.curve.append((self.steps, self.cpu, float(self.worth(self.fresh()).mean())))

    @property
    def told(self) -> dict[str, Any]:
        """What became of it."""
        return {"cpu_s": self.cpu if self.done else None, "steps": self.steps, "curve": self.curve}


def start(name: str, planted: str, seed: int, rate: float, folder: Path, process: TrlProcess | None) -> Runner:
    """A side at its start."""
    import torch

    from pagellm.models.decoding import Writing
    from pagellm.training.rollouts import write

    shape, theme = SHAPE, planted_themes(SHAPE.items, THEMES, EACH, SHAPE.items - 3, seed)
    worth, net = partial(PLANTED[planted], theme=theme), plain_policy(shape)
    torch.manual_seed(seed)
    with torch.no_grad():
        net.ids.weight[:-1].normal_(std=0.03)
        net.ids.weight[shape.special[0]] = 0
    ours = Ours(
        copy.deepcopy(without_page_evidence(net)), worth, shape.items, shape, seed,
        **(OURS.get(name, {}) | {"lr": rate, "context_lr": rate, "clip": 1.0}),
    )  # fmt: skip
    if process and name == PEER:
        given = {
            "prompts": tokens_of(ours.prompts, shape),
            "theme": theme,
            "planted": planted,
            "lr": rate,
            "clip": 1.0,
            "seed": seed,
        }
        trl = Trl(process, folder, twin(net, shape), given, shape)
        return Runner(trl.step, lambda: trl.fresh(FRESH), trl.stop, worth)

    def our_step() -> float:
        began = time.process_time()
        ours()
        return time.process_time() - began

    def our_pages() -> np.ndarray:
        rng = np.random.default_rng((seed, 99))
        return write(ours.net, ours.asked, ours.desk, FRESH, Writing(1.0), rng)[1].items

    return Runner(our_step, our_pages, lambda: None, worth)


def choose(name: str, planted: str, seeds: range, folder: Path, most: int, process: TrlProcess | None) -> dict[str, Any]:
    """The learning rate of the grid with the fewest CPU seconds over these seeds, and what each took. What is slower is given up."""
    best, took, told = np.inf, {}, {}
    for rate in GRID:
        total, courses = 0.0, []
        for seed in seeds:
            place = folder / f"{seed}-{rate}"
            place.mkdir(parents=True)
            side = start(name, planted, seed, rate, place, process)
            while not side.done and side.steps < most and total + side.cpu < best:
                side.go_on()
            side.close()
            total += side.cpu if side.done else np.inf
            courses.append({"steps": side.steps, "cpu_s": round(side.cpu, 2), "worth": side.curve[-1][2] if side.curve else None})
            if not side.done:
                break
        took[rate], told[f"{rate:g}"] = total, courses
        best = min(best, total)
        print(f"{name} at {rate:g}: {json.dumps(courses)}", flush=True)
    return {"rate": min(took, key=lambda rate: took[rate]), "tried": told}


def warm_up(name: str, planted: str, folder: Path, process: TrlProcess | None) -> None:
    """Two steps and a look that count nowhere."""
    folder.mkdir(parents=True)
    side = start(name, planted, CHOOSING - 1, GRID[0], folder, process)
    side.go_on()
    side.go_on()
    side.close()


def race(rates: dict[str, float], planted: str, seed: int, folder: Path, most: int, process: TrlProcess | None) -> dict[str, Any]:
    """What became of all sides of one seed, a step each in turn, until each is good enough or given up."""
    sides = {}
    for name, rate in rates.items():
        (folder / name).mkdir(parents=True)
        sides[name] = start(name, planted, seed, rate, folder / name, process)
    while left := [side for side in sides.values() if not side.done and side.steps < most]:
        for side in left:
            side.go_on()
    for side in sides.values():
        side.close()
    print(f"seed {seed}: {json.dumps({name: [s.steps, round(s.cpu, 1), s.done] for name, s in sides.items()})}", flush=True)
    return {name: side.told for name, side in sides.items()}


def ratio(peer: list[float], ours: list[float]) -> tuple[float, float, float]:
    """Ratio of total seconds with its 95 % bootstrap interval over seeds, which are drawn in pairs."""
    a, b = np.array(ours), np.array(peer)
    draws = np.random.default_rng(0).integers(0, len(a), (10_000, len(a)))
    low, high = np.quantile(b[draws].sum(1) / a[draws].sum(1), (0.025, 0.975))
    return float(b.sum() / a.sum()), float(low), float(high)


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a piece found, from its file where it has left one."""
    if not path.exists():
        found = make()
        path.write_text(json.dumps(found) + "\n")
    return dict(json.loads(path.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description="P-RL-4: CPU seconds until pages are worth 95 % of the best.")
    parser.add_argument("--planted", choices=PLANTED, default="items", help="what pages are paid for")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--choosing", type=int, default=2, help="seeds that learning rates are chosen on")
    parser.add_argument(
        "--out", type=Path, help="folder where each choice and each seed leaves a file, and is read from where it has one"
    )
    parser.add_argument("--only", help="choose the learning rate of this side, and no more")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--save", action="store_true", help="write benchmarks/results/rl_time_to_quality-PLANTED.json")
    output.add_argument("--smoke", action="store_true", help="one seed and three steps")
    options = parser.parse_args()
    pin(1)
    python = os.environ.get("PAGELLM_TRL_PYTHON")
    process = TrlProcess(python) if python else None
    names = [options.only] if options.only else [*OURS, *([PEER] if process else [])]
    seeds, choosing, most = ([0], 1, 3) if smoke() else (options.seeds, options.choosing, MOST)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) if options.out is None else options.out
        out.mkdir(parents=True, exist_ok=True)
        for name in names:  # what is compiled or filled once a process is nobody's time
            warm_up(name, options.planted, Path(scratch) / "warm-up" / name, process)
        chosen = {
            name: kept(
                out / f"choose-{name.replace(' ', '-')}.json",
                lambda name=name: choose(
                    name, options.planted, range(CHOOSING, CHOOSING + choosing), Path(scratch) / "choose" / name, most, process
                ),
            )
            for name in names
        }
        if options.only:
            return
        rates = {name: float(found["rate"]) for name, found in chosen.items()}
        runs = [
            kept(
                out / f"seed-{seed}.json",
                lambda seed=seed: race(rates, options.planted, seed, Path(scratch) / f"seed-{seed}", most, process),
            )
            for seed in seeds
        ]
    rows = [row_of(name, rates[name], runs) for name in names]
    if options.save:
        sizes = {"themes": THEMES, "each": EACH, "quality": QUALITY, "grid": GRID, "pages looked at": FRESH * SHAPE.contexts}
        words = " ".join(map(str, seeds))
        record = {
            "environment": environment() | (process.versions if process else {}),
            "command": f"python benchmarks/rl_time_to_quality.py --planted {options.planted} --seeds {words} --choosing {choosing} --save",
            "clock": "process time of one thread",
            "target": TARGET,
            "sizes": vars(SHAPE) | sizes,
        }
        path = RESULTS / f"rl_time_to_quality-{options.planted}.json"
        path.write_text(json.dumps(record | {"sides": rows, "choosing": chosen, "runs": runs}, indent=1) + "\n")
        print(f"written: {path}")
    sys.exit(0 if smoke() or all(row.get("passed", True) for row in rows) else 4)


def row_of(name: str, rate: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One side over all seeds; a ratio where it and the peer reached the quality in each."""
    row: dict[str, Any] = {"side": name, "rate": rate, **{key: [run[name][key] for run in runs] for key in ("cpu_s", "steps")}}
    theirs = [run[PEER]["cpu_s"] for run in runs] if PEER in runs[0] else [None]
    if name != PEER and None not in row["cpu_s"] + theirs:
        row["ratio"] = ratio(theirs, row["cpu_s"])
        row["passed"] = row["ratio"][1] >= TARGET
    print(json.dumps(row))
    return row


if __name__ == "__main__":
    main()
