"""Many pages at once: loops over contexts around the kernels of people, feedback and logging policies.

Takes arrays [context] and [context, slot] and fills arrays given by the caller. Each context depends on its own counters
alone, so any split into chunks and threads gives the same numbers. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pagellm.simulation.choosing import PolicyTable, compose_page, fill_lift, propensities
from pagellm.simulation.compiled import compiled
from pagellm.simulation.counters import Purpose, stream, uniform
from pagellm.simulation.feedback import (
    PURCHASED,
    Gaze,
    Mind,
    Outcome,
    Traits,
    buy_alone,
    cart_alone,
    click_alone,
    expect_page,
    owned_factor,
    sample_page,
)
from pagellm.simulation.people import Clock, device_of, fill_interest, log_budget_of, taste_of
from pagellm.simulation.spec import Behavior
from pagellm.types import F32, F64, I8, I32, I64

_FEEDBACK, _COMPOSE, _POLICY = int(Purpose.FEEDBACK), int(Purpose.COMPOSE), int(Purpose.POLICY)


def in_chunks(count: int, chunk: int, threads: int, work: Callable[[slice], None]) -> None:
    """Calls `work` on slices that cover range(count), on several threads if asked."""
    parts = [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    if threads <= 1 or len(parts) == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))


@compiled
def day_of(clock: Clock, time: int) -> int:
    """Day of the world's calendar, from 0."""
    return (time - clock.start) // 86_400


@compiled
def gaze_of(gazes: F64, device: int) -> Gaze:
    """Chances to look on with this device; `gazes` is [device, (row, first_col, next_col)]."""
    return Gaze(gazes[device, 0], gazes[device, 1], gazes[device, 2])


@compiled
def expect_pages(
    clock: Clock, b: Behavior, gazes: F64, mobile_share: float, traits: Traits, appeal: F32, share: F64, row: I32,
    pages: I32, user: I32, time: I64, owned: I32, view: F64, click: F64, cart: F64, buy: F64,
) -> None:  # fmt: skip
    """Fills the exact chances of every slot, all [page, slot]."""
    lasting, interest = np.empty(share.size), np.empty(share.size)
    for p in range(user.size):
        who = int(user[p])
        fill_interest(clock, who, time[p], b, share, lasting, interest)
        mind = Mind(taste_of(clock.seed, who), log_budget_of(clock, who, time[p], b))
        today = appeal[day_of(clock, time[p])]
        gaze = gaze_of(gazes, device_of(clock.seed, who, mobile_share))
        expect_page(traits, today, b, gaze, interest, mind, owned[p], row, pages[p], view[p], click[p], cart[p], buy[p])


@compiled
def sample_pages(
    clock: Clock, b: Behavior, gazes: F64, mobile_share: float, traits: Traits, appeal: F32, share: F64, row: I32,
    pages: I32, user: I32, time: I64, visit: I64, owned: I32, outcome: Outcome,
) -> None:  # fmt: skip
    """Fills one sampled outcome of every slot [page, slot]."""
    lasting, interest = np.empty(share.size), np.empty(share.size)
    for p in range(user.size):
        who = int(user[p])
        fill_interest(clock, who, time[p], b, share, lasting, interest)
        mind = Mind(taste_of(clock.seed, who), log_budget_of(clock, who, time[p], b))
        today = appeal[day_of(clock, time[p])]
        gaze = gaze_of(gazes, device_of(clock.seed, who, mobile_share))
        key = stream(clock.seed, _FEEDBACK, who, visit[p])
        sample_page(traits, today, b, gaze, interest, mind, owned[p], row, pages[p], key, outcome[p])


@compiled
def relevance_of_items(
    clock: Clock, b: Behavior, traits: Traits, appeal: F32, share: F64,
    user: I32, time: I64, items: I32, owned: I32, click: F64, cart: F64, buy: F64,
) -> None:  # fmt: skip
    """Fills the chances [context, candidate] of a click, cart and purchase of items that are seen and stand alone."""
    lasting, interest = np.empty(share.size), np.empty(share.size)
    for p in range(user.size):
        who = int(user[p])
        fill_interest(clock, who, time[p], b, share, lasting, interest)
        mind = Mind(taste_of(clock.seed, who), log_budget_of(clock, who, time[p], b))
        today = appeal[day_of(clock, time[p])]
        for c in range(items.shape[1]):
            item = items[p, c]
            click[p, c] = click_alone(traits, today, b, interest, mind, item) * owned_factor(traits, b, owned[p], item)
            cart[p, c] = click[p, c] * cart_alone(traits, b, mind, item)
            buy[p, c] = cart[p, c] * buy_alone(traits, b, mind, item)


