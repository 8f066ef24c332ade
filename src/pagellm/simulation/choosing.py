"""The compiled loops of logging policies: how a page is drawn, and the chance of each choice. One day, one user.

Takes the day's rows of a `PolicyTable` and the user's factor per theme; gives items and propensities. Knows no feedback.
`propensities` is the one place where the chances are computed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagellm.simulation.compiled import compiled
from pagellm.simulation.counters import Purpose, draw, normal, stream, uniform
from pagellm.types import F64, I32, I64, NO_ITEM

_NOISE = int(Purpose.POLICY_NOISE)
_PATIENCE = 64  # rejected draws in a row before the slow exact draw


class PolicyTable(NamedTuple):
    """A logging policy over one shop, as kernels take it."""

    theme: I32  # [item]
    weight: F64  # [day, item] 0 where the item may not be shown
    cumulative: F64  # [day, place] running sum of weight in `order`; without columns for epsilon-greedy
    order: I32  # [place] items by theme
    first: I64  # [theme + 1] places of a theme: first[k]:first[k + 1]
    ranked: I32  # [day, place] items of each theme by falling weight; without columns for Plackett-Luce
    eligible: I64  # [day] number of items that may be shown
    personal: float
    noise: float
    epsilon: float  # below 0: Plackett-Luce


@compiled
def fill_lift(table: PolicyTable, seed: int, user: int, day: int, lasting: F64, lift: F64) -> None:
    """Writes the factor per theme [theme] that the policy gives this user on this day."""
    key = stream(seed, _NOISE, user, day)
    for k in range(lift.size):
        lift[k] = 1.0 if table.personal == 0.0 else np.exp(table.personal * (lasting[k] + table.noise * normal(draw(key, k))))


@compiled
def is_placed(items: I32, s: int, item: int) -> bool:
    """Whether the item stands in one of the first s slots."""
    for j in range(s):  # noqa: SIM110  (the compiler knows no `any` over a generator)
        if items[j] == item:
            return True
    return False


@compiled
def fill_mass(cumulative: F64, first: I64, lift: F64, mass: F64) -> float:
    """Writes weight x lift of each theme [theme] and returns the total."""
    total = 0.0
    for k in range(lift.size):
        start, stop = first[k], first[k + 1]
        below = cumulative[start - 1] if start > 0 else 0.0
        mass[k] = (cumulative[stop - 1] - below) * lift[k] if stop > start else 0.0
        total += mass[k]
    return total


@compiled
def mass_left(theme: I32, weight: F64, lift: F64, total: float, items: I32, s: int) -> float:
    """Weight x lift of what is left after the first s slots."""
    placed = 0.0
    for j in range(s):
        if items[j] >= 0:
            placed += weight[items[j]] * lift[theme[items[j]]]
    if total - placed > 1e-6 * total:
        return total - placed
    left = 0.0  # the difference has lost its digits: sum what is left instead
    for i in range(theme.size):
        if not is_placed(items, s, i):
            left += weight[i] * lift[theme[i]]
    return left


@compiled
def draw_any(cumulative: F64, order: I32, first: I64, mass: F64, total: float, u: float, v: float) -> int:
    """One item in proportion to weight x lift: first its theme by u, then the item by v."""
    left, chosen = u * total, 0
    for k in range(mass.size):
        if mass[k] > 0.0:
            chosen = k
            if left < mass[k]:
                break
            left -= mass[k]
    start, stop = first[chosen], first[chosen + 1]
    below = cumulative[start - 1] if start > 0 else 0.0
    target = below + v * (cumulative[stop - 1] - below)
    low, high = start, stop - 1
    while low < high:  # the first place whose running sum exceeds the target
        middle = (low + high) // 2
        if cumulative[middle] > target:
            high = middle
        else:
            low = middle + 1
    return int(order[low])


@compiled
def draw_left(theme: I32, weight: F64, lift: F64, items: I32, s: int, u: float) -> int:
    """One item that is not placed yet, in proportion to weight x lift, by running over all of them: slow and exact."""
    left = u * mass_left(theme, weight, lift, 0.0, items, s)
    chosen = NO_ITEM
    for i in range(theme.size):
        mass = weight[i] * lift[theme[i]]
        if mass > 0.0 and not is_placed(items, s, i):
            chosen = i
            if left < mass:
                break
            left -= mass
    return chosen


@compiled
def compose_plackett_luce(table: PolicyTable, day: int, lift: F64, mass: F64, key: np.uint64, items: I32) -> None:
    """Writes items [slot] without replacement: draws from all are rejected while they are placed already."""
    theme, order, first = table.theme, table.order, table.first
    weight, cumulative = table.weight[day], table.cumulative[day]
    total = fill_mass(cumulative, first, lift, mass)
    for s in range(items.size if items.size < table.eligible[day] else table.eligible[day]):
        for attempt in range(_PATIENCE):
            counter = 2 * (s * _PATIENCE + attempt)
            item = draw_any(cumulative, order, first, mass, total, uniform(draw(key, counter)), uniform(draw(key, counter + 1)))
            if weight[item] > 0.0 and not is_placed(items, s, item):
                items[s] = item
                break
        if items[s] == NO_ITEM:
            items[s] = draw_left(theme, weight, lift, items, s, uniform(draw(key, 2 * items.size * _PATIENCE + s)))


@compiled
def best_left(weight: F64, ranked: I32, first: I64, lift: F64, items: I32, s: int) -> int:
    """The heaviest item that is not placed yet; of equals, the one of the earlier theme."""
    best, highest = NO_ITEM, 0.0
    for k in range(lift.size):
        for place in range(first[k], first[k + 1]):
            item = int(ranked[place])
            if not is_placed(items, s, item):
                if weight[item] * lift[k] > highest:
                    best, highest = item, weight[item] * lift[k]
                break
    return best


@compiled
def any_left(weight: F64, eligible: int, items: I32, s: int, key: np.uint64) -> int:
    """One eligible item that is not placed yet, each with the same chance."""
    for attempt in range(_PATIENCE):
        item = int(uniform(draw(key, items.size + s * (_PATIENCE + 1) + attempt)) * weight.size)
        if weight[item] > 0.0 and not is_placed(items, s, item):
            return item
    nth = int(uniform(draw(key, items.size + s * (_PATIENCE + 1) + _PATIENCE)) * (eligible - s))
    for i in range(weight.size):
        if weight[i] > 0.0 and not is_placed(items, s, i):
            if nth == 0:
                return i
            nth -= 1
    return NO_ITEM


@compiled
def compose_epsilon_greedy(table: PolicyTable, day: int, lift: F64, key: np.uint64, items: I32) -> None:
    """Writes items [slot]: the heaviest left, or with chance epsilon any eligible one that is left."""
    weight, ranked, first = table.weight[day], table.ranked[day], table.first
    for s in range(items.size if items.size < table.eligible[day] else table.eligible[day]):
        if uniform(draw(key, s)) < table.epsilon:
            items[s] = any_left(weight, table.eligible[day], items, s, key)
        else:
            items[s] = best_left(weight, ranked, first, lift, items, s)


@compiled
def compose_page(table: PolicyTable, day: int, lift: F64, mass: F64, key: np.uint64, items: I32) -> None:
    """Writes the items of one page [slot], NO_ITEM where nothing eligible is left. `mass` [theme] is scratch space."""
    for s in range(items.size):
        items[s] = NO_ITEM
    if table.epsilon < 0.0:
        compose_plackett_luce(table, day, lift, mass, key, items)
    else:
        compose_epsilon_greedy(table, day, lift, key, items)


@compiled
def propensities(table: PolicyTable, day: int, lift: F64, mass: F64, items: I32, out: F64) -> None:
    """Writes the chance of each slot's item given the slots before it [slot]; 0 for what the policy never does there."""
    theme, first, weight = table.theme, table.first, table.weight[day]
    total = fill_mass(table.cumulative[day], first, lift, mass) if table.epsilon < 0.0 else 0.0
    for s in range(items.size):
        item = int(items[s])
        if item < 0:
            out[s] = 1.0 if s >= table.eligible[day] else 0.0
        elif weight[item] == 0.0 or is_placed(items, s, item):
            out[s] = 0.0
        elif table.epsilon < 0.0:
            out[s] = weight[item] * lift[theme[item]] / mass_left(theme, weight, lift, total, items, s)
        else:
            out[s] = table.epsilon / (table.eligible[day] - s)
            if item == best_left(weight, table.ranked[day], first, lift, items, s):
                out[s] += 1.0 - table.epsilon
