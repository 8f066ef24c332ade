"""Supervised fine-tuning: the loss equals a slow one, padding and batches change nothing, a planted taste is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.config import resolve
from pagellm.data.content import content_vectors
from pagellm.data.evidence import NAMES
from pagellm.data.readers import read_log
from pagellm.evaluation.baselines.popularity import fit_popularity
from pagellm.evaluation.protocol import Ranker
from pagellm.models.codec import encode, reading_spans
from pagellm.models.composer import PolicyRanker
from pagellm.models.listwise import BINS, CONTEXTS_A_BIN, EvidenceHead, fit_listwise, listwise_loss
from pagellm.models.policy import PolicyNet
from pagellm.models.run import Run, load_run, make_net
from pagellm.training.run_sft import newest_contexts
from pagellm.training.sft import fit_language_model, language_model_state, next_basket_loss, target_matrix
from pagellm.types import NO_ITEM, Contexts
from tiny_run import SETTINGS, train, wake

CATALOG, LOG = small_catalog(), small_log()
CONTENT = content_vectors(CATALOG, 16)
EVERYTHING = np.ones(len(LOG), bool)


def make(*more: str) -> tuple[PolicyNet, object]:
    config = resolve("tiny", ["model.dims=32", "candidates.content_dims=16", "model.dropout=0", "sft.min_steps=0", *more])
    torch.manual_seed(0)
    net = PolicyNet(config.model, CONTENT, len(NAMES))
    torch.nn.init.normal_(net.ids.weight, std=0.5)
    torch.nn.init.normal_(net.gaps.weight, std=0.5)
    return net.eval(), config.sft


@torch.no_grad()
def slow_loss(net: PolicyNet, spans: Contexts, longest: int) -> float:
    """Every basket by itself: read what stands before it, rank all items, average -log p over its items."""
    losses, prompts = [], encode(spans, longest)
    span_of = np.searchsorted(spans.start, prompts.begin, side="right") - 1
    for span, begin, end in zip(span_of, prompts.begin, prompts.end, strict=True):
        place, time = spans.user[span : span + 1], spans.log.time[begin : begin + 1]
        alone = Contexts(spans.log, spans.start[span : span + 1], np.array([begin]), np.array([end]), place, time)
        h = net.context_vectors(encode(alone, longest))[0]
        logprobs = (net.item_vectors() @ h + net.bias).double().log_softmax(-1)
        losses.append(float(-logprobs[spans.log.item[begin:end].astype(np.int64)].mean()))
    return float(np.mean(losses))


def test_the_loss_is_the_mean_over_baskets_of_the_mean_over_their_items() -> None:
    net, _ = make()
    spans = reading_spans(LOG, EVERYTHING, 7).take(np.arange(25))
    with torch.no_grad():
        assert float(next_basket_loss(net, spans, 7)) == pytest.approx(slow_loss(net, spans, 7), abs=1e-5)


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_weighted_mean_of_its_parts() -> None:
    net, _ = make()
    spans = reading_spans(LOG, EVERYTHING, 9).take(np.arange(30))
    parts = [spans.take(np.array([place])) for place in range(30)]
    asks = np.array([len(encode(part, 9).places) for part in parts])
    losses = np.array([float(next_basket_loss(net, part, 9)) for part in parts])
    assert float(next_basket_loss(net, spans, 9)) == pytest.approx(float((losses * asks).sum() / asks.sum()), abs=1e-5)


def test_gradients_do_not_reach_page_head_rows_and_evidence() -> None:
    net, sft = make()
    spans = reading_spans(LOG, EVERYTHING, 9)
    frozen = ("page_", "rows", "evidence")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fit = fit_language_model(net, spans, sft, 9, 0, language_model_state(net, sft))  # type: ignore[arg-type]
    for _ in range(3):
        next(fit)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) is name.startswith(frozen), name


def test_the_loss_falls_below_that_of_popularity() -> None:
    log = small_log(240)
    net, sft = make("sft.epochs=12", "sft.lr=5e-3", "sft.warmup_steps=5", "sft.batch=32")
    net.reset(0)
    spans = reading_spans(log, np.ones(len(log), bool), 20)
    steps = list(fit_language_model(net, spans, sft, 20, 0, language_model_state(net, sft)))  # type: ignore[arg-type]
    assert [s.step for s in steps] == list(range(1, steps[-1].steps + 1))
    share = np.bincount(log.item, minlength=40) / len(log)
    entropy = float(-(share * np.log(share)).sum())  # the least that a ranking without a user can reach
    assert np.mean([s.loss for s in steps[-9:]]) < entropy - 0.3
    assert steps[0].loss > entropy - 0.1


def test_no_history_means_no_step() -> None:
    net, sft = make()
    spans = reading_spans(LOG, ~EVERYTHING, 9)
    assert list(fit_language_model(net, spans, sft, 9, 0, language_model_state(net, sft))) == []  # type: ignore[arg-type]


def test_targets_are_marked_in_the_pool() -> None:
    contexts = Contexts(LOG, *(np.array([v]) for v in (0, 2, 4)), np.array([0], np.int32), np.array([0]))
    a, b = (int(i) for i in LOG.item[2:4])
    other = next(i for i in range(40) if i not in (a, b))
    assert target_matrix(contexts, np.array([[other, b, NO_ITEM, a]], np.int32)).tolist() == [[0, 1, 0, 1]]


def test_listwise_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, np.log(3.0), 50.0], [1.0, 1.0, 1.0]])
    targets = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    real = torch.tensor([[True, True, False], [True, True, True]])
    assert float(listwise_loss(logits, targets, real)) == pytest.approx((-np.log(3 / 4) + np.log(3)) / 2)


def planted(contexts: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pools whose target has the largest value of the second of three features; the base is noise. The last feature is constant."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(contexts, 12, 3)).astype(np.float32)
    evidence[..., 2] = 5.0
    base = rng.normal(size=(contexts, 12)).astype(np.float32)
    targets = (evidence[..., 1] == evidence[..., 1].max(1, keepdims=True)).astype(np.float32)
    return evidence, base, targets, np.ones((contexts, 12), bool)


def test_the_head_finds_the_feature_that_decides() -> None:
    torch.manual_seed(0)
    head = EvidenceHead(3, 16)
    losses = [loss for _, _, loss, _ in fit_listwise(head, *planted(), epochs=40, batch=50, lr=1e-2, seed=0)]
    assert losses[-1] < 0.5 < losses[0]
    evidence, base, targets, _ = planted(seed=1)
    with torch.no_grad():
        logits = head(torch.from_numpy(evidence), torch.from_numpy(base))
        assert (logits.argmax(1) == torch.from_numpy(targets).argmax(1)).float().mean() > 0.9
        shifted = evidence + np.array([0, 0, 0.5], np.float32)  # a constant feature must not be blown up when it moves
        moved = head(torch.from_numpy(shifted), torch.from_numpy(base))
    assert float((moved - logits).abs().max()) < 10


def test_inputs_are_encoded_by_how_far_they_are_through_each_bin() -> None:
    head = EvidenceHead(1, 16)
    values = torch.arange(BINS + 1.0)[None, :, None]  # as many quantiles as there are bins, so that edges are these values
    head.standardize(values, torch.zeros(1, BINS + 1), torch.ones(1, BINS + 1, dtype=torch.bool), BINS)
    assert head.edges[:, 0].tolist() == list(range(BINS + 1))
    rows = torch.tensor([[2.25, 0.0], [-7.0, 3.0], [90.0, 0.0]])
    encoded = head.encoded(rows)
    assert encoded[0, :, 0].tolist() == [0.5, 0.5, -0.25] + [-0.5] * (BINS - 3)
    assert encoded[1, :, 0].tolist() == [-0.5] * BINS
    assert encoded[2, :, 0].tolist() == [0.5] * BINS
    assert not encoded[:, :, 1].any(), "an input that never varied says nothing when it does"
    head.standardize(values, torch.zeros(1, BINS + 1), torch.ones(1, BINS + 1, dtype=torch.bool), 2)
    assert head.edges[:, 0].tolist() == [0, BINS / 2] + [BINS] * (BINS - 1)
    head.standardize(values, torch.zeros(1, BINS + 1), torch.ones(1, BINS + 1, dtype=torch.bool), 0)
    assert not head.encoded(rows).any(), "few contexts have no bins"


def test_the_head_finds_a_middle_among_values_of_all_magnitudes() -> None:
    contexts = BINS * CONTEXTS_A_BIN
    rng = np.random.default_rng(0)
    evidence = np.exp(3 * rng.normal(size=(contexts + 100, 12, 1))).astype(np.float32)
    base = np.zeros((contexts + 100, 12), np.float32)
    nearest = np.abs(np.log(evidence[..., 0])).argmin(1)
    targets = np.eye(12, dtype=np.float32)[nearest]
    torch.manual_seed(0)
    head = EvidenceHead(1, 16)
    known = (a[:contexts] for a in (evidence, base, targets, base == 0))
    for _ in fit_listwise(head, *known, epochs=2, batch=50, lr=1e-2, seed=0):
        pass
    with torch.no_grad():
        found = head(torch.from_numpy(evidence[contexts:]), torch.from_numpy(base[contexts:])).argmax(1).numpy()
    assert (found == nearest[contexts:]).mean() > 0.85  # .97; .01 with standardized inputs alone


def test_a_fitted_head_goes_on_as_what_it_is() -> None:
    evidence, base, targets, real = planted()
    head = EvidenceHead(3, 16)
    for _ in fit_listwise(head, evidence, base, targets, real, epochs=20, batch=50, lr=1e-2, seed=0):
        pass
    other = evidence * 3 + 1  # figures of its own, which must not take the place of those that the weights belong to
    with torch.no_grad():
        before = listwise_loss(head(*map(torch.from_numpy, (other, base))), *map(torch.from_numpy, (targets, real)))
    _, _, loss, _ = next(fit_listwise(head, other, base, targets, real, epochs=1, batch=300, lr=1e-3, seed=1))
    assert loss == pytest.approx(float(before), rel=1e-5)


def test_an_unfitted_head_keeps_the_language_models_order_and_nothing_to_learn_from_leaves_it_so() -> None:
    evidence, base, targets, real = planted()
    head = EvidenceHead(3, 16)
    assert list(fit_listwise(head, evidence, base, targets * 0, real, epochs=3, batch=50, lr=1e-2, seed=0)) == []
    with torch.no_grad():
        assert torch.equal(head(torch.from_numpy(evidence), torch.from_numpy(base)), torch.from_numpy(base))


def hits(ranker: Ranker, contexts: Contexts) -> float:
    """Share of contexts with a target among the first ten."""
    ranked = ranker.rank(contexts, 10)
    return float(np.mean([np.isin(row, contexts.target(c)).any() for c, row in enumerate(ranked)]))


def warm_test(run: Run) -> Contexts:
    test = run.split.test
    return test.take(test.warm & (test.target_stop > test.stop))


def test_a_planted_taste_is_learned(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    contexts, everything = warm_test(run), np.ones(len(run.catalog), bool)
    popularity = fit_popularity(run.split.log, run.split.fit_until_test, everything)
    policy = hits(PolicyRanker(run, everything), contexts)
    assert policy > hits(popularity, contexts) + 0.2


def test_evidence_helps_a_language_model_that_knows_little(tiny_shop: Path, tmp_path: Path) -> None:
    run = load_run(train(tiny_shop, tmp_path / "run", "sft.epochs=1", "sft.lr=1e-4", "sft.refresh=off", "sft.head_epochs=30"))
    contexts, everything = warm_test(run), np.ones(len(run.catalog), bool)
    both = hits(PolicyRanker(run, everything), contexts)
    with torch.no_grad():
        for part in (run.net.evidence.outer[-1].weight, run.net.evidence.outer[-1].bias):
            part.zero_()
    assert both > hits(PolicyRanker(run, everything), contexts) + 0.1


def test_the_head_learns_from_what_lies_between_the_cuts(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    contexts = newest_contexts(run.split.between_cuts(), 10_000)
    assert contexts.warm.all()
    assert (
        int(str(run.split.card["valid_cut"])) <= contexts.time.min() <= contexts.time.max() < int(str(run.split.card["test_cut"]))
    )
    newest = newest_contexts(run.split.between_cuts(), 20)
    assert len(newest) == 20
    assert sorted(newest.time) == sorted(contexts.time)[-20:]


def test_a_woken_page_head_is_not_what_the_language_model_trains() -> None:
    net, sft = make()
    assert not net.writes_pages
    wake(net)
    assert net.writes_pages
    assert not any(p is net.page_head.weight for g in language_model_state(net, sft).optimizer.param_groups for p in g["params"])  # type: ignore[arg-type]


def test_what_an_earlier_stage_left_behind_changes_no_step(tiny_shop: Path) -> None:
    def first_norm(left: float | None) -> float | None:
        config = resolve("tiny", SETTINGS)
        log = read_log(tiny_shop)
        content = content_vectors(log.catalog, 32)
        net = make_net(config, content, log.catalog)
        for weight in net.evidence.parameters():
            weight.grad = None if left is None else torch.full_like(weight, left)
        spans = reading_spans(log.interactions, np.ones(len(log.interactions), bool), 30)
        state = language_model_state(net, config.sft)
        return next(fit_language_model(net, spans, config.sft, 30, 0, state)).grad_norm

    assert first_norm(None) == first_norm(100.0)
