"""What can go wrong, with the exit code that the command line gives it. Knows nothing of pages or data.

A message names the thing, the rule, what came and the next step, in that order.
"""

from __future__ import annotations


class PagellmError(Exception):
    """Anything that the user can understand and mend. The command line prints the message alone, without a traceback."""

    exit_code = 1


class UsageError(PagellmError):
    """A wrong argument, option or setting."""

    exit_code = 2


class NotApplicableError(UsageError):
    """A method that this data or this installation has not what it takes for."""


class DataError(PagellmError):
    """Input data that breaks its contract."""

    exit_code = 3


class LayoutError(PagellmError):
    """A layout file that cannot be read, or rules that no page can keep."""

    exit_code = 2


class RunError(PagellmError):
    """A run folder that is missing, unfinished, damaged or made from other data."""

    exit_code = 1


class TrainingError(PagellmError):
    """A training that cannot go on; what was saved before is whole."""

    exit_code = 1


class GateError(PagellmError):
    """A check of quality that did not pass."""

    exit_code = 4
