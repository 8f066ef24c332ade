"""How many threads torch and numba take, and that they give the same bits each time. Takes a configuration; knows no network."""

from __future__ import annotations

import os

import numba
import torch

from pagellm.config import RunConfig
from pagellm.models.device import device_for


def set_threads(config: RunConfig) -> int:
    """Limits torch and numba to the configured CPU threads, and torch to operations that give the same bits every time.

    Without a configured number: OMP_NUM_THREADS where it is set, else all cores of this process. On a GPU bits may differ from run to run:
    some operations have no deterministic kernel there. Returns the number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(config.threads or (int(asked) if asked.isdecimal() else cores), cores)
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, int(numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]
    on_gpu = device_for(config).type == "cuda"
    torch.use_deterministic_algorithms(not on_gpu)  # several threads otherwise add up gradients of repeated indexes in any order
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a guard against bugs that would cost a pass over each tensor
    return threads
