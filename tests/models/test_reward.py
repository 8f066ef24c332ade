"""Both rewards on drawn weights: sums that add up, swaps that cost two slots, what is worth nothing, what is an error."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.config import RewardConfig
from pagellm.data.contexts import contexts_at
from pagellm.data.likeness import likeness_of
from pagellm.data.look import Look
from pagellm.errors import DataError
from pagellm.models.multi_grained import (
    LearnedItemReward,
    LearnedPageReward,
    MultiGrainedReward,
    RewardModel,
    Whitening,
    swap_gain,
)
from pagellm.models.page_inputs import PageReader
from pagellm.models.reward import FAMILIES, RewardNet
from pagellm.models.text_reward import TextReward
from pagellm.types import NO_ITEM, PageBatch
from tiny_run import fresh_run

RUN = fresh_run(small_catalog(), small_log(80))
SLOTS = 6


def make(repeats: bool = False, **settings: float) -> MultiGrainedReward:
    """Rewards of drawn weights on the small shop; the first item may not be shown."""
    torch.manual_seed(4)
    config = RewardConfig(members=3, **settings)  # type: ignore[arg-type]
    net = RewardNet(config, repeats).eval()
    for head in net.heads.values():  # those that value items are zero at the start
        torch.nn.init.normal_(head.outer)  # type: ignore[arg-type]
    allowed = np.ones(len(RUN.catalog), bool)
    allowed[0] = False
    reader = PageReader(RUN.net, RUN.evidence, likeness_of(RUN.catalog, RUN.content, 0.6), allowed, 20)
    return MultiGrainedReward(RewardModel(net, reader, Look(), config), Whitening(10, 0.2, 4.0, 9), Whitening(10, 0.5, 2.0, 8))


def batch(count: int = 40, seed: int = 0) -> PageBatch:
    """Pages of distinct items for some users, some shorter than others."""
    rng = np.random.default_rng(seed)
    log = RUN.split.log
    end = int(log.time.max()) + 1
    contexts = contexts_at(log, np.arange(10, dtype=np.int32), np.full(10, end))
    place = rng.integers(0, 10, count)
    items = np.full((count, SLOTS), NO_ITEM, np.int32)
    for p in range(count):
        fresh = np.setdiff1d(np.arange(1, len(RUN.catalog)), contexts.history(int(place[p])))
        size = rng.integers(2, SLOTS + 1)
        items[p, :size] = rng.choice(fresh, size, replace=False)
    col = np.tile(np.arange(SLOTS, dtype=np.int16), (count, 1))
    return PageBatch(contexts, place, items, np.zeros_like(col), col)


REWARD, PAGES = make(), batch()


def test_what_slots_add_to_the_slots_before_sums_to_the_page_reward() -> None:
    scores = REWARD.model.scores(PAGES)
    gains = REWARD.model.gains(PAGES, scores)
    assert gains.shape == (40, SLOTS)
    assert np.abs(gains[PAGES.items == NO_ITEM]).max() < 1e-9
    assert gains.sum(1) + scores.base == pytest.approx(scores.page_total.mean(1), abs=1e-4)
    stepwise = MultiGrainedReward(REWARD.model, REWARD.page, REWARD.item, 0.3, stepwise=True)
    at_last = MultiGrainedReward(REWARD.model, REWARD.page, REWARD.item, 0.3)
    assert stepwise(PAGES).sum(1) == pytest.approx(at_last(PAGES).sum(1), abs=1e-4)
    assert np.abs(stepwise(PAGES) - at_last(PAGES)).max() > 0.1


def test_a_repetition_is_paid_for_where_it_stands_and_not_by_what_it_repeats() -> None:
    items = PAGES.items[:1].copy()
    items[0] = np.setdiff1d(np.arange(1, 40), PAGES.contexts.history(int(PAGES.place[0])))[:SLOTS]
    fresh = PAGES.take(np.array([0])).with_items(items)
    again = fresh.with_items(np.where(np.arange(SLOTS) == 3, items[:, :1], items))
    one, other = (REWARD.model.gains(pages, REWARD.model.scores(pages))[0] for pages in (fresh, again))
    assert one[:3] == pytest.approx(other[:3], abs=1e-9)
    assert other[3] < one[3]


def test_rewards_begin_with_the_order_of_the_policy() -> None:
    net = RewardNet(RewardConfig(members=3)).eval()
    rows = torch.randn(50, net.item_trunk[0].in_features, generator=torch.Generator().manual_seed(1))
    for name in ("relevance", "ranking", "item"):
        odds = net.log_odds(name, net.item_vectors(rows))
        assert torch.equal(odds.argsort(0), rows[:, -1:].expand(-1, 3).argsort(0))


def test_shapes_and_that_the_reward_of_a_page_is_the_sum_of_its_slots() -> None:
    scores = REWARD.model.scores(PAGES)
    assert scores.page.shape == (40, SLOTS, len(FAMILIES), 3)
    assert (scores.page[PAGES.items == NO_ITEM] == 0).all()
    assert LearnedPageReward(REWARD.model)(PAGES) == pytest.approx(scores.page_total.mean(1))
    assert LearnedItemReward(REWARD.model)(PAGES) == pytest.approx(scores.item.mean(2))
    both = REWARD(PAGES)
    assert both.shape == (40, SLOTS)
    assert (both[PAGES.items == NO_ITEM] == 0).all()
    page = (scores.page_total.mean(1) - REWARD.page.mean) / REWARD.page.spread
    item = (scores.item.mean(2).sum(1) - REWARD.item.mean) / REWARD.item.spread
    assert both.sum(1) == pytest.approx(0.5 * page + 0.5 * item, abs=1e-4)


def test_the_page_part_stands_at_the_last_filled_slot() -> None:
    only_items, only_page = make(alpha=0.0)(PAGES), make(alpha=1.0)(PAGES)
    last = (PAGES.items != NO_ITEM).sum(1) - 1
    elsewhere = np.arange(SLOTS) != last[:, None]
    assert (only_page[elsewhere] == 0).all()
    assert (only_items[PAGES.items != NO_ITEM] != 0).all()


def test_caution_takes_off_where_the_ensemble_differs() -> None:
    total = REWARD.model.scores(PAGES).page_total
    bold, careful = LearnedPageReward(REWARD.model)(PAGES), LearnedPageReward(REWARD.model, 2.0)(PAGES)
    assert bold - careful == pytest.approx(2 * total.std(1), abs=1e-5)
    assert (bold > careful).all()


def test_the_score_of_a_page_depends_on_no_other_page() -> None:
    together = REWARD(PAGES)
    order = np.random.default_rng(1).permutation(len(PAGES))
    assert REWARD(PAGES.take(order)) == pytest.approx(together[order], abs=1e-5)
    assert REWARD(PAGES.take(order[:3])) == pytest.approx(together[order[:3]], abs=1e-5)


def test_a_swap_changes_two_slots_of_the_item_reward_by_what_the_short_way_says() -> None:
    reward = LearnedItemReward(REWARD.model)
    before, look = reward(PAGES), REWARD.model.look.of(PAGES.items, PAGES.row, PAGES.col)
    for a, b in combinations(range(SLOTS), 2):
        full = np.flatnonzero((PAGES.items[:, [a, b]] >= 0).all(1))
        items = PAGES.items[full].copy()
        items[:, [a, b]] = items[:, [b, a]]
        after = reward(PAGES.take(full).with_items(items))
        rest = [s for s in range(SLOTS) if s not in (a, b)]
        assert after[:, rest] == pytest.approx(before[full][:, rest], abs=1e-6)
        assert after.sum(1) - before[full].sum(1) == pytest.approx(swap_gain(before[full], look[full], a, b), abs=1e-5)


def test_a_second_copy_and_what_the_user_has_are_worth_nothing() -> None:
    items = PAGES.items.copy()
    items[:, 1] = items[:, 0]
    doubled = REWARD.model.scores(PAGES.with_items(items))
    assert (doubled.page[:, 1, :2] == 0).all()
    assert (doubled.page[:, 0, :2] != 0).all()
    assert (doubled.item[:, 1] == 0).all()
    assert (doubled.item[:, 0] > 0).all()
    for p in range(len(PAGES)):
        owned = PAGES.contexts.history(int(PAGES.place[p]))
        items[p, 1] = owned[owned > 0][0]
    consumed = PAGES.with_items(items)
    assert (REWARD.model.scores(consumed).item[:, 1] == 0).all()
    assert (make(repeats=True).model.scores(consumed).item[:, 1] > 0).all(), "where users take things again it is worth something"


@pytest.mark.parametrize(("item", "words"), [(10_000, "not in the catalog"), (-7, "not in the catalog"), (0, "hidden")])
def test_an_impossible_item_is_an_error(item: int, words: str) -> None:
    items = PAGES.items.copy()
    items[3, 0] = item
    with pytest.raises(DataError, match=words):
        REWARD(PAGES.with_items(items))


def test_a_receipt_adds_up_and_tells_the_truth() -> None:
    few = PAGES.take(np.arange(12))
    whole = REWARD(few).sum(1, dtype=np.float64)
    for p, receipt in enumerate(REWARD.explain(few)):
        parts = sum(values.sum() for values in receipt.parts.values())
        assert receipt.total == pytest.approx(receipt.constant + parts, abs=1e-6)
        assert receipt.total == pytest.approx(whole[p], abs=1e-4)
        assert set(receipt.parts) == {*FAMILIES, "item"}
        one = few.take(np.array([p]))
        for slot, lost in receipt.alone.items():
            without = one.items.copy()
            without[0, slot] = NO_ITEM
            other = REWARD.explain(one.with_items(without))[0]
            assert lost == pytest.approx(receipt.total - other.total, abs=1e-5)
        if receipt.swap is None:
            continue
        totals = {}
        for a, b in combinations(receipt.alone, 2):
            items = one.items.copy()
            items[0, [a, b]] = items[0, [b, a]]
            totals[a, b] = float(REWARD.explain(one.with_items(items))[0].total)
        assert receipt.swap[2] == pytest.approx(max(totals.values()) - receipt.total, abs=1e-5)
        assert totals[receipt.swap[:2]] == pytest.approx(max(totals.values()), abs=1e-5)
        assert receipt.disagreement > 0


@pytest.mark.parametrize("spread", [0.7, 1e-3])
@pytest.mark.parametrize("center", [0.0, 40.0])
def test_what_no_slot_brings_is_what_whitening_alone_gives_every_page(spread: float, center: float) -> None:
    reward = make(alpha=0.3)
    reward.page = Whitening(10, 0.2 - center, 9 * spread**2, 9)
    reward.model.net.center.fill_(center)
    item = -0.7 * 0.5 / (2 / 8) ** 0.5
    base = -float((reward.model.scale * reward.model.net.center).sum())
    page = 0.3 * (base - (0.2 - center)) / spread
    for receipt in reward.explain(PAGES.take(np.arange(12))):
        assert receipt.constant == pytest.approx(item + page, abs=1e-6)
        parts = sum(values.sum() for values in receipt.parts.values())
        assert receipt.total - parts == pytest.approx(item + page, abs=1e-6)


def test_only_exchanges_that_keep_the_rules_are_offered() -> None:
    few = PAGES.take(np.arange(12))
    free = REWARD.explain(few)
    asked: list[int] = []

    def first_stays(p: int, items: np.ndarray) -> bool:
        asked.append(p)
        return bool(items[0] == few.items[p, 0])

    for p, receipt in enumerate(REWARD.explain(few, first_stays)):
        gains = {
            swap: REWARD.explain(few.take(np.array([p])).with_items(exchanged(few.items[p], swap)))[0].total - receipt.total
            for swap in combinations([slot for slot in receipt.alone if slot], 2)
        }
        assert (receipt.swap is None) == (not gains)
        if receipt.swap is not None:
            assert receipt.swap[2] == pytest.approx(max(gains.values()), abs=1e-5)
            assert gains[receipt.swap[:2]] == pytest.approx(max(gains.values()), abs=1e-5)
            assert free[p].swap is not None
            assert free[p].swap[2] >= receipt.swap[2] - 1e-6
    assert set(asked) == set(range(12))
    assert all(r.swap is None for r in REWARD.explain(few, lambda p, items: False))


def exchanged(items: np.ndarray, slots: tuple[int, int]) -> np.ndarray:
    out = items.copy()
    out[list(slots)] = items[list(slots[::-1])]
    return out[None]


def test_a_page_of_a_context_that_is_not_there_is_an_error() -> None:
    for place in (-1, 10):
        lost = PageBatch(PAGES.contexts, np.full(len(PAGES), place), PAGES.items, PAGES.row, PAGES.col)
        with pytest.raises(DataError, match="there are 10, from 0"):
            REWARD(lost)


def test_whitening_in_batches_equals_all_at_once_and_spreads_within_contexts() -> None:
    rng = np.random.default_rng(2)
    place = np.repeat(np.arange(50), 10)
    apart = rng.normal(0, 2, 500)
    values = 100 * place + apart  # contexts differ a hundred times more than pages of one
    running = Whitening()
    for some in np.split(np.arange(500), [100, 100, 300]):
        running.update(values[some], place[some])
    assert running.mean == pytest.approx(values.mean())
    within = apart - apart.reshape(50, 10).mean(1)[place]
    assert running.spread == pytest.approx((within**2).sum() ** 0.5 / (500 - 50) ** 0.5)
    assert Whitening().spread == 1
    learned = make()
    learned(PAGES, learn=True)
    assert learned.page.count == 50


def test_a_page_without_items_has_its_whole_reward_at_the_first_slot() -> None:
    empty = PAGES.take(np.arange(2)).with_items(np.full((2, SLOTS), NO_ITEM, np.int32))
    found = REWARD(empty)
    assert (found[:, 1:] == 0).all()
    receipt = REWARD.explain(empty)[0]
    assert found[0, 0] == pytest.approx(receipt.total, abs=1e-5)
    assert receipt.total == pytest.approx(receipt.constant)
    assert receipt.swap is None


def test_a_cautious_receipt_adds_up_too() -> None:
    careful, few = make(), PAGES.take(np.arange(5))
    careful.caution = 1.5
    for total, receipt in zip(careful(few).sum(1), careful.explain(few), strict=True):
        assert receipt.total == pytest.approx(total, abs=1e-4)
        assert receipt.total == pytest.approx(receipt.constant + sum(v.sum() for v in receipt.parts.values()), abs=1e-6)


def test_pages_of_the_past_may_hold_what_is_hidden_now() -> None:
    items = PAGES.items.copy()
    items[:, 0] = 0
    assert REWARD(PAGES.with_items(items), logged=True).shape == items.shape


def test_rewards_score_texts_as_trl_calls_them() -> None:
    titles = RUN.catalog.titles
    few = PAGES.take(np.arange(5))
    texts = ["".join(f"- {titles[i]}\n" for i in page if i != NO_ITEM) for page in few.items]
    first_of_title = {title: place for place, title in reversed(list(enumerate(titles)))}
    items = np.vectorize(lambda i: NO_ITEM if i == NO_ITEM else first_of_title[titles[i]])(few.items).astype(np.int32)
    context = few.place.tolist()
    whole = TextReward(REWARD, RUN.catalog, few.contexts)
    assert whole.__name__ == "pagellm_reward"
    scores = whole(prompts=[""] * 5, completions=texts, context=context, other=[1] * 5)
    assert scores == pytest.approx(REWARD(few.with_items(items)).sum(1), abs=1e-5)
    page = TextReward(LearnedPageReward(REWARD.model), RUN.catalog, few.contexts)
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    assert page([""] * 5, chats, context) == pytest.approx(LearnedPageReward(REWARD.model)(few.with_items(items)), abs=1e-5)
    assert whole(["", ""], ["- nothing we sell\n", texts[0]], [0, context[0]])[0] is None
    assert whole([""], [""], [0]) == [None]
    hidden = TextReward(REWARD, hiding(RUN.catalog, 5), few.contexts)
    assert hidden([""], [f"- {titles[5]}\n"], [0]) == [None], "what may not be shown makes no page"
    with pytest.raises(DataError, match=r"column context must hold places in the 10 contexts, from 0\. Got -1"):
        whole([""], texts[:1], [-1])
    rows: list[PageBatch] = []

    def remember(pages: PageBatch) -> np.ndarray:
        rows.append(pages)
        return np.zeros(pages.items.shape, np.float32)

    TextReward(remember, RUN.catalog, few.contexts, columns=2)([""] * 5, texts, context)
    assert rows[0].row[0].tolist() == [0, 0, 1, 1, 2, 2]
    assert rows[0].col[0].tolist() == [0, 1, 0, 1, 0, 1]


def test_titles_that_are_missing_or_were_cut_at_a_space_are_read_back() -> None:
    long = "tea " * 50 + "of the hills"  # 200 characters end in a space
    named = dict(enumerate(RUN.catalog.frame["title"])) | {3: "", 4: long}
    catalog = Catalog(RUN.catalog.frame.with_columns(title=pl.Series(list(named.values()))))
    assert catalog.titles[4].endswith(" ")
    seen: list[list[int]] = []

    def remember(pages: PageBatch) -> np.ndarray:
        seen.extend(pages.items.tolist())
        return np.zeros(len(pages), np.float32)

    TextReward(remember, catalog, PAGES.contexts)([""], ["".join(f"- {catalog.titles[i]}\n" for i in (2, 3, 4))], [0])
    assert seen == [[2, 3, 4]]


def hiding(catalog: Catalog, item: int) -> Catalog:
    """The catalog with one item hidden."""
    return Catalog(catalog.frame.with_columns(pl.Series("hidden", [place == item for place in range(len(catalog))])))