@compiled
def live(
    clock: Clock, b: Behavior, gazes: F64, mobile_share: float, traits: Traits, appeal: F32, share: F64, row: I32,
    tables: tuple[PolicyTable, ...], shares: F64, user: I32, time: I64, visit: I64, first: I64,
    owned: I32, policy: I8, items: I32, propensity: F32, outcome: Outcome,
) -> None:  # fmt: skip
    """Lives through the visits of users one after the other: a policy composes, the user reacts and remembers purchases.

    Visits [page] are sorted by user and time; `first` [user + 1] holds where each user's visits start. `owned`
    [page, memory] receives the groups that the user bought within `owned_days` before the page.
    """
    themes = share.size
    lasting, interest, lift, mass = np.empty(themes), np.empty(themes), np.empty(themes), np.empty(themes)
    chance = np.empty(items.shape[1])
    bought, when = np.empty(owned.shape[1], np.int32), np.empty(owned.shape[1], np.int64)
    for u in range(first.size - 1):
        newest = 0
        for h in range(bought.size):
            bought[h], when[h] = -1, 0
        for p in range(first[u], first[u + 1]):
            who = int(user[p])
            day = day_of(clock, time[p])
            recall(bought, when, time[p] - int(b.owned_days * 86_400), owned[p])
            fill_interest(clock, who, time[p], b, share, lasting, interest)
            policy[p] = pick(shares, uniform(stream(clock.seed, _POLICY, who, visit[p])))
            table = tables[policy[p]]
            fill_lift(table, clock.seed, who, day, lasting, lift)
            compose_page(table, day, lift, mass, stream(clock.seed, _COMPOSE, who, visit[p]), items[p])
            propensities(table, day, lift, mass, items[p], chance)
            for s in range(chance.size):
                propensity[p, s] = chance[s]
            mind = Mind(taste_of(clock.seed, who), log_budget_of(clock, who, time[p], b))
            gaze = gaze_of(gazes, device_of(clock.seed, who, mobile_share))
            key = stream(clock.seed, _FEEDBACK, who, visit[p])
            sample_page(traits, appeal[day], b, gaze, interest, mind, owned[p], row, items[p], key, outcome[p])
            newest = remember(traits, items[p], outcome[p], time[p], bought, when, newest)


@compiled
def pick(shares: F64, u: float) -> int:
    """The first policy whose cumulative share exceeds u."""
    for code in range(shares.size - 1):
        if u < shares[code]:
            return code
    return shares.size - 1


@compiled
def recall(bought: I32, when: I64, since: int, owned: I32) -> None:
    """Writes the groups bought at or after `since` [memory], then -1."""
    count = 0
    for h in range(bought.size):
        owned[h] = -1
    for h in range(bought.size):
        if bought[h] >= 0 and when[h] >= since:
            owned[count] = bought[h]
            count += 1


@compiled
def remember(traits: Traits, items: I32, outcome: Outcome, time: int, bought: I32, when: I64, newest: int) -> int:
    """Adds what was bought on a page to the memory; the oldest purchase is forgotten first."""
    for s in range(items.size):
        if outcome[s] & PURCHASED:
            bought[newest], when[newest] = traits[items[s]].group, time
            newest = (newest + 1) % bought.size
    return newest


@compiled
def compose_pages(
    clock: Clock, b: Behavior, share: F64, table: PolicyTable, user: I32, time: I64, visit: I64, items: I32
) -> None:
    """Fills pages [page, slot] drawn by one logging policy."""
    lasting, lift = np.empty(share.size), np.empty(share.size)
    interest, mass = np.empty(share.size), np.empty(share.size)
    for p in range(user.size):
        who = int(user[p])
        fill_interest(clock, who, time[p], b, share, lasting, interest)
        fill_lift(table, clock.seed, who, day_of(clock, time[p]), lasting, lift)
        key = stream(clock.seed, _COMPOSE, who, visit[p])
        compose_page(table, day_of(clock, time[p]), lift, mass, key, items[p])


@compiled
def score_pages(
    clock: Clock, b: Behavior, share: F64, table: PolicyTable, user: I32, time: I64, items: I32, propensity: F64
) -> None:
    """Fills the propensities [page, slot] that one logging policy gives to these pages."""
    lasting, lift = np.empty(share.size), np.empty(share.size)
    interest, mass = np.empty(share.size), np.empty(share.size)
    for p in range(user.size):
        who = int(user[p])
        fill_interest(clock, who, time[p], b, share, lasting, interest)
        fill_lift(table, clock.seed, who, day_of(clock, time[p]), lasting, lift)
        propensities(table, day_of(clock, time[p]), lift, mass, items[p], propensity[p])
