"""P-SIM-1: feedback on pages in the simulated world, against vectorized numpy and against a Python loop over pages.

Both peers write the world's equations anew, random numbers by counting included, so they are also the test of the kernels: the
outcomes are compared as integers, slot by slot, before any time counts. The job: 20 items shown to each of many users, from who
the user is and what the moment brings to looks, clicks, carts and purchases.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke

MASK = (1 << 64) - 1
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
FAVORITE, LEANING, DRIFT, INTENT, TASTE, PURSE, DEVICE, FEEDBACK = 1, 2, 3, 4, 5, 6, 7, 8
SCROLL = 1 << 20
DAY = 86_400


def job(world: Any, pages: int) -> tuple[Any, ...]:
    """Random pages [page, 20] for random users within one day, each visit numbered."""
    rng = np.random.default_rng(5)
    shown = np.argsort(rng.random((pages, 200)), axis=1)[:, : world.spec.slots].astype(np.int32)  # of the first 200 items
    user = rng.integers(0, 10_000_000, pages).astype(np.int32)
    time = (world.spec.start + 30 * DAY + rng.integers(0, DAY, pages)).astype(np.int64)
    return shown, user, time, np.arange(pages, dtype=np.int64)


# ---------------------------------------------------------------------------------------------------- vectorized numpy


def np_mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(SECOND)
    return x ^ (x >> np.uint64(31))


def np_u64(x: Any) -> Any:
    return np.asarray(x).astype(np.uint64)


def np_stream(seed: int, purpose: int, first: Any, second: Any) -> Any:
    key = np_mix(np.full(np.shape(first), (seed + GOLDEN * (purpose + 1)) & MASK, np.uint64))
    key = np_mix(key + np.uint64(GOLDEN) * (np_u64(first) + np.uint64(1)))
    return np_mix(key + np.uint64(FIRST) * (np_u64(second) + np.uint64(1)))


def np_draw(key: Any, counter: Any) -> Any:
    return np_mix(key + np.uint64(GOLDEN) * (np_u64(counter) + np.uint64(1)))


def np_uniform(bits: Any) -> Any:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def np_normal(bits: Any) -> Any:
    low = np.uint64(0xFFFF)
    parts = [bits & low, (bits >> np.uint64(16)) & low, (bits >> np.uint64(32)) & low, bits >> np.uint64(48)]
    return (sum(p.astype(np.float64) for p in parts) - 131070.0) / (65536.0 * math.sqrt(4 / 12))


def np_interest(world: Any, user: Any, time: Any) -> Any:
    """[page, theme] interest of the moment."""
    b, share, seed = world.spec.behavior, world.shop.share, world.seed
    themes = np.arange(len(share))[None, :]
    place = (time - world.spec.start) / (b.drift_days * 86400.0)
    knot = np.floor(place).astype(np.int64)
    part = place - knot
    smooth = (part * part * (3.0 - 2.0 * part))[:, None]
    favorites = np_stream(seed, FAVORITE, user, np.zeros_like(user))[:, None]
    leanings = np_stream(seed, LEANING, user, np.zeros_like(user))[:, None]
    is_favorite = np_uniform(np_draw(favorites, 2 * themes)) < b.favorites * share
    lift = b.favorite + b.favorite_spread * np_uniform(np_draw(favorites, 2 * themes + 1))
    base = np.where(is_favorite, lift, b.leaning * np_normal(np_draw(leanings, themes)))
    before = np_normal(np_draw(np_stream(seed, DRIFT, user, knot)[:, None], themes))
    after = np_normal(np_draw(np_stream(seed, DRIFT, user, knot + 1)[:, None], themes))
    interest = base + b.drift * (before * (1.0 - smooth) + after * smooth)
    key = np_stream(seed, INTENT, user, (time - world.spec.start) // int(b.intent_hours * 3600.0))
    came = np_uniform(np_draw(key, np.zeros_like(user))) < b.intent_share
    wish = interest + 0.8 * np_normal(np_draw(key[:, None], themes + 1))
    interest[np.flatnonzero(came), wish.argmax(axis=1)[came]] += b.intent
    return interest


def np_feedback(world: Any, shown: Any, user: Any, time: Any, visit: Any) -> Any:
    """[page, slot] outcome bits."""
    b, traits, seed = world.spec.behavior, world.shop.traits, world.seed
    pages, slots = shown.shape
    zero = np.zeros_like(user)
    interest = np_interest(world, user, time)
    taste = np_normal(np_draw(np_stream(seed, TASTE, user, zero)[:, None], np.arange(4)[None, :]))
    purse = np_stream(seed, PURSE, user, zero)
    month = (time - world.spec.start) / (30.0 * 86400.0)
    swing = b.payday * np.cos(2.0 * np.pi * (month + 0.2 * np_uniform(np_draw(purse, zero + 1))))
    budget = (math.log(35.0) + b.purse_spread * np_normal(np_draw(purse, zero)) + swing)[:, None]
    mobile = np_uniform(np_stream(seed, DEVICE, user, zero)) < world.spec.attention.mobile_share
    gaze = world.gazes[mobile.astype(int)]
    theme, group = traits["theme"][shown], traits["group"][shown]
    log_price, quality = traits["log_price"][shown].astype(np.float64), traits["quality"][shown].astype(np.float64)
    style = traits["style"][shown].astype(np.float64)
    match = np.einsum("psd,pd->ps", style, taste)
    appeal = world.shop.appeal[(time - world.spec.start) // DAY][np.arange(pages)[:, None], shown]
    logit = interest[np.arange(pages)[:, None], theme] + appeal + b.taste * match
    click = 1.0 / (1.0 + np.exp(-(b.base + logit - b.price_pull * np.maximum(0.0, log_price - budget))))
    near, alike = np.zeros(shown.shape, int), np.zeros(shown.shape, int)
    for s in range(1, slots):
        near[:, s] = (group[:, :s] == group[:, s : s + 1]).sum(axis=1)
        alike[:, s] = (theme[:, :s] == theme[:, s : s + 1]).sum(axis=1)
    click = click * b.duplicate**near * b.satiation ** (alike - near)
    cart = 1.0 / (1.0 + np.exp(-(b.cart + b.cart_quality * quality - b.afford * (log_price - budget))))
    buy = 1.0 / (1.0 + np.exp(-(b.buy - b.afford * (log_price - budget)))) * b.duplicate_buy**near
    key = np_stream(seed, FEEDBACK, user, visit)[:, None]
    draws = [np_uniform(np_draw(key, 4 * np.arange(slots)[None, :] + i)) for i in range(4)]
    return np_sample(world.row, gaze, b.distraction, key, draws, (click, cart, buy))


def np_sample(row: Any, gaze: Any, distraction: float, key: Any, draws: list[Any], chances: tuple[Any, Any, Any]) -> Any:
    """Outcome bits [page, slot], row after row over all pages at once."""
    pages, slots = draws[0].shape
    outcome = np.zeros((pages, slots), np.uint8)
    reading = np.ones(pages, bool)
    for r in np.unique(row):
        seeing, clicked = reading.copy(), np.zeros(pages, bool)
        for place, s in enumerate(np.flatnonzero(row == r)):
            if place > 0:
                seeing &= draws[0][:, s] < (gaze[:, 1] if place == 1 else gaze[:, 2])
            click = seeing & (draws[1][:, s] < chances[0][:, s])
            cart = click & (draws[2][:, s] < chances[1][:, s])
            buy = cart & (draws[3][:, s] < chances[2][:, s])
            outcome[:, s] = seeing + 2 * click + 4 * cart + 8 * buy
            clicked |= click
        on = np.where(clicked, gaze[:, 0] * (1.0 - distraction), gaze[:, 0])
        reading &= np_uniform(np_draw(key[:, 0], np.full(pages, SCROLL + r))) < on
    return outcome


# ---------------------------------------------------------------------------------------------------- a loop over pages


def py_mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * FIRST) & MASK
    x = ((x ^ (x >> 27)) * SECOND) & MASK
    return x ^ (x >> 31)


def py_stream(seed: int, purpose: int, first: int, second: int) -> int:
    key = py_mix((seed + GOLDEN * (purpose + 1)) & MASK)
    key = py_mix((key + GOLDEN * (first + 1)) & MASK)
    return py_mix((key + FIRST * (second + 1)) & MASK)


def py_draw(key: int, counter: int) -> int:
    return py_mix((key + GOLDEN * (counter + 1)) & MASK)


def py_uniform(bits: int) -> float:
    return (bits >> 11) * 2.0**-53


def py_normal(bits: int) -> float:
    total = (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + (bits >> 48)
    return (total - 131070.0) / (65536.0 * math.sqrt(4 / 12))


def py_sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


class Shopper:
    """One user in front of one page: `step` looks at the next slot, as a Gym-style simulator does."""

    def __init__(self, world: Any, items: list[dict[str, Any]], user: int, time: int, visit: int) -> None:
        b, seed = world.spec.behavior, world.seed
        self.b, self.before = b, []
        self.interest = py_interest(world, user, time)
        taste = py_stream(seed, TASTE, user, 0)
        self.taste = [py_normal(py_draw(taste, d)) for d in range(4)]
        purse = py_stream(seed, PURSE, user, 0)
        month = (time - world.spec.start) / (30.0 * 86400.0)
        swing = b.payday * math.cos(2.0 * math.pi * (month + 0.2 * py_uniform(py_draw(purse, 1))))
        self.budget = math.log(35.0) + b.purse_spread * py_normal(py_draw(purse, 0)) + swing
        mobile = py_uniform(py_stream(seed, DEVICE, user, 0)) < world.spec.attention.mobile_share
        self.gaze = [float(g) for g in world.gazes[int(mobile)]]
        self.key = py_stream(seed, FEEDBACK, user, visit)
        self.reading, self.seeing, self.clicked = True, True, False

    def new_row(self, row: int) -> None:
        """Scrolls on, or stops."""
        if row > 0:
            on = self.gaze[0] * (1.0 - self.b.distraction if self.clicked else 1.0)
            self.reading = self.reading and py_uniform(py_draw(self.key, SCROLL + row - 1)) < on
        self.seeing, self.clicked = self.reading, False

    def step(self, s: int, place: int, item: dict[str, Any], appeal: float) -> int:
        """Outcome bits of one slot."""
        b, before = self.b, self.before
        near = sum(o["group"] == item["group"] for o in before)
        alike = sum(o["theme"] == item["theme"] for o in before) - near
        before.append(item)
        if place > 0 and self.seeing:
            self.seeing = py_uniform(py_draw(self.key, 4 * s)) < self.gaze[1 if place == 1 else 2]
        if not self.seeing:
            return 0
        match = sum(t * v for t, v in zip(self.taste, item["style"], strict=True))
        dear = item["log_price"] - self.budget
        logit = b.base + self.interest[item["theme"]] + appeal + b.taste * match - b.price_pull * max(0.0, dear)
        if py_uniform(py_draw(self.key, 4 * s + 1)) >= py_sigmoid(logit) * b.duplicate**near * b.satiation**alike:
            return 1
        self.clicked = True
        if py_uniform(py_draw(self.key, 4 * s + 2)) >= py_sigmoid(b.cart + b.cart_quality * item["quality"] - b.afford * dear):
            return 3
        return (
            7 if py_uniform(py_draw(self.key, 4 * s + 3)) >= py_sigmoid(b.buy - b.afford * dear) * b.duplicate_buy**near else 15
        )


def py_interest(world: Any, user: int, time: int) -> list[float]:
    b, seed = world.spec.behavior, world.seed
    place = (time - world.spec.start) / (b.drift_days * 86400.0)
    knot = math.floor(place)
    part = place - knot
    smooth = part * part * (3.0 - 2.0 * part)
    favorites, leanings = py_stream(seed, FAVORITE, user, 0), py_stream(seed, LEANING, user, 0)
    before, after = py_stream(seed, DRIFT, user, knot), py_stream(seed, DRIFT, user, knot + 1)
    interest = []
    for k, share in enumerate(world.shop.share.tolist()):
        if py_uniform(py_draw(favorites, 2 * k)) < b.favorites * share:
            base = b.favorite + b.favorite_spread * py_uniform(py_draw(favorites, 2 * k + 1))
        else:
            base = b.leaning * py_normal(py_draw(leanings, k))
        drift = py_normal(py_draw(before, k)) * (1.0 - smooth) + py_normal(py_draw(after, k)) * smooth
        interest.append(base + b.drift * drift)
    key = py_stream(seed, INTENT, user, (time - world.spec.start) // int(b.intent_hours * 3600.0))
    if py_uniform(py_draw(key, 0)) < b.intent_share:
        wish = [v + 0.8 * py_normal(py_draw(key, k + 1)) for k, v in enumerate(interest)]
        interest[wish.index(max(wish))] += b.intent
    return interest


def py_feedback(world: Any, shown: Any, user: Any, time: Any, visit: Any) -> Any:
    """[page, slot] outcome bits, one page and one slot at a time."""
    names = world.shop.traits.dtype.names
    items = [dict(zip(names, (v.tolist() for v in t), strict=True)) for t in world.shop.traits]
    outcome = np.zeros(shown.shape, np.uint8)
    for p, (page, u, t, v) in enumerate(zip(shown.tolist(), user.tolist(), time.tolist(), visit.tolist(), strict=True)):
        shopper = Shopper(world, items, u, t, v)
        appeal = world.shop.appeal[(t - world.spec.start) // DAY]
        for s, item in enumerate(page):
            row, place = divmod(s, world.spec.cols)
            if place == 0:
                shopper.new_row(row)
            outcome[p, s] = shopper.step(s, place, items[item], float(appeal[item]))
    return outcome


def equal(peer: str, ours: Any, theirs: Any) -> float:
    assert np.array_equal(ours, theirs), f"{peer}: {np.count_nonzero(ours != theirs)} of {ours.size} outcomes differ"
    return 0.0


def comparisons() -> Sequence[Comparison]:
    from pagellm.simulation.world import World

    world = World.make("demo", 7)
    many, few = (2_000, 200) if smoke() else (50_000, 500)
    big, small = job(world, many), job(world, few)
    shape = f"pages of {world.spec.rows} x {world.spec.cols}"
    return [
        compare(
            "feedback of users on pages, vectorized",
            ours=lambda: world.sample_feedback(*big).outcome,
            peers={"numpy": lambda: np_feedback(world, *big)},
            check=equal,
            target={"numpy": 4.0},
            notes={"pages": many, "shape": shape},
        ),
        compare(
            "feedback of users on pages, one by one",
            ours=lambda: world.sample_feedback(*small).outcome,
            peers={"Python loop": lambda: py_feedback(world, *small)},
            check=equal,
            target={"Python loop": 100.0},
            notes={"pages": few, "shape": shape},
        ),
    ]


if __name__ == "__main__":
    main("simulation", comparisons)
