"""Libraries that only some baselines need: imported when asked for, with the line that installs them where missing."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

import numba

from pagellm.errors import NotApplicableError

INSTALL = "pip install 'pagellm[baselines]'"


def library(module: str, method: str) -> ModuleType:
    """The module of an optional library. Raises NotApplicableError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries say of notebooks and progress bars
            return importlib.import_module(module)
    except ImportError as missing:
        name = module.partition(".")[0]
        raise NotApplicableError(
            f"The baseline {method} needs the library {name}, which is not installed: {INSTALL}"
        ) from missing


def threads() -> int:
    """Threads that a library may use: as many as numba, which the run's configuration sets."""
    return int(numba.get_num_threads())
