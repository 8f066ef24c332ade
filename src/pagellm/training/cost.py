"""What training took: seconds of CPU and of the clock, and the most memory, a stage. Knows nothing of what is trained.

The file is no part of the run, which is the same to the bit wherever it was made; what it took is not.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pagellm.models.storage import read_json, write_json

COST = "cost.json"

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which the system counts a process's largest size


@contextmanager
def counted(folder: Path, stage: str) -> Iterator[None]:
    """Writes what happens inside it took under the name of the stage; nothing where it does not end.

    A stage that was interrupted counts from where it went on.
    """
    began, cpu = time.perf_counter(), time.process_time()
    yield
    write_json(
        folder / COST,
        read_cost(folder)
        | {
            stage: {
                "seconds": round(time.perf_counter() - began, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 2**20),
                "gpu_peak_mb": round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_initialized() else 0,
                "threads": torch.get_num_threads(),
            }
        },
    )


def read_cost(folder: Path) -> dict[str, Any]:
    """What is known of a run's stages, in order; nothing of a run from before this was counted."""
    return dict(read_json(folder / COST)) if (folder / COST).exists() else {}
