"""Pages are written within masks, and their log-probabilities are those of the very distribution they were drawn from."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.small_shop import small_catalog
from pagellm.catalog import Catalog
from pagellm.layout.compiled import compile_layout
from pagellm.layout.masks import PageMasks
from pagellm.layout.spec import Layout
from pagellm.models.choices import EMPTY, choose, logprob_of
from pagellm.models.decoding import Forced, Writing, write_pages

NOW = 1_600_000_000


class TableScorer:
    """Logits from a table, with a penalty for the item written last: a page-dependent scorer small enough to reason about."""

    def __init__(self, base: torch.Tensor, pages: int) -> None:
        self.base, self.pages = base, pages
        self.last = torch.full((len(base), pages), EMPTY)

    def logits(self) -> torch.Tensor:
        near = (torch.arange(self.base.shape[1]) - self.last[..., None]).abs() == 1
        return self.base[:, None] - 0.7 * (near & (self.last >= 0)[..., None])

    def read(self, choice: torch.Tensor, row: torch.Tensor) -> None:
        self.last = choice


def masks_for(layout: Layout, catalog: Catalog, pages: int) -> PageMasks:
    pool = np.tile(np.arange(len(catalog), dtype=np.int32), (pages, 1))
    return PageMasks(compile_layout(layout, catalog, NOW), pool)


def write(base: torch.Tensor, slots: int, pages: int, writing: Writing, seed: int = 0, forced: Forced | None = None):
    masks = masks_for(Layout.single_row(slots), small_catalog(base.shape[1]), len(base) * pages)
    return write_pages(TableScorer(base, pages), masks, (len(base), pages), writing, np.random.default_rng(seed), forced)


BASE = torch.tensor([[0.3, 1.0, -0.5, 0.2], [2.0, 0.0, 0.0, 1.0]])


def test_greedy_takes_the_largest_allowed_logit_given_what_stands() -> None:
    written = write(BASE, 3, 1, Writing())
    assert written.choice[0, 0].tolist() == [1, 3, 0]  # after 1 its neighbors 0 and 2 lose 0.7, so 3 comes second
    assert not written.sampled.any()


def test_the_chances_of_all_pages_sum_to_one() -> None:
    pages = list(itertools.permutations(range(4), 3))
    forced = Forced(np.array([pages] * 2))
    written = write(BASE, 3, len(pages), Writing(1.0), forced=forced)
    np.testing.assert_allclose(np.exp(written.logprobs.sum(-1)).sum(1), 1, atol=1e-12)


def test_drawn_pages_have_the_frequencies_that_their_logprobs_say() -> None:
    draws = 40_000
    written = write(BASE[:1], 2, draws, Writing(1.0), seed=5)
    chance = dict.fromkeys(itertools.permutations(range(4), 2), 0.0)
    for page, logprob in zip(written.choice[0].tolist(), written.logprobs[0].sum(-1), strict=True):
        chance[tuple(page)] = float(np.exp(logprob))
    pages, counts = np.unique(written.choice[0], axis=0, return_counts=True)
    for page, count in zip(pages.tolist(), counts, strict=True):
        p = chance[tuple(page)]
        assert abs(count / draws - p) < 5 * np.sqrt(p * (1 - p) / draws)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_forcing_a_drawn_page_gives_back_its_logprobs(temperature: float) -> None:
    drawn = write(BASE, 3, 5, Writing(temperature), seed=1)
    again = write(BASE, 3, 5, Writing(temperature), forced=Forced(drawn.choice))
    np.testing.assert_allclose(again.logprobs, drawn.logprobs, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(drawn.logprobs, drawn.sampled)


def test_a_page_the_mask_forbids_has_no_chance() -> None:
    twice = np.array([[[1, 1, 0]], [[0, 1, 2]]])
    written = write(BASE, 3, 1, Writing(1.0), forced=Forced(twice))
    assert written.logprobs[0, 0, 1] == -np.inf
    assert np.isfinite(written.logprobs[1]).all()


def test_hybrid_ranks_the_rest_by_what_stood_when_it_began() -> None:
    frozen = write(BASE[:1], 4, 1, Writing(hybrid=0))
    assert frozen.choice[0, 0].tolist() == [1, 0, 3, 2]  # the plain order: nothing written is read
    one = write(BASE[:1], 4, 1, Writing(hybrid=1))
    assert one.choice[0, 0].tolist() == [1, 3, 0, 2]  # the neighbors of 1 have lost, and nothing later is read
    assert (write(BASE, 4, 1, Writing(hybrid=4)).choice == write(BASE, 4, 1, Writing()).choice).all()


@pytest.mark.parametrize(("slots", "hybrid"), [(4, 0), (4, 1), (3, 2), (6, 1), (4, 4)])
def test_the_rest_in_one_pass_is_what_slot_by_slot_would_write(slots: int, hybrid: int) -> None:
    base = torch.tensor(
        [[0.3, 1.0, -0.5, 0.2], [0.0, 0.0, 0.0, 1.0]]
    )  # equals among them; six slots are more than the candidates
    slow = write(base, slots, 2, Writing(hybrid=hybrid))
    fast = write(base, slots, 2, Writing(hybrid=hybrid, logprobs=False))
    np.testing.assert_array_equal(fast.choice, slow.choice)
    np.testing.assert_array_equal(fast.scores, slow.scores)
    assert np.isnan(fast.logprobs).all()
    assert not np.isnan(slow.logprobs).any()


def test_pages_filled_in_one_pass_say_why_slots_stayed_empty() -> None:
    notes = []
    for logprobs in (True, False):
        masks = masks_for(Layout.single_row(6), small_catalog(4), 1)
        write_pages(TableScorer(BASE[:1], 1), masks, (1, 1), Writing(hybrid=1, logprobs=logprobs), np.random.default_rng(0))
        assert masks.done.all()
        notes.append((masks.items.tolist(), masks.reasons(0)))
    assert notes[0] == notes[1]
    assert len(notes[0][1]) == 2


def test_a_page_filled_in_one_pass_leaves_the_masks_as_slot_by_slot_would() -> None:
    layout = Layout.model_validate({"id": "home", "rows": [{"id": "top", "capacity": 2}, {"id": "more", "capacity": 3}]})
    one, other = (masks_for(layout, small_catalog(8), 2) for _ in range(2))
    choices = np.array([[1, 0, 7, 3, 5], [6, 5, 4, 3, 2]])
    for slot in range(5):
        one.place(choices[:, slot])
    other.place(choices[:, 0])
    other.place_rest(choices[:, 1:])
    assert str(other.pages()) == str(one.pages())  # scores are NaN, so pages are never equal
    for name in ("row", "col", "number", "standing", "rows", "chosen", "written", "used"):
        np.testing.assert_array_equal(getattr(other.state, name), getattr(one.state, name))


@pytest.mark.parametrize("rest", [[1, 1], [0, 2]])
def test_the_rest_must_be_allowed_and_different(rest: list[int]) -> None:
    masks = masks_for(Layout.single_row(3), small_catalog(4), 1)
    masks.place(np.array([0]))
    with pytest.raises(ValueError, match="different allowed candidates"):
        masks.place_rest(np.array([rest]))


def test_a_catalog_smaller_than_the_page_leaves_slots_empty() -> None:
    written = write(BASE, 6, 1, Writing(1.0))
    assert (np.sort(written.choice[:, 0, :4], 1) == np.arange(4)).all()
    assert (written.choice[:, 0, 4:] == EMPTY).all()
    assert not written.logprobs[:, 0, 4:].any()
    assert np.isnan(written.scores[:, 0, 4:]).all()


def test_the_policy_chooses_rows_by_what_they_may_hold() -> None:
    layout = Layout.model_validate(
        {
            "id": "home",
            "order": "policy",
            "rows": [
                {"id": "tea", "capacity": 2, "source": {"theme": "tea"}},
                {"id": "soap", "capacity": 2, "source": {"theme": "soap"}},
            ],
        }
    )
    catalog = small_catalog(8)
    base = torch.zeros(1, 8)
    base[0, [3, 7]] = 3.0  # soap
    masks = masks_for(layout, catalog, 1)
    written = write_pages(TableScorer(base, 1), masks, (1, 1), Writing(), np.random.default_rng(0))
    page = masks.pages()[0]
    assert page.rows == ("soap", "tea")
    assert written.rows[0, 0] == pytest.approx(-np.log1p(np.exp(-3.0)), abs=1e-6)


logit = st.floats(-30, 30, width=32)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(logit, st.booleans()), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True), st.floats(0.1, 5))
def test_no_draw_reaches_what_is_forbidden(table: list[tuple[float, bool]], draw: float, temperature: float) -> None:
    logits, allowed = torch.tensor([t[0] for t in table]), torch.tensor([t[1] for t in table])
    for value in (draw, 0.0, np.nextafter(1.0, 0.0)):
        pick, chance = choose(logits, allowed, temperature, torch.tensor(value, dtype=torch.float64))
        if not allowed.any():
            assert int(pick) == EMPTY
            assert float(chance) == 0
        else:
            assert allowed[int(pick)]
            exact = logprob_of(logits / temperature, allowed, pick)
            assert float(chance) == pytest.approx(float(exact), rel=1e-6, abs=1e-6)  # logits are divided in single precision


def test_padding_is_never_chosen_even_where_all_logits_are_minus_infinity() -> None:
    logits = torch.tensor([[-torch.inf, 1.0], [-torch.inf, -torch.inf]])
    allowed = torch.tensor([[False, True], [False, False]])
    pick, _ = choose(logits, allowed, 1.0, torch.tensor([0.99, 0.5]))
    assert pick.tolist() == [1, EMPTY]


def test_a_table_of_one_item() -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ["only"], "title": ["Only"]}))
    masks = masks_for(Layout.single_row(3), catalog, 1)
    written = write_pages(TableScorer(torch.zeros(1, 1), 1), masks, (1, 1), Writing(1.0), np.random.default_rng(0))
    assert written.choice[0, 0].tolist() == [0, EMPTY, EMPTY]
