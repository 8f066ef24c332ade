"""What a user wants at a moment, computed from counters alone: ten million users need no table.

Takes seed, user and time; gives interests, taste, budget and device. Knows no pages and no feedback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pagellm.simulation.compiled import compiled
from pagellm.simulation.counters import Purpose, draw, normal, stream, uniform
from pagellm.simulation.shop import STYLES
from pagellm.simulation.spec import Behavior
from pagellm.types import F64, I8, I32, I64

_FAVORITE, _LEANING, _DRIFT, _INTENT = int(Purpose.FAVORITE), int(Purpose.LEANING), int(Purpose.DRIFT), int(Purpose.INTENT)
_TASTE, _PURSE, _DEVICE = int(Purpose.TASTE), int(Purpose.PURSE), int(Purpose.DEVICE)
_LOG_PRICE_BASE = np.log(35.0)  # a usual price in the shop
DESKTOP, MOBILE = 0, 1
NO_INTENT = -1


class Clock(NamedTuple):
    """Where the world's time starts and which user numbers it draws with."""

    seed: int
    start: int  # unix seconds of day 0


@dataclass(frozen=True, slots=True)
class People:
    """What users want at given moments."""

    interest: F64  # [context, theme] lift of the click logit, with the intent of the moment
    lasting: F64  # [context, theme] the same without the intent
    intent: I32  # [context] the theme that the user came for, or NO_INTENT
    taste: F64  # [context, style]
    log_budget: F64  # [context] log of the price that feels usual
    device: I8  # [context] DESKTOP or MOBILE


@compiled
def device_of(seed: int, user: int, mobile_share: float) -> int:
    """DESKTOP or MOBILE: a user keeps one device."""
    return MOBILE if uniform(stream(seed, _DEVICE, user, 0)) < mobile_share else DESKTOP


@compiled
def fill_lasting(clock: Clock, user: int, time: int, b: Behavior, share: F64, out: F64) -> None:
    """Writes the lasting interest per theme [theme]: favorites or leanings, plus a smooth random drift over time."""
    place = (time - clock.start) / (b.drift_days * 86400.0)
    knot = int(np.floor(place))
    part = place - knot
    smooth = part * part * (3.0 - 2.0 * part)
    favorites = stream(clock.seed, _FAVORITE, user, 0)
    leanings = stream(clock.seed, _LEANING, user, 0)
    before = stream(clock.seed, _DRIFT, user, knot)
    after = stream(clock.seed, _DRIFT, user, knot + 1)
    for k in range(out.size):
        if uniform(draw(favorites, 2 * k)) < b.favorites * share[k]:
            base = b.favorite + b.favorite_spread * uniform(draw(favorites, 2 * k + 1))
        else:
            base = b.leaning * normal(draw(leanings, k))
        drift = normal(draw(before, k)) * (1.0 - smooth) + normal(draw(after, k)) * smooth
        out[k] = base + b.drift * drift


@compiled
def intent_of(clock: Clock, user: int, time: int, b: Behavior, lasting: F64) -> int:
    """The theme that the user came for, likelier the more it interests, or NO_INTENT; it holds for some hours."""
    window = (time - clock.start) // int(b.intent_hours * 3600.0)
    key = stream(clock.seed, _INTENT, user, window)
    if uniform(draw(key, 0)) >= b.intent_share:
        return NO_INTENT
    best, highest = 0, -1e30
    for k in range(lasting.size):
        wish = lasting[k] + 0.8 * normal(draw(key, k + 1))
        if wish > highest:
            best, highest = k, wish
    return best


@compiled
def taste_of(seed: int, user: int) -> tuple[float, float, float, float]:
    """The user's taste per dimension of style: unit variance, constant over time."""
    key = stream(seed, _TASTE, user, 0)
    return normal(draw(key, 0)), normal(draw(key, 1)), normal(draw(key, 2)), normal(draw(key, 3))


@compiled
def log_budget_of(clock: Clock, user: int, time: int, b: Behavior) -> float:
    """Log of the price that feels usual to the user: a level for life and a swing with the monthly payday."""
    key = stream(clock.seed, _PURSE, user, 0)
    month = (time - clock.start) / (30.0 * 86400.0)
    swing = b.payday * np.cos(2.0 * np.pi * (month + 0.2 * uniform(draw(key, 1))))
    return float(_LOG_PRICE_BASE + b.purse_spread * normal(draw(key, 0)) + swing)


@compiled
def fill_interest(clock: Clock, user: int, time: int, b: Behavior, share: F64, lasting: F64, interest: F64) -> int:
    """Writes lasting and present interest [theme] and returns the intent."""
    fill_lasting(clock, user, time, b, share, lasting)
    intent = intent_of(clock, user, time, b, lasting)
    for k in range(lasting.size):
        interest[k] = lasting[k]
    if intent != NO_INTENT:
        interest[intent] += b.intent
    return intent


@compiled
def _describe(
    clock: Clock, b: Behavior, share: F64, mobile_share: float, user: I32, time: I64,
    lasting: F64, interest: F64, intent: I32, taste: F64, log_budget: F64, device: I8,
) -> None:  # fmt: skip
    for p in range(user.size):
        who = int(user[p])
        intent[p] = fill_interest(clock, who, time[p], b, share, lasting[p], interest[p])
        for d, value in enumerate(taste_of(clock.seed, who)):
            taste[p, d] = value
        log_budget[p] = log_budget_of(clock, who, time[p], b)
        device[p] = device_of(clock.seed, who, mobile_share)


def describe(clock: Clock, b: Behavior, share: F64, mobile_share: float, user: I32, time: I64) -> People:
    """What these users want at these moments (`user` and `time` are [context])."""
    count, themes = len(user), len(share)
    people = People(
        interest=np.empty((count, themes)),
        lasting=np.empty((count, themes)),
        intent=np.empty(count, np.int32),
        taste=np.empty((count, STYLES)),
        log_budget=np.empty(count),
        device=np.empty(count, np.int8),
    )
    _describe(
        clock, b, share, mobile_share, user, time,
        people.lasting, people.interest, people.intent, people.taste, people.log_budget, people.device,
    )  # fmt: skip
    return people
