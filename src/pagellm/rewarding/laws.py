"""Laws that any reward of ours must obey, and how often it does on pages of held-out users."""

from __future__ import annotations

import numpy as np

from pagellm.data.preferences.situations import Situations
from pagellm.errors import DataError
from pagellm.evaluation.reward_checks import Cases, Law, Rate, rate
from pagellm.models.multi_grained import MultiGrainedReward
from pagellm.rewarding.judge import Judge
from pagellm.types import F64, I32, I64, PageBatch

UNSEEN_LEAST = 0.7
"""Least rate at which defects that were never trained on must be caught."""

LAWS = {
    "duplicate_lowers": ("a second copy of an item lowers the page reward, and the reward of both grains", 0.95),
    "engaged_up_raises": ("moving an engaged item to a better place raises the item reward", 0.55),
    "equal_swap": ("exchanging two copies of one item changes nothing", 1.0),
    "order_of_pages": ("other pages and their order change nothing", 1.0),
    "consumed_never_raises": ("putting in what the user already took does not raise the reward", 0.95),
}
"""Laws, what they say, and the least rate at which each must hold."""


def laws_of(judge: Judge, unseen: list[Cases]) -> list[Law]:
    """Every law; `unseen` are the cases of held-out defects."""
    rng = np.random.default_rng((judge.seed, 9))
    batches = [batch_of(s) for s in judge.chunks]
    found: dict[str, list[tuple[F64, I32]]] = {name: [] for name in LAWS}
    for s, batch in zip(judge.chunks, batches, strict=True):
        for name, (held, which) in _cases(judge.reward, s, batch, rng, judge.run.config.split.repeats).items():
            found[name].append((held, s.contexts.user[which]))
    laws = []
    for name, (says, tolerance) in LAWS.items():
        held = np.concatenate([np.empty(0), *(h for h, _ in found[name])])
        who = np.concatenate([np.empty(0, np.int32), *(w for _, w in found[name])])
        laws.append(Law(name, says, rate(held, who, judge.seed), tolerance))
    first = judge.chunks[0]
    turned = rng.permutation(first.pool.shape[1])
    reader = judge.reward.model.reader
    gap = np.abs(reader.features(first.contexts, first.pool[:, turned]) - reader.features(first.contexts, first.pool)[:, turned])
    same = (gap.max((1, 2)) < 1e-4).astype(np.float64)
    laws.append(
        Law(
            "order_of_candidates",
            "what is read of an item depends on no other candidate",
            rate(same, first.contexts.user),
            1.0,
        )
    )
    refused = np.array([_refuses(judge.reward, batches[0], item) for item in _impossible(judge)], np.float64)
    says = "an item out of the catalog or hidden is an error, not a score"
    laws.append(Law("impossible_is_an_error", says, _each(refused), 1.0))
    laws.append(_unseen_law(unseen))
    return laws


def _impossible(judge: Judge) -> list[int]:
    hidden = np.flatnonzero(~judge.run.catalog.shown)
    return [len(judge.run.catalog), -7, *hidden[:1].tolist()]


def _cases(
    reward: MultiGrainedReward, s: Situations, batch: PageBatch, rng: np.random.Generator, repeats: bool
) -> dict[str, tuple[F64, I64]]:
    """For each law: [case] whether it holds, and the situation of each case."""
    model = reward.model
    own, taking = model.scores(batch, logged=True), s.contexts.log.taken
    page, item = own.page_total.mean(1, dtype=np.float64), own.item.mean(2, dtype=np.float64)
    out: dict[str, tuple[F64, I64]] = {}
    twice, consumed, better = batch.items.copy(), batch.items.copy(), batch.items.copy()
    can_repeat, can_consume, can_rise = (np.zeros(len(s), bool) for _ in range(3))
    swapped = []
    for c in range(len(s)):
        filled = np.flatnonzero(s.items[c] >= 0)
        if len(filled) < 2:
            continue
        a, b = rng.choice(filled, 2, replace=False)
        twice[c, max(a, b)] = twice[c, min(a, b)]
        can_repeat[c] = s.items[c, a] != s.items[c, b]
        past = slice(s.contexts.start[c], s.contexts.stop[c])
        taken = s.contexts.log.item[past][taking[past]]
        free, history = filled[s.gain[c, filled] == 0], np.setdiff1d(taken, s.items[c])
        history = history[model.reader.allowed[history]]
        if len(free) and len(history):
            consumed[c, rng.choice(free)] = rng.choice(history)
            can_consume[c] = True
        low = [(e, t) for e in filled[s.gain[c, filled] > 0] for t in free if s.look[c, t] > s.look[c, e] and s.seen[c, t] >= 0.5]
        if low:
            e, t = low[rng.integers(len(low))]
            better[c, [e, t]] = better[c, [t, e]]
            can_rise[c] = True
        swapped.append((c, a, b))
    every = np.arange(len(s))
    doubled = model.scores(batch.with_items(twice), logged=True)
    after = doubled.page_total.mean(1, dtype=np.float64)
    less = (after < page) & (reward.totals(doubled) < reward.totals(own))
    out["duplicate_lowers"] = less[can_repeat].astype(np.float64), every[can_repeat]
    up = model.scores(batch.with_items(better), logged=True).item.mean(2, dtype=np.float64).sum(1)
    out["engaged_up_raises"] = (up > item.sum(1))[can_rise].astype(np.float64), every[can_rise]
    again = twice.copy()
    for c, a, b in swapped:
        again[c, [a, b]] = again[c, [b, a]]
    once_more = model.scores(batch.with_items(again), logged=True)
    same = np.abs(once_more.page_total.mean(1) - doubled.page_total.mean(1)) < 1e-6
    same &= np.abs(once_more.item.sum((1, 2)) - doubled.item.sum((1, 2))) < 1e-6
    out["equal_swap"] = same[can_repeat].astype(np.float64), every[can_repeat]
    order = rng.permutation(len(s))[: max(1, len(s) // 2)]
    moved = model.scores(batch.take(order), logged=True).page_total.mean(1, dtype=np.float64)
    out["order_of_pages"] = (np.abs(moved - page[order]) < 1e-4).astype(np.float64), order
    if not repeats:
        now, before = reward.totals(model.scores(batch.with_items(consumed), logged=True)), reward.totals(own)
        out["consumed_never_raises"] = (now <= before + 1e-7)[can_consume].astype(np.float64), every[can_consume]
    return out


def batch_of(s: Situations) -> PageBatch:
    """The pages of situations, each for its own context."""
    return PageBatch(s.contexts, np.arange(len(s), dtype=np.int64), s.items, s.row.astype(np.int16), s.col.astype(np.int16))


def _refuses(reward: MultiGrainedReward, batch: PageBatch, item: int) -> bool:
    """Whether a page with this item is refused."""
    one = batch.take(np.array([0]))
    items = one.items.copy()
    items[0, 0] = item
    try:
        reward(one.with_items(items))
    except DataError:
        return True
    return False


def _unseen_law(unseen: list[Cases]) -> Law:
    held = np.concatenate([np.empty(0), *(cases.caught for cases in unseen)])
    who = np.concatenate([np.empty(0, np.int32), *(cases.user for cases in unseen)])
    return Law("unseen_defects", "defects that it was never trained on lower the page reward", rate(held, who), UNSEEN_LEAST)


def _each(held: F64) -> Rate:
    """A rate over cases that are all drawn on their own."""
    return rate(held, np.arange(len(held), dtype=np.int32))
