"""Which users a report shows before and after: chosen by a fixed rule, so that nobody picks what looks good. Takes results, gives places.

    typical      the user whose gain is the median of all gains
    best gain    the largest gain, and
    worst loss   the largest loss: what there is to be afraid of
    heavy user   the longest history
    cold user    no history at all, where there is one
    rule-heavy   the user whose page would break most rules if none were kept

Knows no page and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.types import F64, I64, Contexts

KINDS = ("typical", "best gain", "worst loss", "cold user", "heavy user", "rule-heavy")


@dataclass(frozen=True)
class Case:
    """One user to be shown."""

    kind: str  # one of KINDS
    place: int  # index into the contexts
    why: str  # the figure that it was chosen by, in words
    gain: float | None  # of the metric, subject minus reference; None where it was not judged


def cases(contexts: Contexts, judged: I64, gain: F64, broken: I64, metric: str) -> list[Case]:
    """One case a kind, in the order of KINDS; no user stands for two kinds, and a kind without a user is left out.

    `judged` [user] are the places of judged users among `contexts`, `gain` [user] theirs; `broken` [context] counts the rules that
    the page would break if none were kept. Ties go to the lower place.
    """
    length = contexts.stop - contexts.start
    gains = dict(zip(judged.tolist(), gain.tolist(), strict=True))
    middle = judged[np.argsort(np.abs(gain - np.median(gain)), kind="stable")] if len(gain) else judged
    orders: dict[str, I64] = {
        "best gain": judged[np.argsort(-gain, kind="stable")],
        "worst loss": judged[np.argsort(gain, kind="stable")],
        "cold user": np.flatnonzero(length == 0),
        "heavy user": np.argsort(-length, kind="stable"),
        "rule-heavy": np.argsort(-broken, kind="stable"),
        "typical": middle,
    }
    found: dict[str, Case] = {}
    taken: set[int] = set()
    for kind, order in orders.items():
        place = next((int(at) for at in order if int(at) not in taken), None)
        if place is None or (kind == "rule-heavy" and not broken[place]):
            continue
        taken.add(place)
        mine = gains.get(place)
        found[kind] = Case(kind, place, _why(kind, metric, mine, int(length[place]), int(broken[place])), mine)
    return [found[kind] for kind in KINDS if kind in found]


def _why(kind: str, metric: str, gain: float | None, length: int, broken: int) -> str:
    told = "not judged" if gain is None else f"{metric} {gain:+.3f}"
    match kind:
        case "typical":
            return f"{told}: the median of all customers"
        case "best gain":
            return f"{told}: nobody gains more"
        case "worst loss":
            return f"{told}: nobody loses more"
        case "heavy user":
            return f"{length:,} events before the page, the most of all; {told}"
        case "rule-heavy":
            return f"without rules this page would break them {broken} times, the most of those looked at; {told}"
    return "no event before the page"
