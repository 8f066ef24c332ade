"""What people do with a page: look, click, put into the cart, buy. One function an equation, compiled.

Takes a page, a mind and the shelf; gives exact expectations or one sampled outcome. Knows no policy and no file.

The page is read row by row. Whether a slot is seen depends on rows above (scrolling on) and on the slots to its left
(swiping on); what an item does depends on the items shown before it, never on random outcomes before it. So every
expectation is a sum of products, and `expect_page` is exact although clicks in a row make scrolling on less likely.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagellm.simulation.compiled import compiled, inlined
from pagellm.simulation.counters import draw, uniform
from pagellm.simulation.spec import Behavior
from pagellm.types import F32, F64, I32

Traits = NDArray[np.void]  # [item] of shop.TRAITS
Outcome = NDArray[np.uint8]  # [slot]

VIEWED, CLICKED, CARTED, PURCHASED = 1, 2, 4, 8
"""Bits of an outcome."""

_DRAWS = 4  # a slot: seen, clicked, carted, purchased
_SCROLL = 1 << 20  # counters of scrolling on, far from those of slots


class Mind(NamedTuple):
    """One user at one moment, beside the interests [theme] and the groups owned [memory, ended by -1]."""

    taste: tuple[float, float, float, float]
    log_budget: float


class Gaze(NamedTuple):
    """Chances to look on, for one device."""

    row: float
    first_col: float
    next_col: float


@compiled
def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return float(1.0 / (1.0 + np.exp(-x)))


@inlined
def click_alone(traits: Traits, appeal: F32, b: Behavior, interest: F64, mind: Mind, item: int) -> float:
    """Chance of a click on the item if it is seen and nothing stands before it: its relevance. `appeal` is the day's [item]."""
    taste, style = mind.taste, traits[item].style
    match = taste[0] * style[0] + taste[1] * style[1] + taste[2] * style[2] + taste[3] * style[3]
    dear = max(0.0, traits[item].log_price - mind.log_budget)
    return sigmoid(b.base + interest[traits[item].theme] + appeal[item] + b.taste * match - b.price_pull * dear)


@compiled
def cart_alone(traits: Traits, b: Behavior, mind: Mind, item: int) -> float:
    """Chance of a cart after a click: quality helps, a price above budget hurts."""
    return sigmoid(b.cart + b.cart_quality * traits[item].quality - b.afford * (traits[item].log_price - mind.log_budget))


@compiled
def buy_alone(traits: Traits, b: Behavior, mind: Mind, item: int) -> float:
    """Chance of a purchase after a cart: falls with the price above budget."""
    return sigmoid(b.buy - b.afford * (traits[item].log_price - mind.log_budget))


@inlined
def crowding(traits: Traits, b: Behavior, items: I32, s: int) -> float:
    """Factor on the click chance of slot s: each near-duplicate before it and each other item of its theme lowers it."""
    group, theme = traits[items[s]].group, traits[items[s]].theme
    factor = 1.0
    for j in range(s):
        if items[j] >= 0:
            if traits[items[j]].group == group:
                factor *= b.duplicate
            elif traits[items[j]].theme == theme:
                factor *= b.satiation
    return factor


@inlined
def owned_factor(traits: Traits, b: Behavior, owned: I32, item: int) -> float:
    """Factor on the click chance of what the user bought lately."""
    for h in range(owned.size):
        if owned[h] < 0:
            break
        if owned[h] == traits[item].group:
            return b.owned
    return 1.0


@compiled
def buy_crowding(traits: Traits, b: Behavior, items: I32, s: int) -> float:
    """Factor on the purchase chance of slot s: one of several near-duplicates is enough."""
    factor = 1.0
    for j in range(s):
        if items[j] >= 0 and traits[items[j]].group == traits[items[s]].group:
            factor *= b.duplicate_buy
    return factor


