"""Page measures against hand-made pages whose right answer is plain."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from evaluation_shop import make_log

from pagellm.catalog import Catalog
from pagellm.data.likeness import themes
from pagellm.evaluation.page_metrics import PAGE_MEASURES, ItemFacts, page_measures
from pagellm.evaluation.pages.reach import catalog_coverage, information, novelty
from pagellm.evaluation.pages.variety import category_coverage, intra_list_distance, near_duplicates
from pagellm.types import NO_ITEM

X, Y, NONE = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
VECTORS = np.array([X, X, Y, [0.8, 0.6], NONE], np.float32)


def pages(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def test_distance_by_hand() -> None:
    # Items 0, 1, 2: cosines 1, 0, 0. Items 0, 2, 3: 0, .8, .6. A text-less item is at distance 1 from all.
    found = intra_list_distance(pages([0, 1, 2], [0, 2, 3], [4, 0, 4], [3, NO_ITEM, NO_ITEM]), VECTORS)
    np.testing.assert_allclose(found, [2 / 3, 1 - 1.4 / 3, 1, 0], atol=1e-6)


def test_distance_ignores_empty_places() -> None:
    full, gaps = pages([0, 2, 3]), pages([0, NO_ITEM, 2, NO_ITEM, 3])
    np.testing.assert_allclose(intra_list_distance(gaps, VECTORS), intra_list_distance(full, VECTORS))


def test_near_duplicates_by_hand() -> None:
    # 0 and 1 are alike (2 items); 3 has cosine .8 with 0 and exactly .6 with 2, which is not above .6.
    found = near_duplicates(pages([0, 1, 2], [0, 1, 3], [2, 3, 4], [4, 4, NO_ITEM], [2, NO_ITEM, 2]), VECTORS, above=0.60001)
    np.testing.assert_array_equal(found, [2, 3, 0, 0, 2])


def test_category_coverage_by_hand() -> None:
    theme = np.array([0, 0, 1, 2, -1], np.int32)
    found = category_coverage(pages([0, 1, 4], [0, 2, 3], [4, NO_ITEM, NO_ITEM], [NO_ITEM, 2, 2]), theme)
    np.testing.assert_allclose(found, [1 / 3, 1, 0, 1 / 3])


def test_category_coverage_of_few_themes_reaches_one() -> None:
    assert category_coverage(pages([0, 1, 2]), np.array([0, 0, 1], np.int32))[0] == 1


def test_novelty_is_bits_of_the_share() -> None:
    log = make_log([(0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 3), (2, 1, 9)])
    bits = information(log, log.time < 9 * 86_400, 4)  # counts 3, 1, 0, 0 and one added to each: 4, 2, 1, 1 of 8
    np.testing.assert_allclose(bits, [1, 2, 3, 3])
    np.testing.assert_allclose(novelty(pages([0, 2], [1, NO_ITEM], [NO_ITEM, NO_ITEM]), bits), [2, 2, 0])


def test_catalog_coverage_is_the_share_and_its_values_average_to_it() -> None:
    values = catalog_coverage(pages([0, 1], [0, 2], [0, 1]), 10)
    np.testing.assert_allclose(values.mean(), 0.3)
    np.testing.assert_allclose(values, (3 + 2 * (np.array([0, 1, 0]) - 1 / 3)) / 10)  # only the second page alone shows an item


def test_catalog_coverage_is_never_surer_than_it_may_be() -> None:
    # The truth is known: draw the users anew many times and look at how much the covered share varies. The jackknife errs to
    # the wide side (Efron & Stein 1981), here by up to a half.
    rng, share = np.random.default_rng(2), 1 / np.arange(1, 401)
    draw = lambda: rng.choice(400, (300, 10), p=share / share.sum()).astype(np.int32)  # noqa: E731
    truth = np.std([len(np.unique(draw())) / 400 for _ in range(400)])
    ours = np.mean([np.std(catalog_coverage(draw(), 400)) / np.sqrt(300) for _ in range(20)])
    assert 1 < ours / truth < 1.6


def test_themes_prefer_the_main_category_then_the_first_category() -> None:
    frame = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["x", "y", "z"], "categories": [["p", "q"], ["r"], []]})
    np.testing.assert_array_equal(themes(Catalog(frame), np.zeros((3, 2), np.float32)), [0, 1, -1])
    main = Catalog(frame.with_columns(main_category=pl.Series(["m", "n", "m"])))
    np.testing.assert_array_equal(themes(main, np.zeros((3, 2), np.float32)), [0, 1, 0])


def test_themes_of_titles_alone_are_clusters_of_their_vectors() -> None:
    catalog = Catalog(pl.DataFrame({"item_id": list("abcde"), "title": list("vwxyz")}))
    found = themes(catalog, VECTORS)
    assert found[0] == found[1]
    assert len({found[0], found[2], found[4]}) == 3


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = ItemFacts(vectors, vectors, rng.integers(0, 9, 60).astype(np.int32), rng.random(60))
    ranked = np.argsort(rng.random((50, 60)), axis=1)[:, :20].astype(np.int32)
    whole = page_measures(ranked, facts, np.ones(60, bool))
    monkeypatch.setattr("pagellm.evaluation.page_metrics._BATCH", 7)
    parts = page_measures(ranked, facts, np.ones(60, bool))
    assert tuple(whole) == PAGE_MEASURES
    for name in PAGE_MEASURES:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6)
