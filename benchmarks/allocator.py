"""What the launcher's allocator, thread count and wait policy are worth for a training step, measured on this machine.

Each setting runs in a process of its own, because the C library and the thread pool read it once. The step is the one that
`pagellm train` spends its time in: a decoder of two layers, 64 histories of 50 items, the full softmax over 12,000 items.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import Comparison, compare, main, smoke

BATCH, LENGTH, WIDTH, LAYERS, ITEMS = 4 if smoke() else 64, 50, 128, 2, 12_000
SIZES = {"batch": BATCH, "length": LENGTH, "width": WIDTH, "layers": LAYERS, "items": ITEMS}
TUNED = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PAGELLM_ALLOCATOR": "tuned"}
TOLERANCE = 1e-5  # two thread counts add floats in another order


class Trainer:
    """A process that trains one batch a call, under its own environment."""

    def __init__(self, **settings: str) -> None:
        """Starts the process with these environment variables over the tuned ones; the empty string unsets one."""
        wanted = {**TUNED, **settings}
        env = {name: value for name, value in {**os.environ, **wanted}.items() if value or name not in wanted}
        command = [sys.executable, __file__, "--trainer", *(["--smoke"] if smoke() else [])]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cpu_s = 0.0  # used by all steps so far

    def step(self) -> float:
        """One training step; returns its loss before the update."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        loss, cpu_s = self.process.stdout.readline().split()
        self.cpu_s += float(cpu_s)
        return float(loss)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def trainers(**settings: dict[str, str]) -> Iterator[dict[str, Trainer]]:
    """One process a setting, all ended afterwards."""
    started = {name: Trainer(**wanted) for name, wanted in settings.items()}
    try:
        yield started
    finally:
        for trainer in started.values():
            trainer.close()


@contextmanager
def busy_neighbor() -> Iterator[None]:
    """Another process that keeps one core busy."""
    neighbor = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        neighbor.kill()
        neighbor.wait()


def same_loss(peer: str, ours: float, theirs: float) -> float:
    """Difference of the first losses. The settings may change the speed and nothing else."""
    assert math.isfinite(ours), peer
    assert abs(ours - theirs) <= TOLERANCE * abs(ours), (peer, ours, theirs)
    return abs(ours - theirs)


def measure(name: str, peers: dict[str, dict[str, str]], clock: str, **ours: str) -> Comparison:
    """The training step under `ours` over the tuned settings, against the same step under each peer's settings."""
    with trainers(ours=ours, **peers) as running:
        calls = {peer: running[peer].step for peer in peers}
        timers: dict[str, Callable[[], float]] = {
            "cpu": lambda: sum(trainer.cpu_s for trainer in running.values()),
            "wall": time.perf_counter,
        }
        ours_step = running["ours"].step
        return compare(name, ours=ours_step, peers=calls, check=same_loss, clock=clock, timer=timers[clock], notes=SIZES)


def comparisons() -> list[Comparison]:
    """Allocator alone; then threads and wait policy on two cores, and the same beside a busy process."""
    done = [measure("allocator", {"C library's default": {"PAGELLM_ALLOCATOR": "default"}}, "cpu")]
    if smoke() or (os.cpu_count() or 1) < 2:
        return done
    two = {"OMP_NUM_THREADS": "2"}
    peers = {"two threads, wait policy unset": {**two, "OMP_WAIT_POLICY": ""}, "one thread": {}}
    done.append(measure("two threads", peers, "wall", **two))
    with busy_neighbor():
        done.append(measure("two threads beside a busy process", peers, "wall", **two))
    return done


def serve_steps() -> None:
    """The trainer process: prepares one batch as the launcher would, then trains on it once for every line of input."""
    from pagellm.__main__ import tune_allocator

    tuned = tune_allocator()
    assert tuned or os.environ["PAGELLM_ALLOCATOR"] == "default", "this C library has no such allocator to tune"
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    decoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    vectors = nn.Embedding(ITEMS, WIDTH)
    optimizer = torch.optim.AdamW([*decoder.parameters(), *vectors.parameters()], lr=1e-3)
    items = torch.randint(ITEMS, (BATCH, LENGTH + 1))
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
    for _ in sys.stdin:
        began = time.process_time()
        hidden = decoder(vectors(items[:, :-1]), mask=mask, is_causal=True)
        logits = hidden @ vectors.weight.T * WIDTH**-0.5  # [batch, length, item]
        loss = functional.cross_entropy(logits.flatten(0, 1), items[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item(), time.process_time() - began, flush=True)


if __name__ == "__main__":
    if "--trainer" in sys.argv[1:]:
        serve_steps()
    else:
        main("allocator", comparisons)
