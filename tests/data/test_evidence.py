"""Evidence is what was known at the context's time: equal to what a log cut at that time gives, and to slow arithmetic by hand."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.config import CandidateConfig
from pagellm.data.candidates import draw_pool, nearest, unite
from pagellm.data.content import content_vectors, title_vectors
from pagellm.data.contexts import ALWAYS, contexts_between, contexts_of
from pagellm.data.cooccurrence import KINDS, build_postings, pair_candidates, pair_evidence
from pagellm.data.evidence import GROUPS, NAMES, build_evidence
from pagellm.data.popularity import WINDOWS_D, popular_candidates, popularity_evidence
from pagellm.types import DAY, NO_ITEM, Context, Contexts, Interactions

CATALOG, LOG = small_catalog(), small_log()
CONTENT = content_vectors(CATALOG, 16)
EVIDENCE = build_evidence(CATALOG, LOG, CONTENT)
CONTEXTS = contexts_between(LOG, -ALWAYS, ALWAYS)
EVERY = np.tile(np.arange(len(CATALOG), dtype=np.int32), (1, 1))


def pool_for(contexts: Contexts) -> np.ndarray:
    return np.repeat(EVERY, len(contexts), axis=0)


@pytest.mark.parametrize("place", [3, 50, 120, len(CONTEXTS) - 1])
def test_the_future_changes_nothing(place: int) -> None:
    context = CONTEXTS.take(np.array([place]))
    past = LOG.where(LOG.time < context.time[0])
    known = build_evidence(CATALOG, past, CONTENT)
    np.testing.assert_array_equal(EVIDENCE.features(context, EVERY), known.features(context, EVERY))
    allowed = np.ones(len(CATALOG), bool)
    drawn = (draw_pool(e, context, CandidateConfig(policy=0), allowed) for e in (EVIDENCE, known))
    np.testing.assert_array_equal(*drawn)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(CONTEXTS) - 1), st.integers(0, len(CATALOG) - 1))
def test_counts_equal_counting(place: int, item: int) -> None:
    context = CONTEXTS.take(np.array([place]))
    now = int(context.time[0])
    times = LOG.time[(LOG.item == item) & (LOG.time < now)]
    counts = popularity_evidence(EVIDENCE.postings, context.time, np.array([[item]], np.int32))[0, 0]
    for window, days in enumerate(WINDOWS_D):
        assert counts[window] == pytest.approx(math.log1p(int((times >= now - days * DAY).sum())), abs=1e-6)
    assert counts[len(WINDOWS_D)] == pytest.approx(math.log1p(len(times)), abs=1e-6)
    if len(times):
        assert counts[-2] == pytest.approx(math.log1p((now - times.min()) / DAY), abs=1e-5)
        assert counts[-1] == pytest.approx(math.log1p((now - times.max()) / DAY), abs=1e-5)


def slow_pairs(log: Interactions, context: Contexts, item: int) -> dict[str, float]:
    """The definition of `KINDS`, event by event."""
    now, sums = int(context.time[0]), dict.fromkeys(KINDS, 0.0)
    history = range(int(context.start[0]), int(context.stop[0]))
    last = log.basket[context.stop[0] - 1] if len(history) else -1
    taken = lambda i: int(((log.item == i) & (log.time < now)).sum())  # noqa: E731
    for back, e in enumerate(reversed(history)):
        scale = 0.85**back / math.sqrt(max(taken(log.item[e]), 1))
        for a in np.flatnonzero((log.item == log.item[e]) & (log.time < now)):
            for b in np.flatnonzero((log.user == log.user[a]) & (log.item == item) & (log.time < now)):
                if log.item[a] == item or abs(int(a) - int(b)) > 29:
                    continue
                gap = int(log.basket[b]) - int(log.basket[a])
                sums["cosine"] += scale
                sums["next"] += scale / gap if gap > 0 else 0
                sums["same"] += scale if gap == 0 else 0
                sums["recent"] += scale * math.exp((max(log.time[a], log.time[b]) - now) / (180 * DAY))
                sums["last"] += scale if log.basket[e] == last else 0
    return {kind: value / math.sqrt(taken(item) + 10) for kind, value in sums.items()}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, len(CONTEXTS) - 1), st.integers(0, len(CATALOG) - 1))
def test_pairs_equal_their_definition(place: int, item: int) -> None:
    context = CONTEXTS.take(np.array([place]))
    found = pair_evidence(EVIDENCE.postings, context, np.array([[item]], np.int32))[0, 0]
    for kind, value in slow_pairs(LOG, context, item).items():
        assert found[KINDS.index(kind)] == pytest.approx(value, rel=2e-4, abs=1e-6), kind


def test_text_is_the_cosine_with_the_history() -> None:
    context = CONTEXTS.take(np.flatnonzero(CONTEXTS.stop - CONTEXTS.start == 3)[:1])
    a, b, c = CONTENT[context.history(0)]
    text = EVIDENCE.features(context, EVERY)[0][:, [NAMES.index(n) for n in GROUPS["text"]]]
    weight = np.array([0.85**2, 0.85, 1.0])
    near = CONTENT @ np.stack([a, b, c], 1)
    np.testing.assert_allclose(text[:, 0], near[:, 2], atol=1e-6)
    np.testing.assert_allclose(text[:, 1], near @ weight / weight.sum(), atol=1e-6)
    np.testing.assert_allclose(text[:, 2], near.max(1), atol=1e-6)
    np.testing.assert_allclose(text[:, 3], near.mean(1), atol=1e-6)


def test_dropped_groups_are_zero() -> None:
    bare = build_evidence(CATALOG, LOG, CONTENT, drop=("popularity",))
    columns = [NAMES.index(n) for n in GROUPS["popularity"]]
    features = bare.features(CONTEXTS, pool_for(CONTEXTS))
    assert not features[..., columns].any()
    kept = [c for c in range(len(NAMES)) if c not in columns]
    np.testing.assert_array_equal(features[..., kept], EVIDENCE.features(CONTEXTS, pool_for(CONTEXTS))[..., kept])


def test_popular_candidates_are_the_most_taken() -> None:
    allowed = np.ones(len(CATALOG), bool)
    allowed[7] = False
    tops = popular_candidates(EVIDENCE.postings, CONTEXTS.time, 30.0, 5, allowed)
    for place in (10, 80, 200):
        now = CONTEXTS.time[place]
        counts = np.bincount(LOG.item[(LOG.time < now) & (LOG.time >= now - 30 * DAY)], minlength=len(CATALOG))
        counts[7] = 0
        best = np.argsort(-counts, kind="stable")[:5]
        np.testing.assert_array_equal(tops[place], np.where(counts[best] > 0, best, NO_ITEM))


def test_pair_candidates_are_those_with_most_evidence() -> None:
    allowed = np.ones(len(CATALOG), bool)
    evidence = pair_evidence(EVIDENCE.postings, CONTEXTS, pool_for(CONTEXTS))
    score = evidence[..., KINDS.index("cosine")] + evidence[..., KINDS.index("recent")]
    drawn = pair_candidates(EVIDENCE.postings, CONTEXTS, 6, allowed)
    for place in range(0, len(CONTEXTS), 17):
        best = np.sort(score[place])[::-1][:6]
        got = [score[place, item] for item in drawn[place] if item != NO_ITEM]
        np.testing.assert_allclose(got, best[best > 0], rtol=1e-6)


def test_a_pool_holds_no_history_no_repeat_and_nothing_forbidden() -> None:
    allowed = np.arange(len(CATALOG)) % 5 != 0
    pool = draw_pool(EVIDENCE, CONTEXTS, CandidateConfig(policy=0), allowed)
    for place in range(len(CONTEXTS)):
        items = pool[place][pool[place] != NO_ITEM]
        assert len(np.unique(items)) == len(items)
        assert allowed[items].all()
        assert not np.isin(items, CONTEXTS.history(place)).any()


def test_repeats_keep_the_history() -> None:
    drawn = np.repeat(EVERY, len(CONTEXTS), 0)
    assert (unite(drawn, CONTEXTS, np.ones(len(CATALOG), bool), repeats=True) == drawn).all()


def test_nearest_finds_the_largest_products() -> None:
    query = CONTENT[[3, 8]]
    found = nearest(CONTENT, query, 4, np.ones(len(CATALOG), bool))
    for row, q in zip(found, query, strict=True):
        assert set(CONTENT[row] @ q) == set(np.sort(CONTENT @ q)[-4:])
    assert (nearest(CONTENT, np.zeros((1, 16), np.float32), 4, np.ones(len(CATALOG), bool)) == NO_ITEM).all()


def test_a_context_of_its_own_equals_one_of_the_log() -> None:
    place = int(np.flatnonzero(CONTEXTS.stop - CONTEXTS.start == 4)[0])
    inside = CONTEXTS.take(np.array([place]))
    events = slice(int(inside.start[0]), int(inside.stop[0]))
    outside = contexts_of([Context(int(inside.time[0]), LOG.item[events], LOG.event[events], LOG.time[events])])
    np.testing.assert_array_equal(EVIDENCE.features(inside, EVERY), EVIDENCE.features(outside, EVERY))


def test_what_comes_later_leaves_a_context_of_its_own() -> None:
    one = contexts_of([Context(100, np.array([1, 2, 3]), np.array([5, 5, 5]), np.array([50, 100, 150]))])
    assert one.history(0).tolist() == [1]


def test_near_titles_are_near_and_empty_ones_are_nowhere() -> None:
    titles = ["blue ceramic mug large", "blue ceramic mug small", "olive oil soap bar", ""]
    vectors = title_vectors(Catalog(pl.DataFrame({"item_id": list("abcd"), "title": titles})), 16)
    assert vectors[0] @ vectors[1] > 0.5 > 0.1 > abs(vectors[0] @ vectors[2])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-5)


def test_postings_of_a_known_part_hold_only_that() -> None:
    keep = LOG.time < np.median(LOG.time)
    part = build_postings(LOG, len(CATALOG), keep)
    assert len(part.taken) == keep.sum()
    assert part.known.max() < np.median(LOG.time)
