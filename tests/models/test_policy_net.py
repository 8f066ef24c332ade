"""The policy network: what an untrained page head writes, what a pool's log-probabilities are, what batches must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.config import resolve
from pagellm.data.content import content_vectors
from pagellm.data.contexts import ALWAYS, contexts_between
from pagellm.data.evidence import NAMES, build_evidence
from pagellm.layout.spec import Layout
from pagellm.models.choices import EMPTY
from pagellm.models.codec import encode
from pagellm.models.composer import LanguagePolicy, PolicyRanker
from pagellm.models.decoding import Writing
from pagellm.models.page_scorer import PageScorer, context_logits
from pagellm.models.policy import PolicyNet
from pagellm.models.pools import policy_pool, pool_logprobs, read_contexts
from pagellm.models.run import load_run
from pagellm.types import NO_ITEM, Context, Contexts

CATALOG, LOG = small_catalog(), small_log()
CONTENT = content_vectors(CATALOG, 16)
CONFIG = resolve("tiny", ["model.dims=32", "candidates.content_dims=16", "model.dropout=0"])
CONTEXTS = contexts_between(LOG, -ALWAYS, ALWAYS)
CONTEXTS = CONTEXTS.take(np.arange(0, len(CONTEXTS), 9))


def make(seed: int = 0, wake: bool = False, blind: bool = False) -> PolicyNet:
    """A fresh network; `wake` gives weights to both heads, so that evidence and page matter."""
    torch.manual_seed(seed)
    net = PolicyNet(CONFIG.model, CONTENT, len(NAMES), blind=blind).eval()
    if wake:
        torch.nn.init.normal_(net.page_head.weight, std=0.5)
        torch.nn.init.normal_(net.evidence.outer[-1].weight, std=0.5)
        torch.nn.init.normal_(net.ids.weight, std=0.5)
        torch.nn.init.normal_(net.bias, std=0.5)
    return net


NET = make(wake=True)
EVIDENCE = build_evidence(CATALOG, LOG, CONTENT)
ALLOWED = np.ones(len(CATALOG), bool)


def logits_of(net: PolicyNet, contexts: Contexts, pool: np.ndarray) -> torch.Tensor:
    h = read_contexts(net, contexts, 30)
    with torch.no_grad():
        features = torch.from_numpy(EVIDENCE.features(contexts, pool))
        return context_logits(net, h, torch.from_numpy(pool.astype(np.int64)), features)


@torch.no_grad()
def test_log_probabilities_of_a_pool_are_those_of_the_catalog_renormalized() -> None:
    h = read_contexts(NET, CONTEXTS, 30)
    full = (h @ NET.item_vectors().T + NET.bias).log_softmax(-1)
    pool = torch.tensor([[3, 17, 0, 39, -1, -1]] * len(h))
    found = NET.base_logprobs(h, pool)
    known = full[:, [3, 17, 0, 39]]
    torch.testing.assert_close(found[:, :4], known - known.logsumexp(-1, keepdim=True), atol=1e-5, rtol=1e-5)
    assert (found[:, 4:] == -torch.inf).all()
    everything = torch.arange(len(CATALOG)).expand(len(h), -1)
    torch.testing.assert_close(NET.base_logprobs(h, everything), full, atol=1e-5, rtol=1e-5)


def test_padding_of_a_pool_gets_a_finite_stand_in() -> None:
    pool = np.array([[5, NO_ITEM], [NO_ITEM, NO_ITEM]], np.int32)
    found = pool_logprobs(NET, torch.randn(2, NET.dims), pool)
    assert found.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_order_of_candidates_changes_only_the_order_of_logits() -> None:
    pool = np.tile(np.arange(len(CATALOG), dtype=np.int32), (len(CONTEXTS), 1))
    mixed = np.random.default_rng(0).permutation(len(CATALOG))
    torch.testing.assert_close(
        logits_of(NET, CONTEXTS, pool)[:, mixed], logits_of(NET, CONTEXTS, pool[:, mixed]), atol=1e-4, rtol=1e-5
    )


def test_one_by_one_equals_seven_at_once() -> None:
    some = CONTEXTS.take(np.arange(28))
    pool = np.tile(np.arange(len(CATALOG), dtype=np.int32), (len(some), 1))
    whole = logits_of(NET, some, pool)
    for size in (1, 7):
        parts = [logits_of(NET, some.take(np.arange(a, a + size)), pool[a : a + size]) for a in range(0, 28, size)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_item_that_nobody_has_taken_is_found_by_its_text() -> None:
    net = make()
    torch.nn.init.zeros_(net.ids.weight[7:8])  # what weight decay leaves of an id that never occurred
    wanted = net.item_vectors()[7]
    logprobs = net.base_logprobs(wanted[None] * 20, torch.arange(len(CATALOG))[None])[0]
    assert torch.isfinite(logprobs).all()
    theme = [CATALOG.frame["categories"][i][0] for i in range(len(CATALOG))]
    near, far = (
        [float(logprobs[i]) for i in range(len(theme)) if i != 7 and (theme[i] == theme[7]) is same] for same in (True, False)
    )
    assert np.mean(near) > np.mean(far) + 0.5


@torch.no_grad()
def test_a_blind_network_has_no_opinion_but_the_bias() -> None:
    net = make(blind=True)
    found = net.base_logprobs(torch.randn(3, net.dims), torch.arange(10).expand(3, -1))
    torch.testing.assert_close(found, torch.full((3, 10), -float(np.log(10))))


def test_favorites_are_the_most_probable_that_are_allowed() -> None:
    h = read_contexts(NET, CONTEXTS, 30)
    allowed = np.arange(len(CATALOG)) % 3 != 0
    with torch.no_grad():
        full = (h @ NET.item_vectors().T + NET.bias).numpy()
        found = NET.favorites(h, 5, allowed).numpy()
    best = np.argsort(-np.where(allowed, full, -np.inf), axis=1)[:, :5]
    assert (np.sort(found, 1) == np.sort(best, 1)).all()
    assert NET.favorites(h, 99, allowed).shape[1] == allowed.sum()
    assert NET.favorites(h, 5, np.zeros(len(CATALOG), bool)).shape == (len(h), 0)


def test_pools_without_any_allowed_item_are_padding() -> None:
    h = read_contexts(NET, CONTEXTS, 30)
    pool = policy_pool(NET, h, EVIDENCE, CONTEXTS, CONFIG.candidates, np.zeros(len(CATALOG), bool), False)
    assert pool.shape[1] >= 1
    assert (pool == NO_ITEM).all()
    assert (logits_of(NET, CONTEXTS, pool) == -torch.inf).all()


def test_an_untrained_page_head_writes_the_ranking_of_the_context(tiny_run) -> None:  # type: ignore[no-untyped-def]
    run = load_run(tiny_run)
    assert not run.net.writes_pages
    test = run.split.test.take(run.split.test.warm)
    ranked = PolicyRanker(run, np.ones(len(run.catalog), bool)).rank(test, 12)
    policy = LanguagePolicy(run, Layout.single_row(12), Writing())
    contexts = [
        Context(int(t), log.item[a:b], log.event[a:b], log.time[a:b])
        for log, a, b, t in ((test.log, test.start[c], test.stop[c], test.time[c]) for c in range(len(test)))
    ]
    pages = policy.compose_many(contexts, np.random.default_rng(0))
    assert [page.items.tolist() for (page,) in pages] == [row[row != NO_ITEM].tolist() for row in ranked]


@pytest.mark.parametrize("lengths", [(1, 30), (3, 3)])
def test_what_is_padded_reads_as_it_does_alone(lengths: tuple[int, int]) -> None:
    places = [int(np.argmin(np.abs((CONTEXTS.stop - CONTEXTS.start) - n))) for n in lengths]
    both = NET.context_vectors(encode(CONTEXTS.take(np.array(places)), 30))
    for row, place in zip(both, places, strict=True):
        alone = NET.context_vectors(encode(CONTEXTS.take(np.array([place])), 30))[0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("group", [1, 3])
def test_reading_the_first_token_with_the_prompt_changes_no_logit(group: int) -> None:
    prompts = encode(CONTEXTS, 30)
    assert len(set(prompts.lengths.tolist())) > 2, "prompts of one length would prove little"
    pool = torch.arange(6).expand(len(CONTEXTS), -1)
    evidence = torch.from_numpy(EVIDENCE.features(CONTEXTS, pool.numpy().astype(np.int32)))
    prompt = NET.embed(torch.from_numpy(prompts.items), torch.from_numpy(prompts.codes))
    given = (NET, prompt, torch.from_numpy(prompts.lengths), pool, evidence, group, 4)
    ahead, stepwise = PageScorer(*given, first_row=2), PageScorer(*given)
    pick = torch.full((len(CONTEXTS), group), EMPTY)
    for slot in range(4):
        for scorer in (ahead, stepwise):
            scorer.read(pick, torch.full_like(pick, 2))
        torch.testing.assert_close(ahead.logits(), stepwise.logits(), atol=1e-5, rtol=1e-5)
        pick = torch.randint(6, pick.shape, generator=torch.Generator().manual_seed(slot))
