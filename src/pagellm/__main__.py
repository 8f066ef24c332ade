"""The launcher: sets the allocator and the thread policy before anything heavy is imported, then hands over to the CLI."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc, malloc.h


def tune_allocator() -> bool:
    """Keeps freed memory in the process, so that a training step does not page-fault its tensors in anew.

    The same as MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2e9 MALLOC_TOP_PAD_=256 MiB in the environment, which glibc
    reads too early for a Python program to set. Returns whether it was done: other C libraries have no such knobs.
    """
    if os.environ.get("PAGELLM_ALLOCATOR") == "default" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl
        return False
    return all(
        mallopt(knob, value) == 1
        for knob, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2_000_000_000), (_M_TOP_PAD, 268_435_456))
    )


def main() -> None:
    """Entry point of the `pagellm` command."""
    tune_allocator()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads yield: two processes on two cores stay usable
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched unless the user says so
    from pagellm.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
