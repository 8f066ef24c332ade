"""Baselines on real logs against figures that independent prototypes measured under the same protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pagellm.data.readers import read_log
from pagellm.data.splits import temporal_split
from pagellm.evaluation.baselines.ease import fit_ease
from pagellm.evaluation.baselines.itemknn import fit_itemknn
from pagellm.evaluation.methods import fit_classical
from pagellm.evaluation.metrics import accuracy


@pytest.mark.data
def test_itemknn_on_beauty_agrees_with_an_independent_implementation(real_data: Path) -> None:
    log = read_log(real_data / "amazon14_beauty")
    split = temporal_split(log.interactions, len(log.catalog))
    contexts = split.test.take(split.test.warm)
    method = fit_itemknn(split.log, split.fit_until_test, split.candidates_test)
    values = accuracy(method.rank(contexts, 100), contexts)
    assert len(contexts) == 5576
    assert values["ndcg@10"].mean() == pytest.approx(0.0323, abs=0.001)
    assert values["ndcg@100"].mean() == pytest.approx(0.0464, abs=0.001)
    content = np.zeros((len(log.catalog), 1), np.float32)
    live = fit_classical("popularity-30d", split, content).ranker.rank(contexts, 100)
    assert accuracy(live, contexts)["ndcg@100"].mean() > 0.0349  # what the last 30 days before the cut reach when they go stale


@pytest.mark.data
@pytest.mark.slow
def test_ease_on_beauty_agrees_with_an_independent_implementation(real_data: Path) -> None:
    log = read_log(real_data / "amazon14_beauty")
    split = temporal_split(log.interactions, len(log.catalog))
    contexts = split.test.take(split.test.warm)
    method = fit_ease(split.log, split.fit_until_test, split.candidates_test)
    values = accuracy(method.rank(contexts, 100), contexts)
    assert values["ndcg@10"].mean() == pytest.approx(0.0339, abs=0.001)
    assert values["ndcg@100"].mean() == pytest.approx(0.0512, abs=0.001)
