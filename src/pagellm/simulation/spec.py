"""The numbers that define a world: its size, its people's behavior, its page. Takes a profile name, gives a `WorldSpec`.

Knows no arrays of items or users; two worlds with equal spec and seed are equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from pagellm.errors import UsageError
from pagellm.types import DAY

START = 1_741_564_800
"""2025-03-10 00:00 UTC, a Monday: the first day of every simulated log."""


class Behavior(NamedTuple):
    """How people react. Logits unless said otherwise; plain floats, so that kernels take the record as it is."""

    base: float = -4.6  # of a click on an item of no interest
    favorite: float = 1.5  # lift of a favorite theme, plus up to `favorite_spread`
    favorite_spread: float = 1.6
    favorites: float = 3.0  # favorite themes a user, on average
    leaning: float = 0.5  # sd of the lift of all other themes
    drift: float = 0.5  # sd of the slow change of every theme's lift
    drift_days: float = 20.0  # days between two independent values of the drift
    intent: float = 1.5  # lift of the theme that the user came for
    intent_share: float = 0.65  # share of half days on which a user has an intent
    intent_hours: float = 12.0  # how long an intent holds
    taste: float = 0.7  # sd of the match between a user's taste and an item's style
    purse_spread: float = 0.5  # sd of log budget over users
    payday: float = 0.2  # swing of log budget over a month
    price_pull: float = 0.5  # loss of click logit per log price above budget
    duplicate: float = 0.35  # factor on the click chance for each near-duplicate shown before
    satiation: float = 0.9  # factor on the click chance for each other item of the theme shown before
    duplicate_buy: float = 0.6  # factor on the purchase chance for each near-duplicate shown before
    owned: float = 0.2  # factor on the click chance for a group bought lately
    owned_days: float = 45.0  # what "lately" means
    distraction: float = 0.15  # share of scrolling on that a click in the row takes away
    cart: float = -1.6  # of a cart after a click
    cart_quality: float = 0.5  # lift per unit of quality
    buy: float = -0.3  # of a purchase after a cart
    afford: float = 1.2  # loss of cart and purchase logit per log price above budget


class Attention(NamedTuple):
    """Chance to go on looking, by device: [desktop, mobile]. The first slot of the page is always seen."""

    row: tuple[float, float] = (0.76, 0.80)  # to the next row
    first_col: tuple[float, float] = (0.82, 0.78)  # from the first slot of a row to the second
    next_col: tuple[float, float] = (0.94, 0.58)  # from any later slot to the next
    mobile_share: float = 0.55  # share of users on mobile


@dataclass(frozen=True)
class WorldSpec:
    """Everything that defines a world but its seed."""

    profile: str
    items: int
    users: int
    pages: int  # logged pages
    themes: int
    rows: int = 4  # of the logged page
    cols: int = 5
    days: int = 120  # of the log
    later_days: int = 40  # after the log, for experiments
    variants: float = 0.45  # share of groups that hold near-duplicates
    new_items: float = 0.25  # share of items launched during the log
    sponsored: float = 0.05
    out_of_stock: float = 0.03
    behavior: Behavior = field(default_factory=Behavior)
    attention: Attention = field(default_factory=Attention)
    start: int = START

    @property
    def slots(self) -> int:
        """Slots of the logged page."""
        return self.rows * self.cols

    @property
    def horizon(self) -> int:
        """Days for which the world is defined."""
        return self.days + self.later_days

    @property
    def end(self) -> int:
        """First second after the log."""
        return self.start + self.days * DAY

    def to_json(self) -> dict[str, Any]:
        """As plain values, for `spec_from_json`."""
        return asdict(self) | {"behavior": self.behavior._asdict(), "attention": self.attention._asdict()}


def spec_from_json(values: dict[str, Any]) -> WorldSpec:
    """The spec that `WorldSpec.to_json` wrote."""
    pairs = {k: tuple(v) for k, v in values["attention"].items() if k != "mobile_share"}
    attention = Attention(mobile_share=values["attention"]["mobile_share"], **pairs)
    parts = {"behavior": Behavior(**values["behavior"]), "attention": attention}
    return WorldSpec(**(values | parts))


PROFILES: dict[str, WorldSpec] = {
    spec.profile: spec
    for spec in (
        WorldSpec("tiny", items=60, users=200, pages=2_000, themes=8, rows=2, cols=4),
        WorldSpec("demo", items=2_000, users=3_000, pages=20_000, themes=32),
        WorldSpec("small", items=10_000, users=50_000, pages=500_000, themes=32),
    )
}
"""Worlds by name. `tiny` is for tests, `demo` is the embedded shop, `small` is for experiments."""


def profile(name: str, **changes: Any) -> WorldSpec:
    """The profile of this name, with fields changed. Raises UsageError for a name or a size that cannot be."""
    if name not in PROFILES:
        raise UsageError(f"Profile {name!r} is not a world that we know. Use one of: {', '.join(PROFILES)}.")
    spec = replace(PROFILES[name], **changes)
    for what in ("items", "users", "pages"):
        if getattr(spec, what) < 1:
            raise UsageError(f"A world needs at least one of {what}. Got {getattr(spec, what)}. Ask for 1 or more.")
    if spec.slots > spec.items // 2:
        raise UsageError(
            f"A page of {spec.slots} slots needs at least {2 * spec.slots} items to choose from. "
            f"Got {spec.items}. Raise items, or lower rows and cols."
        )
    return spec
