"""Where customers look: the intervals of the report hold the truth of a log that knows it, and nothing is said where a log is mute."""

from __future__ import annotations

import dataclasses

import numpy as np

from data.test_examination import TRUE, pages, without
from pagellm.judging import looked_at as looking
from pagellm.judging.looked_at import looked_at


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held, widths = [], []
    for seed in range(10):
        found = looked_at(pages(2_000, seed))
        assert found is not None
        true = TRUE[np.array(found["row"]) - 1, np.array(found["col"]) - 1]
        held.append((np.array(found["low"]) <= true) & (true <= np.array(found["high"])))
        widths.append(np.array(found["high"]) - np.array(found["low"]))
    inner = TRUE.ravel() < 1  # a chance of 1 has no spread
    assert 0.88 <= np.stack(held)[:, inner].mean() <= 1
    assert np.stack(widths)[:, inner].max() < 0.1


def test_a_larger_log_is_drawn_from(monkeypatch) -> None:
    monkeypatch.setattr(looking, "MOST_PAGES", 500)
    found = looked_at(without(pages(2_000), "viewed"))
    assert found is not None
    assert found["pages"] == 500
    assert sum(found["slots"]) == 500 * TRUE.size


def test_a_log_that_does_not_say_is_left_out() -> None:
    shown = without(pages(50), "viewed", "propensity")
    assert looked_at(None) is None
    assert looked_at(dataclasses.replace(shown, clicked=np.zeros_like(shown.clicked))) is None
