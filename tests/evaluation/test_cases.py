"""Users that a report shows are chosen by a rule, losses with the gains."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_shop import last_baskets, random_log

from pagellm.evaluation.cases import KINDS, cases


def test_each_kind_is_who_it_says():
    contexts = last_baskets(random_log(60, 20, seed=5))
    rng = np.random.default_rng(1)
    judged = np.flatnonzero(contexts.stop > contexts.start)
    gain = rng.normal(size=len(judged))
    broken = rng.integers(0, 9, len(contexts))
    found = {case.kind: case for case in cases(contexts, judged, gain, broken, "ndcg@10")}
    length = contexts.stop - contexts.start
    places = [case.place for case in found.values()]
    assert len(set(places)) == len(places)
    assert list(found) == [kind for kind in KINDS if kind in found]
    assert found["best gain"].gain == gain.max()
    assert found["worst loss"].gain == gain.min()
    assert length[found["heavy user"].place] == np.delete(length, [found[k].place for k in ("best gain", "worst loss")]).max()
    rank = (np.sort(gain) <= found["typical"].gain).mean()
    assert rank == pytest.approx(0.5, abs=0.1)
    assert "worst loss" in found["worst loss"].kind
    assert f"{gain.min():+.3f}" in found["worst loss"].why
    assert f"break them {broken[found['rule-heavy'].place]} times" in found["rule-heavy"].why


def test_a_kind_without_a_user_is_left_out():
    contexts = last_baskets(random_log(3, 20, seed=5))
    warm = np.flatnonzero(contexts.stop > contexts.start)
    found = cases(contexts, warm, np.zeros(len(warm)), np.zeros(len(contexts), np.int64), "ndcg@10")
    kinds = [case.kind for case in found]
    assert "rule-heavy" not in kinds, "no page breaks a rule"
    assert len(kinds) <= len(contexts)
    assert cases(contexts.take(np.empty(0, np.int64)), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), "ndcg@10") == []
