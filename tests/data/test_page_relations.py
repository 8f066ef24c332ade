"""What a slot is to its page and its user's history: against a plain recomputation, and on a page whose answers are known by hand."""

from __future__ import annotations

import numpy as np

from pagellm.data.cohorts import held_out_users
from pagellm.data.examination import Examination
from pagellm.data.likeness import Likeness
from pagellm.data.look import Look
from pagellm.data.page_relations import RELATIONS, page_relations
from pagellm.types import F32, NO_ITEM, Contexts, Event, Interactions

ITEMS, DIM = 12, 4
RNG = np.random.default_rng(3)


def unit(rows: np.ndarray) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


LIKE = Likeness(
    unit(RNG.normal(size=(ITEMS, DIM))),
    unit(RNG.normal(size=(ITEMS, DIM))),
    np.array([0, 0, 1, 1, -1, -1, 2, 2, 2, -1, -1, -1], np.int32),
    np.array([0, 1, 0, 1, 0, 1, 2, 2, -1, 2, 0, 1], np.int32),
    np.array([0, 0, 1, -1, 1, 1, 2, 2, -1, -1, 0, 0], np.int32),
    0.6,
)


def contexts(items: list[int], kinds: list[Event]) -> Contexts:
    n = len(items)
    nothing = np.full(n, np.nan, np.float32)
    log = Interactions(
        np.zeros(n, np.int32), np.array(items, np.int32), np.arange(n, dtype=np.int64), np.arange(n, dtype=np.int32),
        np.array(kinds, np.int8), nothing, nothing, np.array(["u"]),
    )  # fmt: skip
    one = np.zeros(1, np.int64)
    return Contexts(log, one, one + n, one + n, np.zeros(1, np.int32), one + 100)


HISTORY = contexts([3, 7, 10], [Event.PURCHASE, Event.SELECT_ITEM, Event.INTERACTION])
PLACE = np.zeros(200, np.int64)


def kin(i: int, j: int) -> bool:
    same = LIKE.groups[i] >= 0 and LIKE.groups[i] == LIKE.groups[j]
    return bool(i != j and (same or LIKE.titles[i] @ LIKE.titles[j] > LIKE.alike))


def slowly(page: np.ndarray, s: int) -> list[float]:
    """The row of one slot, as the names say it."""
    i = int(page[s])
    if i < 0:
        return [0.0] * len(RELATIONS)
    before = [int(j) for j in page[:s] if j >= 0]
    others = before + [int(j) for j in page[s + 1 :] if j >= 0]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    def most(values: list[float]) -> float:
        return max([0.0, *values])

    title = [float(LIKE.titles[i] @ LIKE.titles[j]) for j in others]
    content = [float(LIKE.vectors[i] @ LIKE.vectors[j]) for j in others]
    b = len(before)
    theme, brand = ([float(codes[i] >= 0 and codes[i] == codes[j]) for j in others] for codes in (LIKE.themes, LIKE.brands))
    past = HISTORY.log.item.tolist()
    return [
        sum(i == j for j in before), sum(kin(i, j) for j in before), sum(kin(i, j) for j in others),
        most(title[:b]), most(title), mean(content[:b]), mean(content), most(content),
        mean(theme[:b]), mean(theme), mean(brand),
        float(i in (3, 10)), float(np.log1p(sum(kin(i, h) for h in past))), most([float(LIKE.titles[i] @ LIKE.titles[h]) for h in past]),
    ]  # fmt: skip


def test_relations_equal_a_plain_recomputation() -> None:
    pages = RNG.integers(-1, ITEMS, (200, 6)).astype(np.int32)
    found = page_relations(pages, HISTORY, PLACE, LIKE)
    for p, page in enumerate(pages):
        for s in range(len(page)):
            np.testing.assert_allclose(found[p, s], slowly(page, s), atol=1e-5, err_msg=f"page {page}, slot {s}")


def test_what_was_only_clicked_on_is_not_consumed() -> None:
    found = page_relations(np.array([[3, 7, 10, 0, NO_ITEM]], np.int32), HISTORY, PLACE[:1], LIKE)
    assert found[0, :, RELATIONS.index("consumed")].tolist() == [1, 0, 1, 0, 0]


def test_places_are_looked_at_as_learned_or_by_reading_order() -> None:
    pages = np.array([[4, 5, NO_ITEM], [1, 2, 3]], np.int32)
    row, col = np.array([[0, 0, 0], [0, 1, 5]]), np.array([[0, 1, 2], [0, 0, 9]])
    np.testing.assert_allclose(Look().of(pages, row, col), [[1, 1 / np.log2(3), 0], [1, 1 / np.log2(3), 0.5]], rtol=1e-6)
    seen = np.array([[1.0, 0.5, np.nan], [0.4, 0.2, 0.1]])
    look = Look.learned(Examination(seen, "viewed", np.ones((2, 3), np.int64), np.ones((2, 3)), ""))
    np.testing.assert_allclose(look.of(pages, row, col), [[1, 0.5, 0], [1, 0.4, 0.1]], rtol=1e-6)
    assert (Look.from_json(look.as_json()).of(pages, row, col) == look.of(pages, row, col)).all()
    assert Look.from_json(Look().as_json()).seen is None


def test_a_user_stays_held_out_whatever_the_log_holds() -> None:
    ids = np.array([f"u{n}" for n in range(5_000)])
    held = held_out_users(ids, 0.2)
    assert abs(held.mean() - 0.2) < 0.02
    assert (held_out_users(ids[::-1], 0.2)[::-1] == held).all()
    assert (held <= held_out_users(ids, 0.3)).all(), "a larger share holds the smaller one"
    assert not held_out_users(ids, 0).any()
