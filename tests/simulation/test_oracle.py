"""The best page by brute force, and the claim that relevance alone does not make it."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest

from pagellm.errors import UsageError
from pagellm.simulation.oracle import best_page, greedy_page, mmr_page, relevance_page, values
from pagellm.types import DAY


@pytest.fixture
def pool(tiny):
    time = tiny.spec.start + 50 * DAY
    return 5, time, relevance_page(tiny, 5, time, tiny.candidates(time), 6)


@pytest.mark.parametrize("metric", ["clicks", "gmv"])
def test_no_ordered_page_beats_the_best_one(tiny, pool, metric):
    user, time, candidates = pool
    page, value = best_page(tiny, user, time, candidates, 3, metric)
    pages = np.array(list(permutations(candidates.tolist(), 3)), np.int32)
    every = values(tiny, pages, user, time, metric, np.zeros(3, np.int32))
    assert value == every.max()
    assert np.array_equal(page, pages[every.argmax()])


def test_simpler_makers_never_beat_the_best_page(tiny):
    row = np.array([0, 0, 1, 1], np.int32)
    for user in range(12):
        time = tiny.spec.start + (3 + 9 * user) * DAY
        pool = relevance_page(tiny, user, time, tiny.candidates(time), 8)
        _, best = best_page(tiny, user, time, pool, 4, row=row)
        for page in (
            relevance_page(tiny, user, time, pool, 4),
            greedy_page(tiny, user, time, pool, 4),
            mmr_page(tiny, user, time, pool, 4, 0.6),
        ):
            assert values(tiny, page[None, :], user, time, row=row)[0] <= best * (1 + 1e-12)


def test_mmr_without_likeness_is_relevance(tiny, pool):
    user, time, candidates = pool
    assert np.array_equal(mmr_page(tiny, user, time, candidates, 4, 1.0), relevance_page(tiny, user, time, candidates, 4))


def test_brute_force_declines_what_would_never_end(tiny, pool):
    user, time, candidates = pool
    with pytest.raises(UsageError, match="brute force tries"):
        best_page(tiny, user, time, tiny.candidates(time), 8)
    with pytest.raises(UsageError, match="brute force tries"):
        best_page(tiny, user, time, candidates, 7)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_relevance_alone_is_not_enough(worth, seed):
    world = worth.World.make("demo", seed)
    found = worth.page_values(world, "clicks", 25)
    aware, low, _ = worth.ratio(found["page-aware"], found["relevance"])
    assert low > 1.10, f"page-aware over relevance: {aware}"
    assert worth.ratio(found["page-aware"], found["page-aware, shuffled"])[1] > 1.05
    mmr = next(v for k, v in found.items() if k.startswith("MMR"))
    assert worth.ratio(found["page-aware"], mmr)[1] > 1.0


def test_the_page_aware_maker_comes_near_the_best_page(worth):
    share = worth.tiny_regret(1, 15)
    assert share["relevance"] < share["page-aware"] <= 1.0
    assert share["page-aware"] > 0.97


def test_the_documented_figures_are_those_of_the_saved_run(worth, root):
    found = json.loads(worth.RESULT.read_text())
    document = (root / "docs" / "world.md").read_text(encoding="utf-8")
    assert worth.tables(found) in document
    for seeds in found["ratio_to_relevance"].values():
        assert all(rows["page-aware"][1] > 1.10 for rows in seeds.values())
