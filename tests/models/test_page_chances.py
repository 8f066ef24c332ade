"""Chances of given pages: the very numbers of the policy's own log-probability, and exact averages over its own pages."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.data.contexts import contexts_of
from pagellm.layout.spec import Layout
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.page_chances import page_chances
from pagellm.types import NO_ITEM, Context
from tiny_run import fresh_run, wake_page

TEMPERATURE = 1.5


@pytest.fixture(scope="module")
def policy() -> LanguagePolicy:
    catalog = small_catalog(12)
    run = fresh_run(catalog, small_log(40, 12))
    wake_page(run.net, run)
    return LanguagePolicy(run, Layout.single_row(3), Writing(TEMPERATURE))


def contexts(policy: LanguagePolicy, count: int) -> list[Context]:
    log = policy.run.split.log
    out = []
    for user in range(count):
        mine = log.user == user
        now = int(log.time.max()) + 1
        out.append(
            Context(now, log.item[mine], log.event[mine], log.time[mine], str(log.user_ids[user]), baskets=log.basket[mine])
        )
    return out


def test_equals_the_policys_log_probability(policy: LanguagePolicy) -> None:
    who, rng = contexts(policy, 6), np.random.default_rng(0)
    pages = [group[0] for group in policy.compose_many(who, rng)]
    items = np.array([[slot.item for slot in page.slots] for page in pages], np.int32)
    found = page_chances(policy, contexts_of(who), items, 2, rng)
    expected = np.exp([policy.log_prob(context, page) for context, page in zip(who, pages, strict=True)])
    np.testing.assert_allclose(found.of_logged(found.given), expected, rtol=1e-4)


def test_what_the_policy_never_writes_has_no_chance(policy: LanguagePolicy) -> None:
    who, rng = contexts(policy, 1), np.random.default_rng(0)
    page = policy.compose_many(who, rng)[0][0]
    twice = page.slots[0].item
    items = np.array([[twice, twice, NO_ITEM]], np.int32)
    found = page_chances(policy, contexts_of(who), items, 2, rng)
    chance = found.of_logged(found.given)[0]
    assert chance[0] > 0
    assert chance[1] == 0
    stranger = np.array([[10_000, twice, NO_ITEM]], np.int32)
    assert page_chances(policy, contexts_of(who), stranger, 2, rng).of_logged(found.given)[0, 0] == 0


def test_own_pages_average_what_enumeration_gives(policy: LanguagePolicy) -> None:
    who, rng = contexts(policy, 1), np.random.default_rng(1)
    blank = np.full((1, 3), NO_ITEM, np.int32)
    first = page_chances(policy, contexts_of(who), blank, 3_000, rng)
    pool = first.pool[0][first.pool[0] != NO_ITEM]
    np.testing.assert_allclose(first.alone[0, 0], first.given[0, 0], atol=1e-5)  # nothing stands before the first slot
    np.testing.assert_allclose(first.alone.sum(2), 1, atol=1e-4)
    exact = np.zeros(first.pool.shape[1])
    joint = np.array([[a, b, NO_ITEM] for a, b in itertools.permutations(pool, 2)], np.int32)
    many = [replace(who[0]) for _ in joint]
    found = page_chances(policy, contexts_of(many), joint, 1, rng)
    for page, (a, b) in enumerate(found.of_logged(found.given)[:, :2]):
        exact[found.place[page, 1]] += a * b
    np.testing.assert_allclose(first.alone[0, 1], exact, atol=0.01)


def test_a_policy_that_does_not_read_pages_needs_nothing_to_compare_items_by(policy: LanguagePolicy) -> None:
    run = fresh_run(small_catalog(12), small_log(40, 12))
    with torch.no_grad():
        run.net.page_head.weight.zero_()
    plain = LanguagePolicy(run, Layout.single_row(3), Writing(TEMPERATURE))
    who, rng = contexts(plain, 3), np.random.default_rng(0)
    pages = [group[0] for group in plain.compose_many(who, rng)]
    items = np.array([[slot.item for slot in page.slots] for page in pages], np.int32)
    found = page_chances(plain, contexts_of(who), items, 2, rng)
    expected = np.exp([plain.log_prob(context, page) for context, page in zip(who, pages, strict=True)])
    np.testing.assert_allclose(found.of_logged(found.given), expected, rtol=1e-4)
