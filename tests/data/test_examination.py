"""Where people look, recovered from pages of a world that knows it, by every kind of evidence that a log may hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pagellm.data.examination import estimate_examination
from pagellm.errors import DataError
from pagellm.types import DAY, F64, Impressions

ROWS, COLS, ITEMS = 3, 4, 100
TRUE = np.outer([1.0, 0.7, 0.4], [1.0, 0.8, 0.5, 0.3])


def pages(count: int, seed: int = 0, sharpness: float = 0.0) -> Impressions:
    """Pages of the position-based model. `sharpness` puts what a user wants into the best places, more or less often."""
    rng = np.random.default_rng(seed)
    slots, order = ROWS * COLS, np.argsort(-TRUE.ravel())
    wanted = rng.beta(1, 4, (count, ITEMS))  # each user has its own wishes
    weight = np.exp(sharpness * wanted)
    item, chance = np.zeros((count, slots), np.int32), np.zeros((count, slots))
    left = weight.copy()
    every = np.arange(count)
    for place in order:  # the best place is filled first, by Plackett-Luce
        share = left / left.sum(1, keepdims=True)
        pick = (share.cumsum(1) > rng.random((count, 1))).argmax(1)
        item[:, place], chance[:, place] = pick, share[every, pick]
        left[every, pick] = 0
    viewed = rng.random((count, slots)) < TRUE.ravel()
    clicked = viewed & (rng.random((count, slots)) < np.take_along_axis(wanted, item, 1))
    flat = count * slots
    return Impressions(
        np.array([f"p{n}" for n in range(count)]),
        np.zeros(count, np.int32),
        np.arange(count, dtype=np.int64),
        np.array(["logging"] * count),
        np.arange(0, flat + 1, slots, dtype=np.int64),
        item.ravel(),
        np.tile(np.repeat(np.arange(ROWS), COLS), count).astype(np.int16),
        np.tile(np.arange(COLS), ROWS * count).astype(np.int16),
        chance.ravel().astype(np.float32),
        viewed.ravel().astype(np.int8),
        clicked.ravel(),
        np.zeros(flat, bool),
        np.zeros(flat, bool),
        np.zeros(flat, np.float32),
        np.arange(count, dtype=np.int64),
    )


def line(found: F64) -> tuple[float, float]:
    """(slope, intercept) of the truth on the estimate: (1, 0) if the estimate is right everywhere."""
    slope, intercept = np.polyfit(found.ravel(), TRUE.ravel(), 1)
    return float(slope), float(intercept)


def without(shown: Impressions, *columns: str) -> Impressions:
    gone = {"viewed": np.full_like(shown.viewed, -1), "propensity": np.full_like(shown.propensity, np.nan)}
    return dataclasses.replace(shown, **{name: gone[name] for name in columns})


def test_known_views_are_counted() -> None:
    shown = pages(20_000)
    found = estimate_examination(shown)
    assert found.source == "viewed"
    assert found.seen.ravel() == pytest.approx(shown.viewed.reshape(-1, ROWS * COLS).mean(0))
    assert found.seen == pytest.approx(TRUE, abs=0.015)


def test_randomized_pages_give_the_truth_although_the_best_places_hold_what_is_wanted() -> None:
    shown = without(pages(80_000, sharpness=10.0), "viewed")
    found = estimate_examination(shown)
    assert found.source == "propensity"
    slope, intercept = line(found.seen)
    assert slope == pytest.approx(1, abs=0.07)
    assert intercept == pytest.approx(0, abs=0.05)
    plain = shown.clicked.reshape(-1, ROWS * COLS).mean(0).reshape(ROWS, COLS)
    wrong, right = (np.abs(x - TRUE).max() for x in (plain / plain.max(), found.seen))
    assert wrong > 1.5 * right, "plain click rates blame the places for what stands there"


def test_clicks_alone_are_enough_where_items_stand_anywhere() -> None:
    found = estimate_examination(without(pages(60_000), "viewed", "propensity"))
    assert found.source == "clicks"
    slope, intercept = line(found.seen)
    assert slope == pytest.approx(1, abs=0.08)
    assert intercept == pytest.approx(0, abs=0.05)


def test_few_slots_that_count_fall_back_to_clicks_and_say_so() -> None:
    shown = without(pages(3_000, sharpness=25.0), "viewed")
    found = estimate_examination(shown)
    assert found.source == "clicks"
    assert "clicks alone" in found.why


def test_a_place_that_the_log_lacks_has_its_neighbors_chance() -> None:
    found = estimate_examination(pages(5_000))
    assert found.of(np.array([0, 9]), np.array([0, 9])) == pytest.approx([found.seen[0, 0], found.seen[-1, -1]])
    holes = dataclasses.replace(found, seen=np.where(np.eye(ROWS, COLS, 1) > 0, np.nan, found.seen))
    assert holes.of(np.array([0]), np.array([1])) == pytest.approx(found.seen[0, 0])


def test_nothing_to_learn_from_is_said() -> None:
    shown = without(pages(50), "viewed")
    with pytest.raises(DataError, match="select_item"):
        estimate_examination(dataclasses.replace(shown, clicked=np.zeros_like(shown.clicked)))
    empty = dataclasses.replace(shown, **{f: getattr(shown, f)[:0] for f in ("item", "row", "col", "viewed", "clicked")})
    with pytest.raises(DataError, match=r"have no slots.*0 rows.*column.*slots"):
        estimate_examination(empty)


def test_the_simulated_shops_attention_is_found_from_clicks_alone() -> None:
    from pagellm.simulation.world import World

    world, count = World.make("demo", 3), 200_000
    rng = np.random.default_rng(0)
    user, time = rng.integers(0, 5_000, count).astype(np.int32), np.full(count, world.spec.start + 60 * DAY + 7_200, np.int64)
    items = world.candidates(int(time[0]))
    slots = world.spec.rows * world.spec.cols
    shown = items[rng.integers(0, len(items), (count, slots))].astype(np.int32)  # of 2,000 items few stand on a page twice
    outcome = world.sample_feedback(shown, user, time, np.arange(count, dtype=np.int64))
    truth = world.expected(shown, user, time).view.mean(0).reshape(world.spec.rows, world.spec.cols)
    log = Impressions(
        np.array([f"p{n}" for n in range(count)]),
        user,
        time,
        np.array(["uniform"] * count),
        np.arange(0, count * slots + 1, slots, dtype=np.int64),
        shown.ravel(),
        np.tile(world.row, count).astype(np.int16),
        np.tile(np.arange(world.spec.cols), count * world.spec.rows).astype(np.int16),
        np.full(count * slots, np.nan, np.float32),
        np.full(count * slots, -1, np.int8),
        outcome.clicked.ravel(),
        np.zeros(count * slots, bool),
        np.zeros(count * slots, bool),
        np.zeros(count * slots, np.float32),
        time,
    )
    found = estimate_examination(log)
    assert found.source == "clicks"
    slope, intercept = np.polyfit(found.seen.ravel(), (truth / truth.max()).ravel(), 1)
    assert slope == pytest.approx(1, abs=0.08)
    assert intercept == pytest.approx(0, abs=0.03)
