"""A hundred thousand drawn pages over hostile contexts: never an unknown, repeated or ineligible item, never a needlessly short page."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.layout.masks import PageMasks
from pagellm.layout.spec import Layout
from pagellm.layout.validator import Validator
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing, write_pages
from pagellm.models.page_scorer import PageScorer
from pagellm.models.run import Run
from pagellm.types import DAY, I64, NO_ITEM, Context, Event, Interactions
from tiny_run import fresh_run

SLOTS = 5
NARROW = ("model.dims=16", "model.ffn_dims=16", "model.heads=2", "candidates.content_dims=16", "model.evidence_dims=8")
WRITINGS = (Writing(1.0), Writing(0.3), Writing(3.0, hybrid=2), Writing(1.0, hybrid=0))


def run_of(items: int) -> Run:
    """A run over a catalog of so many items that may repeat titles and have none."""
    if items == 40:
        return fresh_run(small_catalog(), small_log(30), *NARROW)
    frame = pl.DataFrame({"item_id": [f"i{i}" for i in range(items)], "title": ["tea" if i % 3 else "" for i in range(items)]})
    user, day = np.repeat(np.arange(8, dtype=np.int32), 3), np.tile(np.arange(3), 8)
    missing = np.full(24, np.nan, np.float32)
    log = Interactions(
        user,
        ((user + day) % items).astype(np.int32),
        (1_500_000_000 + (10 * day + user) * DAY).astype(np.int64),
        day.astype(np.int32),
        np.full(24, Event.PURCHASE, np.int8),
        missing,
        missing,
        np.array([f"u{u}" for u in range(8)]),
    )
    return fresh_run(Catalog(frame), log, *NARROW)


def contexts_for(run: Run, rng: np.random.Generator, number: int) -> list[Context]:
    """Empty, short, long and repetitive histories; from no item barred to all of them."""
    items, now = len(run.catalog), int(run.split.log.time.max()) + 1
    out = []
    for place in range(number):
        size = (0, 1, 3, 60)[place % 4]
        history = rng.integers(items, size=size).astype(np.int32)
        times = now - 1 - np.sort(rng.integers(300 * DAY, size=size))[::-1].astype(np.int64)
        most = (0, 1, items // 2, 0, items - 1, 2, 0, items, 1, items // 4)[place % 10]
        barred = rng.permutation(items)[:most].astype(np.int32)
        shown = rng.integers(items, size=3 * (place % 3)).astype(np.int32)
        out.append(Context(now, history, np.full(size, Event.INTERACTION, np.int8), times, exclude=barred, shown=shown))
    return out


def written_items(policy: LanguagePolicy, contexts: list[Context], group: int, rng: np.random.Generator) -> I64:
    """Catalog indexes of drawn pages, without making records of them. Shape [context, page, slot]."""
    drawn = policy.draw(contexts)
    exclude = np.stack([np.isin(row, page.exclude) for row, page in zip(drawn.pool, contexts, strict=True)])
    masks = PageMasks(policy.rules, np.repeat(drawn.pool, group, 0), np.repeat(exclude, group, 0))
    net, prompts = policy.run.net, drawn.prompts
    with torch.no_grad():
        prompt = net.embed(torch.from_numpy(prompts.items), torch.from_numpy(prompts.codes))
        lengths, pool = torch.from_numpy(prompts.lengths), torch.from_numpy(drawn.pool.astype(np.int64))
        scorer = PageScorer(net, prompt, lengths, pool, torch.from_numpy(drawn.evidence), group, SLOTS, first_row=0)
    written = write_pages(scorer, masks, (len(contexts), group), policy.writing, rng)
    assert np.isfinite(written.sampled).all()
    return masks.items.reshape(len(contexts), group, SLOTS)


def faults(pages: I64, contexts: list[Context], n_items: int) -> dict[str, int]:
    """What is wrong with the pages, counted with plain arrays."""
    filled = pages != NO_ITEM
    wrong = {"unknown": int((filled & ((pages < 0) | (pages >= n_items))).sum())}
    ordered = np.sort(pages, -1)
    wrong["repeated"] = int(((np.diff(ordered, axis=-1) == 0) & (ordered[..., 1:] != NO_ITEM)).sum())
    wrong["gap"] = int((np.diff(filled.astype(int), axis=-1) > 0).sum())
    wrong["ineligible"] = wrong["short"] = 0
    for page, context in zip(pages, contexts, strict=True):
        barred = np.union1d(context.exclude, context.items)
        wrong["ineligible"] += int(np.isin(page, barred).sum())
        wrong["short"] += int(((page != NO_ITEM).sum(-1) != min(SLOTS, n_items - len(barred))).sum())
    return wrong


def write_and_check(pages: int) -> int:
    """Draws at least this many pages over all kinds of contexts, catalogs and writings; returns how many."""
    rng, done = np.random.default_rng(0), 0
    runs = [(run_of(items), items, group) for items, group in ((1, 5), (5, 10), (12, 25), (40, 120))]
    while done < pages:
        for run, items, group in runs:
            for writing in WRITINGS:
                policy, contexts = LanguagePolicy(run, Layout.single_row(SLOTS), writing), contexts_for(run, rng, 20)
                written = written_items(policy, contexts, group, rng)
                assert faults(written, contexts, items) == dict.fromkeys(("unknown", "repeated", "gap", "ineligible", "short"), 0)
                done += len(contexts) * group
    return done


def test_no_wrong_page_in_a_hundred_thousand() -> None:
    assert write_and_check(100_000) >= 100_000


@pytest.mark.slow
def test_no_wrong_page_in_a_million() -> None:
    assert write_and_check(1_000_000) >= 1_000_000


def test_no_rule_broken_in_a_thousand_pages_with_rules() -> None:
    layout = Layout.model_validate(
        {
            "id": "ruled",
            "order": "policy",
            "rows": [
                {"id": "tea", "capacity": 2, "source": {"theme": "tea"}},
                {"id": "any", "capacity": 3},
                {"id": "soap", "capacity": 2, "source": {"theme": "soap"}, "optional": True},
            ],
            "rules": {
                "exclude": [{"items": ["i0", "i3"]}],
                "max_per": [{"field": "brand", "limit": 2, "window": "page"}],
                "frequency_cap": {"shown": 2, "days": 7, "soft": True},
            },
        }
    )
    run, rng, count = run_of(40), np.random.default_rng(1), 0
    now = int(run.split.log.time.max()) + 1
    validator = Validator(layout, run.catalog, now)
    for writing in WRITINGS:
        policy, contexts = LanguagePolicy(run, layout, writing), contexts_for(run, rng, 20)
        drawn = policy.draw(contexts)
        for place, group in enumerate(policy.write(drawn, contexts, rng, group=13)):
            for page in group:
                assert validator.check(page, contexts[place], drawn.pool[place].tolist()) == []
                count += 1
    assert count == 1040
