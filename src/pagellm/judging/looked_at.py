"""Where on a page customers look, by the run's own log: what its pairs were weighted by, with how sure that is.

Takes logged pages, gives plain values for the report. The model is `data.examination`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pagellm.data.examination import estimate_examination
from pagellm.errors import DataError
from pagellm.types import Impressions

MOST_PAGES = 100_000
"""Pages that are drawn from a larger log: a place's chance is known to a hundredth with far fewer."""

_GROUPS = 20  # of users, each left out once
_NORMAL = 1.96


def looked_at(shown: Impressions | None, seed: int = 0) -> dict[str, Any] | None:
    """How likely each place is seen, with 95 % jackknife intervals; None where the log does not say.

    What is left out in turn is a twentieth of the users, of the pages where the log has fewer than twenty users. Chances are relative to
    the best place unless views were logged. Shapes in the result: [place].
    """
    if shown is None or not len(shown):
        return None
    rng = np.random.default_rng((seed, 37))
    if len(shown) > MOST_PAGES:
        drawn = np.zeros(len(shown), bool)
        drawn[rng.choice(len(shown), MOST_PAGES, replace=False)] = True
        shown = shown.where(drawn)
    try:
        whole = estimate_examination(shown)
        members = shown.user if len(np.unique(shown.user)) >= _GROUPS else np.arange(len(shown))
        group = rng.permutation(int(members.max()) + 1)[members] % _GROUPS
        parts = [estimate_examination(shown.where(group != left_out)) for left_out in np.unique(group)]
    except DataError:
        return None
    row, col = np.nonzero(whole.slots)
    each = np.stack([part.of(row, col) for part in parts])
    spread = np.sqrt((len(parts) - 1) * each.var(0))  # of the estimate: Efron and Stein 1981
    seen = whole.seen[row, col]
    return {
        "source": whole.source,
        "why": whole.why,
        "pages": len(shown),
        "row": (row + 1).tolist(),
        "col": (col + 1).tolist(),
        "seen": seen.tolist(),
        "low": np.clip(seen - _NORMAL * spread, 0, 1).tolist(),
        "high": np.clip(seen + _NORMAL * spread, 0, 1).tolist(),
        "slots": whole.slots[row, col].tolist(),
        "ess": whole.ess[row, col].round(1).tolist(),
    }