@inlined
def click_chance(traits: Traits, appeal: F32, b: Behavior, interest: F64, mind: Mind, owned: I32, items: I32, s: int) -> float:
    """Chance of a click on slot s if it is seen."""
    alone = click_alone(traits, appeal, b, interest, mind, items[s])
    return alone * crowding(traits, b, items, s) * owned_factor(traits, b, owned, items[s])


@inlined
def buy_chance(traits: Traits, b: Behavior, mind: Mind, items: I32, s: int) -> float:
    """Chance of a purchase of slot s after its cart."""
    return buy_alone(traits, b, mind, items[s]) * buy_crowding(traits, b, items, s)


@compiled
def gaze_to(gaze: Gaze, place: int) -> float:
    """Chance to look at the slot at this place of a row after the one before it; the first slot of a row is always seen."""
    if place == 0:
        return 1.0
    return gaze.first_col if place == 1 else gaze.next_col


@compiled
def expect_page(
    traits: Traits, appeal: F32, b: Behavior, gaze: Gaze, interest: F64, mind: Mind, owned: I32, row: I32, items: I32,
    view: F64, click: F64, cart: F64, buy: F64,
) -> None:  # fmt: skip
    """Writes the exact chances that each slot is seen, clicked, carted, purchased. All arrays [slot].

    A row is left by its depth: P(no click in the row) sums over the slot at which the look stops.
    """
    reach, s = 1.0, 0
    while s < items.size:
        seen, silent, quiet, place, r = 1.0, 1.0, 0.0, 0, row[s]
        while s < items.size and row[s] == r:
            on = gaze_to(gaze, place)
            quiet += silent * (1.0 - on)  # stopped before this slot without a click
            seen *= on
            silent *= on
            view[s], click[s], cart[s], buy[s] = reach * seen, 0.0, 0.0, 0.0
            if items[s] >= 0:
                chance = click_chance(traits, appeal, b, interest, mind, owned, items, s)
                silent *= 1.0 - chance
                click[s] = view[s] * chance
                cart[s] = click[s] * cart_alone(traits, b, mind, items[s])
                buy[s] = cart[s] * buy_chance(traits, b, mind, items, s)
            s += 1
            place += 1
        quiet += silent
        reach *= gaze.row * (1.0 - b.distraction * (1.0 - quiet))


@compiled
def sample_page(
    traits: Traits, appeal: F32, b: Behavior, gaze: Gaze, interest: F64, mind: Mind, owned: I32, row: I32, items: I32,
    key: np.uint64, outcome: Outcome,
) -> None:  # fmt: skip
    """Writes one outcome [slot] of VIEWED, CLICKED, CARTED, PURCHASED bits, drawn from the stream `key`."""
    for s in range(items.size):
        outcome[s] = 0
    s = 0
    while s < items.size:
        seeing, clicked, place, r = True, False, 0, row[s]
        while s < items.size and row[s] == r:
            if seeing and place > 0:
                seeing = uniform(draw(key, _DRAWS * s)) < gaze_to(gaze, place)
            if seeing and items[s] >= 0:
                outcome[s] = sample_slot(traits, appeal, b, interest, mind, owned, items, s, key)
                clicked = clicked or outcome[s] != VIEWED
            s += 1
            place += 1
        on = gaze.row * (1.0 - b.distraction) if clicked else gaze.row
        if uniform(draw(key, _SCROLL + r)) >= on:
            break


@inlined
def sample_slot(
    traits: Traits, appeal: F32, b: Behavior, interest: F64, mind: Mind, owned: I32, items: I32, s: int, key: np.uint64
) -> int:
    """The outcome bits of a slot that is seen."""
    if uniform(draw(key, _DRAWS * s + 1)) >= click_chance(traits, appeal, b, interest, mind, owned, items, s):
        return VIEWED
    if uniform(draw(key, _DRAWS * s + 2)) >= cart_alone(traits, b, mind, items[s]):
        return VIEWED | CLICKED
    if uniform(draw(key, _DRAWS * s + 3)) >= buy_chance(traits, b, mind, items, s):
        return VIEWED | CLICKED | CARTED
    return VIEWED | CLICKED | CARTED | PURCHASED
