"""One way to compile the numeric loops. Takes a typed Python function, gives the same function compiled; knows no shop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compiles at the first call, keeps the machine code on disk, and leaves the GIL to other threads while it runs.

    No `fastmath`: with it, results could depend on how a loop is split.
    """
    return cast(F, njit(cache=True, nogil=True)(function))


def inlined(function: F) -> F:
    """As `compiled`, and pasted into its callers: a call with a page's worth of arguments costs more than its sums."""
    return cast(F, njit(cache=True, nogil=True, inline="always")(function))
