"""What `pagellm rewards check` does, without the command line: rewards of a run on users they have not met.

Takes a run folder, gives figures. Every page is of a held-out user and later than what policy and rewards learned from. Candidates and what
stands in for others were known before the window; pages of the log and histories are as they were. Pages that are put together are drawn
evenly from the candidates here: beside items that the policy itself draws, an engaged item is no likelier to be wanted than they are, so
nobody could tell them apart for the right reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pagellm.data.cohorts import held_out_users
from pagellm.data.contexts import ALWAYS, contexts_at, contexts_between
from pagellm.data.preferences.held_out import Shelf, held_out_pairs
from pagellm.data.preferences.mining import mine
from pagellm.data.preferences.pairs import Family, HeldOut, Operator, Pairs, join_pairs
from pagellm.data.preferences.situations import Engaged, Situations, keys_of
from pagellm.errors import DataError, UsageError
from pagellm.evaluation.reward_checks import (
    Calibration,
    Cases,
    Law,
    PairAccuracy,
    Rate,
    calibration,
    pair_accuracy,
    pool_cases,
    rate,
)
from pagellm.models.multi_grained import MultiGrainedReward
from pagellm.models.reward_files import RewardFacts, load_rewards
from pagellm.models.run import Run, load_run
from pagellm.pipeline import set_threads
from pagellm.training.pair_sources import PairSource, known_before, policy_candidates, situations
from pagellm.types import F32, F64, I32, I64, NO_ITEM, PageBatch

WINDOWS = ("choices", "test")
"""Windows of time that rewards may be judged on: what choices are made on, or what figures come from, once."""

UNSEEN_LEAST = 0.7
"""Least rate at which defects that were never trained on must be caught."""

_NEVER = -30.0  # logit of what is not among the policy's candidates


@dataclass(frozen=True)
class RewardCheck:
    """All figures on one window."""

    run: str
    window: str
    laws: list[Law]
    trained: list[PairAccuracy]  # kinds of pairs that the rewards learned from
    unseen: list[PairAccuracy]  # kinds that they never saw
    calibration: Calibration
    facts: RewardFacts
    cases: list[Cases]  # of `trained`, for whoever pools seeds
    unseen_cases: list[Cases]

    @property
    def broken(self) -> list[Law]:
        """Laws that do not hold."""
        return [law for law in self.laws if not law.holds]

    def as_json(self) -> dict[str, Any]:
        """The form of `pagellm rewards check --json`."""
        accuracy = {name: self._family_json(name) for name in (family.name.lower() for family in Family)}
        return {
            "run": self.run,
            "window": self.window,
            "laws": {law.name: law.as_json() for law in self.laws},
            "pair_accuracy": accuracy,
            "calibration": self.calibration.as_json(),
        }

    def _family_json(self, family: str) -> dict[str, Any]:
        """Rates over all kinds of pairs of a family, each with those of its kinds.

        By the family's own score on pairs like those that it learned from, by the whole reward on unseen defects, and by the policy's
        log-probability alone on both.
        """
        known, new = ([c for c in cases if c.family == family] for cases in (self.cases, self.unseen_cases))
        out: dict[str, Any] = {}
        for column, cases, score in (
            ("held_out_users", known, "reward"),
            ("unseen_operators", new, "whole"),
            ("reference_logprob_probe", known, "probe"),
            ("reference_logprob_probe_unseen", new, "probe"),
        ):
            if cases:
                kinds = {c.kind: getattr(pair_accuracy(c), score).as_json() for c in cases}
                out[column] = getattr(pair_accuracy(pool_cases(cases)), score).as_json() | {"kinds": kinds}
        return out


def check_rewards(folder: Path, window: str = "choices", seed: int = 0, tell: Callable[[str], None] = print) -> RewardCheck:
    """Judges the rewards of a run. Raises RunError where it has none, UsageError for an unknown window, DataError for an empty one."""
    if window not in WINDOWS:
        raise UsageError(f"The window must be one of {', '.join(WINDOWS)}. Got {window!r}.")
    run = load_run(folder)
    set_threads(run.config)
    reward, facts = load_rewards(run)
    tell(f"Judging on held-out users, {window}")
    source = judged_source(run, window)
    found = situations(source, run.config.pairs.slots, seed)
    chunks = [s.take(np.flatnonzero((s.gain > 0).any(1))) for s in found.chunks]
    chunks = [s for s in chunks if len(s)]
    if not chunks:
        raise DataError(
            f"No page of a held-out user in the window {window!r} has feedback. Hold out more: --set split.held_out=0.3"
        )
    judge = Judge(run, reward, source, chunks, found.engaged.among(source.allowed), seed)
    tell(f"{sum(len(s) for s in chunks):,} pages with feedback")
    trained, unseen = judge.trained(), judge.unseen()
    laws = [*judge.laws(), _unseen_law(unseen)]
    known, new = ([pair_accuracy(cases, seed) for cases in kinds] for kinds in (trained, unseen))
    return RewardCheck(folder.name, window, laws, known, new, judge.calibration(), facts, trained, unseen)


def judged_source(run: Run, window: str) -> PairSource:
    """Feedback of held-out users in a window, candidates that were known before it."""
    cuts = int(str(run.split.card["valid_cut"])), int(str(run.split.card["test_cut"]))
    begin, end = (cuts[0], cuts[1]) if window == "choices" else (cuts[1], ALWAYS)
    log = run.split.log
    known = known_before(log, run.catalog, begin)
    users = held_out_users(log.user_ids, run.config.split.held_out)
    return PairSource(log, run.impressions, policy_candidates(run, known), begin, end, known, users, flat=True)


@dataclass(frozen=True)
class Judge:
    """What is judged and with what."""

    run: Run
    reward: MultiGrainedReward
    source: PairSource
    chunks: list[Situations]
    engaged: Engaged
    seed: int

    def trained(self) -> list[Cases]:
        """Kinds of pairs that the rewards learned from."""
        likeness, config = self.reward.model.reader.likeness, self.run.config
        near = likeness.near(config.pairs.near, self.source.allowed)
        pairs, _ = mine(self.chunks, self.engaged, likeness, near, config.pairs, self.seed, repeats=config.split.repeats)
        return self._cases(pairs, list(Operator))

    def unseen(self) -> list[Cases]:
        """Held-out defects."""
        log = self.source.log
        shelf = Shelf.of(self.reward.model.reader.likeness, self.source.allowed, log.item[log.time < self.source.begin])
        pairs = join_pairs([held_out_pairs(s, keys_of(s, self.seed), shelf) for s in self.chunks])
        return self._cases(pairs, list(HeldOut))

    def _cases(self, pairs: Pairs, kinds: list[Operator] | list[HeldOut]) -> list[Cases]:
        out, scores = [], self._scores(pairs)
        for kind in kinds:
            some = np.flatnonzero(pairs.operator == kind)
            if len(some):
                family = Family(int(pairs.family[some[0]])).name.lower()
                out.append(Cases(kind.name.lower(), family, pairs.user[some], *(column[some] for column in scores)))
        return out

    def _scores(self, pairs: Pairs) -> tuple[F64, F64, F64]:
        """(score by the pair's own family, by the whole reward, by the reference policy), [pair, 2] each: chosen and rejected."""
        unique, place = np.unique(np.stack([pairs.user.astype(np.int64), pairs.time], 1), axis=0, return_inverse=True)
        contexts = contexts_at(self.source.log, unique[:, 0].astype(np.int32), unique[:, 1])
        columns: list[list[F64]] = [[], [], []]
        swap = pairs.family == Family.SWAP
        logits = self._logits()
        for items in (pairs.chosen, pairs.rejected):
            batch = PageBatch(contexts, place.ravel().astype(np.int64), items, pairs.row, pairs.col)
            scores = self.reward.model.scores(batch, logged=True)
            families = scores.page.mean(3, dtype=np.float64).sum(1)  # [page, family]
            item = scores.item.mean(2, dtype=np.float64).sum(1)
            own = np.where(swap, item, families[np.arange(len(items)), np.minimum(pairs.family, 3)])
            columns[0].append(own)
            columns[1].append(np.where(swap, item, families.sum(1)))
            who = zip(pairs.user, pairs.time, pairs.page, items, strict=True)
            columns[2].append(np.array([_log_prob(logits[int(u), int(t), int(p)], page) for u, t, p, page in who]))
        own, whole, probe = (np.stack(c, 1) for c in columns)
        return own, whole, probe

    def _logits(self) -> dict[tuple[int, int, int], tuple[I32, F32]]:
        """Candidates and logits of each situation, by user, time and page."""
        return {
            (int(u), int(t), int(p)): (pool, logits)
            for s in self.chunks
            for u, t, p, pool, logits in zip(s.contexts.user, s.contexts.time, s.page, s.pool, s.logits, strict=True)
        }

    def laws(self) -> list[Law]:
        """Every law but that of unseen defects."""
        rng = np.random.default_rng((self.seed, 9))
        batches = [_batch(s) for s in self.chunks]
        found: dict[str, list[tuple[F64, I32]]] = {name: [] for name in _LAWS}
        for s, batch in zip(self.chunks, batches, strict=True):
            for name, (held, which) in _laws_of(self.reward, s, batch, rng, self.run.config.split.repeats).items():
                found[name].append((held, s.contexts.user[which]))
        laws = []
        for name, (says, tolerance) in _LAWS.items():
            held = np.concatenate([np.empty(0), *(h for h, _ in found[name])])
            who = np.concatenate([np.empty(0, np.int32), *(w for _, w in found[name])])
            laws.append(Law(name, says, rate(held, who, self.seed), tolerance))
        first = self.chunks[0]
        turned = rng.permutation(first.pool.shape[1])
        reader = self.reward.model.reader
        gap = np.abs(
            reader.features(first.contexts, first.pool[:, turned]) - reader.features(first.contexts, first.pool)[:, turned]
        )
        same = (gap.max((1, 2)) < 1e-4).astype(np.float64)
        laws.append(
            Law(
                "order_of_candidates",
                "what is read of an item depends on no other candidate",
                rate(same, first.contexts.user),
                1.0,
            )
        )
        refused = np.array([_refuses(self.reward, batches[0], item) for item in self._impossible()], np.float64)
        says = "an item out of the catalog or hidden is an error, not a score"
        laws.append(Law("impossible_is_an_error", says, _each(refused), 1.0))
        return laws

    def _impossible(self) -> list[int]:
        hidden = np.flatnonzero(~self.run.catalog.shown)
        return [len(self.run.catalog), -7, *hidden[:1].tolist()]

    def calibration(self) -> Calibration:
        """Predicted item reward of pages against what held-out users did with them: logged pages, else the policy's own best page."""
        shown, log = self.run.impressions, self.source.log
        rng = np.random.default_rng((self.seed, 10))
        most = 4 * self.run.config.reward.contexts
        if shown is not None:
            assert self.source.users is not None
            inside = (shown.time >= self.source.begin) & (shown.time < self.source.end) & self.source.users[shown.user]
            pages = np.sort(rng.permutation(np.flatnonzero(inside))[:most])
            width = int(np.diff(shown.offsets)[pages].max(initial=1))
            filled = np.arange(width) < np.diff(shown.offsets)[pages][:, None]
            slot = np.where(filled, shown.offsets[pages][:, None] + np.arange(width), 0)
            items = np.where(filled & self.run.catalog.shown[shown.item[slot]], shown.item[slot], NO_ITEM).astype(np.int32)
            contexts = contexts_at(log, shown.user[pages], shown.time[pages])
            batch = PageBatch(contexts, np.arange(len(pages)), items, shown.row[slot], shown.col[slot])
            happened = ((shown.clicked | shown.carted | shown.purchased)[slot] & (items != NO_ITEM)).sum(1).astype(np.float64)
        else:
            contexts = contexts_between(log, self.source.begin, self.source.end)
            assert self.source.users is not None
            contexts = contexts.take(contexts.warm & self.source.users[contexts.user])
            contexts = contexts.take(np.sort(rng.permutation(len(contexts))[:most]))
            items = np.full((len(contexts), self.run.config.pairs.slots), NO_ITEM, np.int32)
            for begin in range(0, len(contexts), 512):
                some = contexts.take(np.arange(begin, min(begin + 512, len(contexts))))
                pool, logits = self.source.candidates(some)
                best = np.argsort(-logits, axis=1, kind="stable")[:, : items.shape[1]]
                items[begin : begin + len(some), : best.shape[1]] = np.take_along_axis(pool, best, 1)
            col = np.broadcast_to(np.arange(items.shape[1], dtype=np.int16), items.shape)
            batch = PageBatch(contexts, np.arange(len(contexts)), items, np.zeros_like(col), col)
            look = self.reward.model.look.of(items, batch.row, batch.col)
            taken = np.stack([np.isin(page, contexts.target(c)) for c, page in enumerate(items)])
            taken &= items != NO_ITEM
            happened = (look * taken).sum(1, dtype=np.float64)
        predicted = self.reward.model.scores(batch).item.mean(2, dtype=np.float64).sum(1)
        return calibration(predicted, happened, self.seed)


def _log_prob(candidates: tuple[I32, F32], page: I32) -> float:
    """Log-probability of a page under the reference policy: slot by slot, without what already stands on it (Plackett-Luce)."""
    pool, logits = candidates
    order = np.argsort(pool, kind="stable")
    at = np.searchsorted(pool[order], page[page != NO_ITEM]).clip(0, len(pool) - 1)
    match = pool[order][at] == page[page != NO_ITEM]
    top = float(logits.max())
    chosen = np.where(match, logits[order][at] - top, _NEVER).astype(np.float64)
    items = page[page != NO_ITEM]
    again = np.array([item in items[:s] for s, item in enumerate(items)], bool)
    chosen[again] = _NEVER  # the policy writes no item twice
    mass = np.where(again, 0.0, np.exp(chosen))
    left = np.exp(logits.astype(np.float64) - top).sum() - np.concatenate([[0], np.cumsum(mass)[:-1]])
    return float((chosen - np.log(np.maximum(left, 1e-12))).sum())


_LAWS = {
    "duplicate_lowers": ("a second copy of an item lowers the page reward, and the reward of both grains", 0.95),
    "engaged_up_raises": ("moving an engaged item to a better place raises the item reward", 0.55),
    "equal_swap": ("exchanging two copies of one item changes nothing", 1.0),
    "order_of_pages": ("other pages and their order change nothing", 1.0),
    "consumed_never_raises": ("putting in what the user already took does not raise the reward", 0.95),
}
"""Laws, what they say, and the least rate at which each must hold."""


def _laws_of(
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
    less = (after < page) & (reward(batch.with_items(twice), logged=True).sum(1) < reward(batch, logged=True).sum(1))
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
        now = reward(batch.with_items(consumed), logged=True).sum(1, dtype=np.float64)
        before = reward(batch, logged=True).sum(1, dtype=np.float64)
        out["consumed_never_raises"] = (now <= before + 1e-7)[can_consume].astype(np.float64), every[can_consume]
    return out


def _batch(s: Situations) -> PageBatch:
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
