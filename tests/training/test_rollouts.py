"""One log-probability: pages written slot by slot and read whole give the same numbers, under masks, rows and temperatures."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.data.contexts import contexts_between
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.models.policy import PolicyNet
from pagellm.models.run import Run
from pagellm.models.whole_pages import distributions, logprobs_of, page_logits, read_once, reference_logits
from pagellm.training.rollouts import Asked, Desk, Rollout, ask, likeliest_pages, write_rollout
from pagellm.types import NO_ITEM, Contexts
from tiny_run import fresh_run, wake_page

RULED = Layout.model_validate(
    {
        "id": "ruled",
        "rows": [{"id": "a", "capacity": 3}, {"id": "b", "capacity": 3}],
        "rules": {
            "pin": [{"item": "i5", "slot": "r1c0"}],
            "max_per": [{"field": "brand", "limit": 2, "window": "page"}],
            "boost": [{"where": "brand == 'brand 1'", "factor": 2.0}],
        },
    }
)
CHOSEN_ROWS = Layout.model_validate(
    {
        "id": "rows",
        "order": "policy",
        "rows": [
            {"id": "tea", "capacity": 2, "source": {"theme": "tea"}},
            {"id": "any", "capacity": 3},
            {"id": "soap", "capacity": 2, "source": {"theme": "soap"}, "optional": True},
        ],
    }
)
KNOWN = np.zeros(40, np.int64)
LAYOUTS = [Layout.single_row(6), RULED, CHOSEN_ROWS, Layout.single_row(20)]


@dataclass(frozen=True)
class Case:
    net: PolicyNet
    reference: PolicyNet
    asked: Asked
    desk: Desk
    rollout: Rollout


@pytest.fixture(scope="module")
def run() -> Run:
    return fresh_run(small_catalog(), small_log())


def some_contexts(run: Run) -> Contexts:
    every = contexts_between(run.split.log, int(1.5e9), int(1.6e9))
    return every.take(np.arange(0, len(every), 23))  # users without history among them


def case(run: Run, layout: Layout, temperature: float, group: int = 3) -> Case:
    net, reference = copy.deepcopy(run.net), copy.deepcopy(run.net)
    wake_page(net, run)
    torch.nn.init.zeros_(reference.page_head.weight)
    rules = compile_layout(layout, run.catalog, int(1.6e9))
    desk, contexts = Desk(rules, 20), some_contexts(run)
    asked = ask(run, contexts, KNOWN, rules, 15)
    rollout = write_rollout(net, reference, asked, desk, group, temperature, np.random.default_rng(0))
    return Case(net, reference, asked, desk, rollout)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.id}{len(layout.rows)}")
def test_whole_pages_have_the_log_probabilities_they_were_written_with(run: Run, layout: Layout, temperature: float) -> None:
    c = case(run, layout, temperature)
    with torch.no_grad():
        logits = page_logits(c.net, c.rollout.pages)
        whole = logprobs_of(distributions(logits, c.rollout.pages, temperature), logits, c.rollout.pages, temperature)
    assert float((whole - c.rollout.logprobs).abs().max()) < 2e-5
    assert float((c.rollout.reference - c.rollout.logprobs).abs().max()) > 0.1  # the page matters to this policy


def test_where_the_policy_chooses_rows_their_chance_counts(run: Run) -> None:
    c = case(run, CHOSEN_ROWS, 1.0)
    assert len(c.rollout.pages.starts) >= 2
    without = copy.copy(c.rollout.pages)
    object.__setattr__(without, "starts", ())
    with torch.no_grad():
        logits = page_logits(c.net, without)
        bare = logprobs_of(distributions(logits, without, 1.0), logits, without, 1.0)
    assert float((bare - c.rollout.logprobs).abs().max()) > 0.1


def test_the_reference_is_read_like_any_policy(run: Run) -> None:
    c = case(run, RULED, 1.0)
    c.reference.page_evidence.attach(run.likeness)
    with torch.no_grad():
        whole = page_logits(c.reference, c.rollout.pages).slots
        short = reference_logits(c.reference, c.rollout.pages).slots
    real = c.rollout.pages.pool[:, None, None].expand_as(whole) >= 0
    assert torch.allclose(whole[real], short[real], atol=1e-5)


def test_a_part_of_the_pages_is_read_as_in_the_whole(run: Run) -> None:
    c = case(run, CHOSEN_ROWS, 1.0)
    some = torch.tensor([4, 1])
    with torch.no_grad():
        logits = page_logits(c.net, c.rollout.pages)
        part = page_logits(c.net, c.rollout.pages.take(some))
        pages = c.rollout.pages.take(some)
        got = logprobs_of(distributions(part, pages, 1.0), part, pages, 1.0)
    finite = part.slots.isfinite()
    assert torch.allclose(part.slots[finite], logits.slots[some][finite], atol=1e-5)
    assert torch.allclose(got, c.rollout.logprobs[some], atol=2e-5)


@pytest.mark.parametrize("layout", [RULED, CHOSEN_ROWS], ids=["ruled", "rows"])
def test_one_page_of_each_group_is_read_as_in_the_whole(run: Run, layout: Layout) -> None:
    c = case(run, layout, 1.0)
    contexts, group = c.rollout.groups
    page = torch.arange(contexts) % group
    picked = c.rollout.pages.pick(page)
    with torch.no_grad():
        logits = page_logits(c.net, picked)
        got = logprobs_of(distributions(logits, picked, 1.0), logits, picked, 1.0)
    assert torch.allclose(got[:, 0], c.rollout.logprobs[torch.arange(contexts), page], atol=2e-5)


@pytest.mark.parametrize("layout", [RULED, CHOSEN_ROWS], ids=["ruled", "rows"])
def test_pages_that_are_read_once_give_the_same_of_any_part_of_them(run: Run, layout: Layout) -> None:
    c = case(run, layout, 1.0)
    once, some = read_once(c.net, c.rollout.pages, 3), torch.tensor([4, 1])
    contexts, group = c.rollout.groups
    of_each = torch.arange(contexts) % group
    for pages, written in (
        (once, c.rollout.logprobs),
        (once.take(some), c.rollout.logprobs[some]),
        (once.pick(of_each), c.rollout.logprobs[torch.arange(contexts), of_each][:, None]),
    ):
        with torch.no_grad():
            logits = page_logits(c.net, pages)
            got = logprobs_of(distributions(logits, pages, 1.0), logits, pages, 1.0)
        assert logits.hidden is not None
        assert torch.equal(logits.hidden, pages.read[1] if pages.read else torch.zeros(0))
        assert torch.allclose(got, written, atol=2e-5)


def test_gradients_reach_every_part(run: Run) -> None:
    c = case(run, Layout.single_row(6), 1.0)
    logits = page_logits(c.net, c.rollout.pages)
    logprobs_of(distributions(logits, c.rollout.pages, 1.0), logits, c.rollout.pages, 1.0).sum().backward()
    parts = ("page_head", "page_evidence.linear", "page_evidence.outer", "rows", "evidence", "backbone", "ids", "project")
    for part in parts:
        grads = [p.grad for n, p in c.net.named_parameters() if n.startswith(part)]
        assert any(g is not None and bool(g.any()) for g in grads), part


def test_candidates_are_the_references_favorites_and_what_is_pinned(run: Run) -> None:
    c = case(run, RULED, 1.0)
    pinned = int(np.flatnonzero(run.catalog.item_ids == "i5")[0])
    assert (c.asked.pool == pinned).any(1).all()
    real = c.asked.pool != NO_ITEM
    assert (np.diff(np.where(real, c.asked.pool, 1_000), axis=1)[real[:, 1:]] > 0).all()  # rising, none twice
    assert (real.sum(1) <= 16).all()


def test_likeliest_pages_are_what_is_served(run: Run) -> None:
    from pagellm.models.composer import LanguagePolicy
    from pagellm.types import Context

    c = case(run, Layout.single_row(6), 1.0)
    rules = c.desk.rules
    asked = ask(run, some_contexts(run), KNOWN, rules, 40)  # the whole catalog
    pages = likeliest_pages(c.net, asked, c.desk)
    policy = LanguagePolicy(run, Layout.single_row(6), now=int(1.6e9), net=c.net)
    log = run.split.log
    for place in range(0, len(asked), 5):
        past = slice(int(asked.contexts.start[place]), int(asked.contexts.stop[place]))
        context = Context(
            int(asked.contexts.time[place]), log.item[past], log.event[past], log.time[past], baskets=log.basket[past]
        )
        served = policy.compose(context, np.random.default_rng(0))
        if not any(served.notes):
            assert [slot.item for slot in served.slots] == pages.items[place].tolist()
