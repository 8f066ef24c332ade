"""SASRec and its recency control on logs whose next item is known, and a whole evaluation of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_shop import make_log

from pagellm.comparing import evaluate_run
from pagellm.data.contexts import basket_starts
from pagellm.data.splits import Split, make_split
from pagellm.errors import RunError, UsageError
from pagellm.evaluation.baselines.gru4rec import GRU4RecNet
from pagellm.evaluation.baselines.item_lm import ItemLMNet
from pagellm.evaluation.baselines.recency import fit_recency
from pagellm.evaluation.baselines.sasrec import SASRecNet, sasrec_fits
from pagellm.evaluation.baselines.sequence import (
    SequenceFits,
    SequenceRanker,
    SequenceSettings,
    next_item_loss,
    sequences,
    user_spans,
)
from pagellm.evaluation.protocol import check_ranked
from pagellm.types import NO_ITEM, Contexts, Interactions
from tiny_run import train

ITEMS = 24
SMALL = SequenceSettings(dims=32, layers=1, heads=2, length=8, dropout=0.0, lr=5e-3, batch=32, epochs=6)
BLANK = np.zeros((ITEMS, 4), np.float32)


def chain_log(users: int = 120) -> Interactions:
    """Users who take items in the order of the catalog, two days apart, from a start of their own."""
    rng = np.random.default_rng(0)
    events = []
    for user in range(users):
        start, day, length = int(rng.integers(ITEMS)), int(rng.integers(60)), int(rng.integers(5, 9))
        events += [(user, (start + step) % ITEMS, day + 2 * step) for step in range(length)]
    return make_log(events)


@pytest.fixture(scope="module")
def fits() -> SequenceFits:
    split = make_split(chain_log(), ITEMS)
    return sasrec_fits(split, BLANK, 0, False, lambda line: None, SMALL)


def warm(split: Split) -> Contexts:
    return split.test.take(split.test.warm & (split.test.target_stop > split.test.stop))


def test_a_chain_is_learned(fits: SequenceFits) -> None:
    contexts = warm(fits.split)
    ranked = fits.final.rank(contexts, 3)
    follows = np.array([(int(contexts.history(c)[-1]) + 1) % ITEMS for c in range(len(contexts))])
    assert (ranked[:, 0] == follows).mean() > 0.9


def test_the_search_keeps_the_best_epoch(fits: SequenceFits) -> None:
    ranker, search = fits.early, fits.search
    assert 1 <= len(search.trials) <= SMALL.epochs
    best = max(search.trials, key=lambda trial: trial.score)
    assert search.best == best
    assert ranker.order.tolist() == sorted(ranker.order.tolist(), key=ranker.order.tolist().index)
    assert set(ranker.order) == set(np.flatnonzero(fits.split.candidates_valid))


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "item-lm"])
@torch.no_grad()
def test_what_stands_in_the_padding_is_not_read(name: str) -> None:
    torch.manual_seed(0)
    nets = {"sasrec": lambda: SASRecNet(BLANK, SMALL), "gru4rec": lambda: GRU4RecNet(BLANK, SMALL)}
    net = nets.get(name, lambda: ItemLMNet(ITEMS, 3, SMALL))().eval()
    items, users = torch.tensor([[3, 4, 5, 0, 0], [7, 8, 9, 10, 11]]), torch.tensor([1, 0])
    other = items.clone()
    other[0, 3:] = torch.tensor([20, 21])
    torch.testing.assert_close(net(items, users)[0, :3], net(other, users)[0, :3])
    torch.testing.assert_close(net(items, users)[0, :3], net(items[:1, :3], users[:1])[0], atol=1e-5, rtol=1e-5)
    last = torch.tensor([2, 4])
    assert next_item_loss(net, items, users, last, ITEMS) == pytest.approx(
        float(next_item_loss(net, other, users, last, ITEMS)), abs=1e-6
    )
    hidden = net(items[:, :-1], users)
    slow = [-float(net.logits(hidden[u, t]).log_softmax(-1)[items[u, t + 1]]) for u, n in ((0, 2), (1, 4)) for t in range(n)]
    assert float(next_item_loss(net, items, users, last, ITEMS)) == pytest.approx(np.mean(slow), abs=1e-5)


@torch.no_grad()
def test_drawn_items_stand_for_all_others() -> None:
    torch.manual_seed(0)
    net = ItemLMNet(ITEMS, 3, SMALL).eval()
    net.head.weight.mul_(10)
    net.head.bias.normal_()
    items, users, last = torch.tensor([[3, 4]]), torch.tensor([1]), torch.tensor([1])
    whole = np.exp(float(next_item_loss(net, items, users, last, ITEMS)))  # all of the sum, over the share of the wanted item
    for negatives in (ITEMS // 2, ITEMS - 1):
        sums = np.exp([float(next_item_loss(net, items, users, last, negatives)) for _ in range(2_000)])
        assert abs(sums.mean() - whole) < 4 * sums.std() / np.sqrt(len(sums))


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "item-lm"])
@torch.no_grad()
def test_no_model_sees_the_item_that_it_has_to_guess(name: str) -> None:
    torch.manual_seed(0)
    nets = {"sasrec": lambda: SASRecNet(BLANK, SMALL), "gru4rec": lambda: GRU4RecNet(BLANK, SMALL)}
    net = nets.get(name, lambda: ItemLMNet(ITEMS, 3, SMALL))().eval()
    items, users = torch.tensor([[3, 4, 5, 6]]), torch.tensor([2])
    changed = torch.tensor([[3, 4, 9, 9]])
    torch.testing.assert_close(net(items, users)[0, :2], net(changed, users)[0, :2])
    assert not torch.allclose(net(items, users)[0, 2], net(changed, users)[0, 2])
    reads_users = not torch.equal(net(items, users), net(items, torch.tensor([1])))
    assert reads_users == (name == "item-lm")


def test_sequences_hold_the_newest_items() -> None:
    log = make_log([(0, item, item) for item in range(6)] + [(1, 9, 3)])
    contexts = Contexts(
        log, np.array([0, 6, 6]), np.array([6, 6, 7]), np.array([6, 7, 7]), np.array([0, 1, 1], np.int32), np.zeros(3, np.int64)
    )
    items, last = sequences(contexts, 4)
    assert items.tolist() == [[2, 3, 4, 5], [0, 0, 0, 0], [9, 0, 0, 0]]
    assert last.tolist() == [3, -1, 0]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50])
def test_spans_make_each_next_item_a_target_once(length: int) -> None:
    log = chain_log(20)
    known = np.arange(len(log)) % 7 != 0
    spans = user_spans(log, known, length)
    events = spans.log
    targets = [e for a, b in zip(spans.start, spans.stop, strict=True) for e in range(a + 1, b)]
    expected = [e for e in range(1, len(events)) if events.user[e] == events.user[e - 1]]
    assert sorted(targets) == expected
    assert (spans.stop - spans.start <= length + 1).all()
    assert all(len(set(events.user[a:b])) == 1 for a, b in zip(spans.start, spans.stop, strict=True))


@pytest.fixture(scope="module")
def control(fits: SequenceFits) -> object:
    return fit_recency(fits)


@pytest.mark.parametrize("name", ["sasrec", "sasrec+recency"])
def test_both_keep_the_contract_of_a_ranker(name: str, fits: SequenceFits, control: SequenceRanker) -> None:
    ranker = fits.final if name == "sasrec" else control
    assert ranker.name == name
    split = fits.split
    cold = split.test.start.copy()
    contexts = warm(split)
    empty = Contexts(split.log, cold[:2], cold[:2], cold[:2], split.test.user[:2], split.test.time[:2])
    for some, k in ((contexts, 10), (contexts, 60), (empty, 5), (contexts.take(np.arange(0)), 5)):
        ranked = ranker.rank(some, k)
        assert ranked.shape == (len(some), k)
        check_ranked(name, ranked, len(some), split.candidates_test)
        for c, row in enumerate(ranked):
            assert not np.isin(row, some.history(c)).any()
            left = int(split.candidates_test.sum()) - len(np.unique(some.history(c)))
            assert (row != NO_ITEM).sum() == min(k, left)
    few = np.arange(ITEMS) % 5 == 0
    ranked = ranker.among(few).rank(contexts, 10)
    check_ranked(name, ranked, len(contexts), few)
    same = [ranker.rank(contexts.take(np.array([c])), 5)[0].tolist() for c in range(4)]
    assert same == ranker.rank(contexts.take(np.arange(4)), 5).tolist()


def test_the_control_puts_what_sells_now_first() -> None:
    """Tastes say nothing here; each item sells for ten days and never again."""
    rng = np.random.default_rng(1)
    events = set()
    for user in range(260):
        for day in rng.choice(120, 4, replace=False):
            events.add((user, int(day) // 5 % ITEMS if rng.random() < 0.8 else int(rng.integers(ITEMS)), int(day)))
    fits = sasrec_fits(make_split(make_log(sorted(events)), ITEMS), BLANK, 0, False, lambda line: None, SMALL)
    contexts = warm(fits.split)
    log = fits.split.log

    def first_is_recent(ranked: np.ndarray) -> float:
        sold = [np.bincount(log.item[(log.time < t) & (log.time >= t - 4 * 86_400)], minlength=ITEMS) for t in contexts.time]
        return float(np.mean([counts[row[0]] >= np.sort(counts)[-3] for counts, row in zip(sold, ranked, strict=True)]))

    assert first_is_recent(fit_recency(fits).rank(contexts, 3)) > first_is_recent(fits.final.rank(contexts, 3)) + 0.3


def test_a_run_is_evaluated_end_to_end(tiny_run: Path) -> None:
    told: list[str] = []
    against = ("popularity", "popularity-7d", "text", "itemknn", "mmr")
    report = json.loads(json.dumps(evaluate_run(tiny_run, (*against, "sft"), tell=told.append).as_json(), allow_nan=False))
    assert report["split"] == "temporal"
    assert list(report["methods"]) == ["pagellm", *against]
    assert list(report["paired"]) == list(against)
    names = ("ndcg", "recall", "hit", "mrr", "map")
    pages = ("ild", "near_duplicates", "category_coverage", "catalog_coverage", "novelty")
    metrics = {f"{name}@{k}" for name in names for k in (10, 20, 40, 100)} | {f"{name}@10" for name in pages}
    for row in report["methods"].values():
        assert set(row) >= metrics
        for figure in row.values():
            low, high = figure["ci95"]
            assert low - 1e-9 <= figure["mean"] <= high + 1e-9
    for name, row in report["paired"].items():
        ours, theirs = (report["methods"][m]["ndcg@10"]["mean"] for m in ("pagellm", name))
        assert row["ndcg@10"]["diff"] == pytest.approx(ours - theirs)
    assert report["users"] > 50
    assert "fitting text" in told
    card = report["card"]
    assert set(card["searches"]) == {"text", "itemknn", "mmr"}
    assert all(set(trial) == {"settings", "score"} for search in card["searches"].values() for trial in search["trials"])
    assert card["reranked"]["base"] in against
    assert list(card["left_out"]) == ["sft"]


def test_a_run_that_has_seen_its_test_part_is_not_judged(tiny_shop: Path, tmp_path: Path) -> None:
    run = train(tiny_shop, tmp_path / "run", "sft.epochs=1", "sft.refresh=end")
    with pytest.raises(RunError, match="cannot be judged"):
        evaluate_run(run, ("popularity",))


def test_a_log_with_nothing_to_tune_on_is_refused() -> None:
    split = make_split(make_log([(user, user % ITEMS, user) for user in range(60)]), ITEMS)
    with pytest.raises(UsageError, match="no warm valid context"):
        _ = sasrec_fits(split, BLANK, 0, False, lambda line: None, SMALL).search


def test_the_chain_has_one_item_a_basket() -> None:
    log = chain_log()
    assert len(basket_starts(log)) == len(log)
