"""Who chose the pages of the log: policies whose chance of every choice is known exactly. Settings and tables only.

Takes a policy's settings and the shop, gives the table that the choosing kernels read. Knows nothing of feedback.

Two kinds. Plackett-Luce draws without replacement in proportion to weight[item] x lift[theme]: a table of cumulative
weights per day makes a draw cost O(themes + log items). Epsilon-greedy takes the heaviest item that is left, and with
chance epsilon any eligible item that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.errors import UsageError
from pagellm.simulation.choosing import PolicyTable
from pagellm.simulation.counters import Purpose, normals
from pagellm.simulation.shop import Shop
from pagellm.simulation.spec import WorldSpec
from pagellm.types import F64


@dataclass(frozen=True)
class LoggingPolicy:
    """How a logging policy weighs items: exp(sharpness x (appeal + noise)) x exp(personal x interest of the theme)."""

    name: str
    sharpness: float = 0.0  # of popularity; 0 = every eligible item weighs the same
    personal: float = 0.0  # of the user's lasting interest in the theme; it never sees the intent or the taste
    noise: float = 0.5  # sd of what the policy misjudges, in items and in themes
    epsilon: float | None = None  # None: Plackett-Luce; else the share of random choices of epsilon-greedy


POLICIES: tuple[LoggingPolicy, ...] = (
    LoggingPolicy("uniform"),
    LoggingPolicy("popularity", sharpness=1.2),
    LoggingPolicy("personal", sharpness=1.0, personal=1.3),
    LoggingPolicy("epsilon", sharpness=1.0, personal=1.3, epsilon=0.2),
    LoggingPolicy("popular-top", sharpness=1.0, epsilon=0.0),
)
"""The logging policies; a log names them in `policy_id`."""

MIXTURES: dict[str, tuple[float, ...]] = {
    "mixed": (0.15, 0.20, 0.50, 0.15, 0.0),
    **{p.name: tuple(float(p is q) for q in POLICIES) for p in POLICIES},
}
"""Shares of the policies in a log, in the order of `POLICIES`."""


def mixture(name: str) -> F64:
    """[policy] cumulative shares of a mixture. Raises UsageError for an unknown name."""
    if name not in MIXTURES:
        raise UsageError(f"Logging policy {name!r} is not known. Use one of: {', '.join(MIXTURES)}.")
    return np.cumsum(np.array(MIXTURES[name]))


def build_table(policy: LoggingPolicy, shop: Shop, spec: WorldSpec, seed: int, code: int) -> PolicyTable:
    """Precomputes what the policy needs to choose from this shop on any day."""
    count = len(shop.traits["theme"])
    misjudged = policy.noise * normals(seed, Purpose.POLICY, code, count)
    weight = np.exp(policy.sharpness * (shop.appeal.astype(np.float64) + misjudged)) * shop.eligible
    order = np.argsort(shop.traits["theme"], kind="stable").astype(np.int32)
    first = np.searchsorted(shop.traits["theme"][order], np.arange(spec.themes + 1))
    ranked, cumulative = np.empty((len(weight), 0), np.int32), np.empty((len(weight), 0))
    if policy.epsilon is None:
        cumulative = np.cumsum(np.ascontiguousarray(weight[:, order]), axis=1)
    else:
        ranked = np.stack([np.lexsort((-day, shop.traits["theme"])) for day in weight]).astype(np.int32)
    return PolicyTable(
        theme=shop.traits["theme"].copy(),
        weight=weight,
        cumulative=cumulative,
        order=order,
        first=first.astype(np.int64),
        ranked=ranked,
        eligible=shop.eligible.sum(axis=1).astype(np.int64),
        personal=policy.personal,
        noise=policy.noise,
        epsilon=-1.0 if policy.epsilon is None else policy.epsilon,
    )
