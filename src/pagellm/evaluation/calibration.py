"""Whether what a reward promises is what happens: predicted against realised engagement, by tenth of the prediction and by place.

Takes predictions and what happened, [page, slot] each, gives figures with intervals over pages. Knows no network and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import isotonic_regression

from pagellm.evaluation.reward_checks import finite
from pagellm.evaluation.significance import interval, resampled_means
from pagellm.types import F64, I64, Bool

DECILES = 10


@dataclass(frozen=True)
class Calibration:
    """Predicted against realised engagement in groups of pages."""

    predicted: F64  # [group] mean prediction
    realised: F64  # [group] mean of what happened
    low: F64  # [group] 95 % interval of `realised` over pages
    high: F64
    pages: I64  # [group]
    isotonic: F64 | None = None  # [group] mean of the best fit that rises with the prediction, where groups are of predictions

    @property
    def error(self) -> float:
        """Expected calibration error: mean over pages of |predicted - realised| of their group (Naeini et al. 2015)."""
        return float((np.abs(self.predicted - self.realised) * self.pages).sum() / max(self.pages.sum(), 1))

    @property
    def relative_error(self) -> float:
        """The same over the mean of what happened."""
        mean = float((self.realised * self.pages).sum() / max(self.pages.sum(), 1))
        return self.error / mean if mean else float("nan")

    def as_json(self) -> dict[str, object]:
        """Groups in their order."""
        names = ("predicted", "realised", "low", "high", *(("isotonic",) if self.isotonic is not None else ()))
        columns = {name: [round(float(v), 6) for v in getattr(self, name)] for name in names}
        return columns | {"pages": self.pages.tolist(), "ece": self.error, "relative_ece": finite(self.relative_error)}


def calibration(predicted: F64, realised: F64, seed: int = 0) -> Calibration:
    """Pages in ten groups of equal size by prediction, the lowest first. Both [page].

    The isotonic fit is the least-squares one over all pages by pooling adjacent violators (Barlow et al. 1972; for calibration Zadrozny &
    Elkan 2002), on the pages that it is shown for: it says what a rescaling of the reward could reach at best, not that one is due.
    """
    order = np.argsort(predicted, kind="stable")
    groups = [g for g in np.array_split(order, DECILES) if len(g)]
    fitted = np.empty(len(predicted))
    if len(order):
        fitted[order] = isotonic_regression(realised[order]).x
    found = _grouped([predicted[g] for g in groups], [realised[g] for g in groups], seed)
    return replace(found, isotonic=np.array([fitted[g].mean() for g in groups]))


def calibration_by_place(predicted: F64, realised: F64, filled: Bool, seed: int = 0) -> Calibration:
    """A group a slot, in reading order: engagement with what stood there. All [page, slot]; empty slots are left out."""
    slots = [s for s in range(predicted.shape[1]) if filled[:, s].any()]
    return _grouped([predicted[filled[:, s], s] for s in slots], [realised[filled[:, s], s] for s in slots], seed)


def _grouped(predicted: Sequence[F64], realised: Sequence[F64], seed: int) -> Calibration:
    ends = np.array([interval(resampled_means(r[:, None], 1_000, seed))[:, 0] for r in realised]).reshape(-1, 2)
    promised, found = (np.array([part.mean() for part in parts]) for parts in (predicted, realised))
    return Calibration(promised, found, ends[:, 0], ends[:, 1], np.array([len(part) for part in realised], np.int64))
