"""Who judges rewards, and on what: pairs and pages of held-out users, scored by both rewards and by the reference policy.

Every page is of a held-out user and later than what policy and rewards learned from. Candidates and what stands in for others were known
before each context's own time; pages of the log and histories are as they were. Pages that are put together are drawn evenly from the
candidates here: beside items that the policy itself draws, an engaged item is no likelier to be wanted than they are, so nobody could tell
them apart for the right reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pagellm.data.cohorts import held_out_users
from pagellm.data.contexts import ALWAYS, contexts_between
from pagellm.data.preferences.held_out import Shelf, held_out_pairs
from pagellm.data.preferences.mining import Recipe, mine
from pagellm.data.preferences.pairs import Family, HeldOut, Operator, Pairs, join_pairs
from pagellm.data.preferences.situations import Engaged, Situations, keys_of, logged_contexts
from pagellm.errors import DataError, UsageError
from pagellm.evaluation.calibration import Calibration, calibration, calibration_by_place
from pagellm.evaluation.reward_checks import Cases
from pagellm.models.composer import PolicyRanker
from pagellm.models.multi_grained import MultiGrainedReward
from pagellm.models.run import Run
from pagellm.rewarding.sampling import MOST_PAGES, Sample, draw_users
from pagellm.training.pair_sources import PairSource, known_since, policy_candidates, situations
from pagellm.training.reward_modeling import pair_contexts
from pagellm.types import F32, F64, I32, NO_ITEM, PageBatch

WINDOWS = ("choices", "test")
"""Windows of time that rewards may be judged on: what choices are made on, or what figures come from, once."""

_NEVER = -30.0  # logit of what is not among the policy's candidates
_AT_ONCE = 20_000  # pairs whose pages are read and scored at once


def judged_source(run: Run, window: str) -> PairSource:
    """Feedback of held-out users in a window, candidates that were known before each context."""
    cuts = int(str(run.split.card["valid_cut"])), int(str(run.split.card["test_cut"]))
    begin, end = (cuts[0], cuts[1]) if window == "choices" else (cuts[1], ALWAYS)
    log = run.split.log
    since = known_since(log, run.impressions, run.catalog)
    users = held_out_users(log.user_ids, run.config.split.held_out)
    return PairSource(log, run.impressions, policy_candidates(run, since), begin, end, since, users, flat=True)


Logits = dict[tuple[int, int, int], tuple[I32, F32]]
"""Candidates and logits of situations, by user, time and page."""


@dataclass(frozen=True)
class Judge:
    """What is judged and with what."""

    run: Run
    reward: MultiGrainedReward
    source: PairSource
    chunks: list[Situations]
    engaged: Engaged
    seed: int
    sample: Sample

    def trained(self) -> list[Cases]:
        """Kinds of pairs that the rewards learned from."""
        return self._cases(self.trained_pairs(), list(Operator))

    def unseen(self) -> list[Cases]:
        """Held-out defects."""
        return self._cases(self.unseen_pairs(), list(HeldOut))

    def trained_pairs(self) -> Pairs:
        """Pairs of the kinds that the rewards learned from."""
        likeness, config = self.reward.model.reader.likeness, self.run.config
        twins = likeness.twins(config.pairs.near, self.source.allowed)
        repeats, since = config.split.repeats, self.source.since
        recipe = Recipe(self.engaged, likeness, twins, config.pairs, self.seed, repeats=repeats, since=since)
        return mine(self.chunks, recipe)[0]

    def unseen_pairs(self) -> Pairs:
        """Pairs of held-out defects."""
        log = self.source.log
        shelf = Shelf.of(self.reward.model.reader.likeness, self.source.since, log.item[log.time < self.source.begin])
        return join_pairs([held_out_pairs(s, keys_of(s, self.seed), shelf) for s in self.chunks])

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
        logits = self._logits()
        places = np.array_split(np.arange(len(pairs)), max(1, -(-len(pairs) // _AT_ONCE)))
        parts = [self._some_scores(pairs.take(some), logits) for some in places]
        own, whole, probe = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return own, whole, probe

    def _some_scores(self, pairs: Pairs, logits: Logits) -> tuple[F64, F64, F64]:
        contexts, place = pair_contexts(pairs, self.source.log)
        columns: list[list[F64]] = [[], [], []]
        swap = pairs.family == Family.SWAP
        for items in (pairs.chosen, pairs.rejected):
            batch = PageBatch(contexts, place, items, pairs.row, pairs.col)
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

    def _logits(self) -> Logits:
        """Candidates and logits of each situation, by user, time and page."""
        return {
            (int(u), int(t), int(p)): (pool, logits)
            for s in self.chunks
            for u, t, p, pool, logits in zip(s.contexts.user, s.contexts.time, s.page, s.pool, s.logits, strict=True)
        }

    def calibration(self) -> tuple[Calibration, Calibration]:
        """Predicted item reward of pages against what held-out users did with them: logged pages, else the policy's own best page.

        By tenth of the prediction, and by slot of the page.
        """
        shown, log = self.run.impressions, self.source.log
        rng = np.random.default_rng((self.seed, 10))
        most = 4 * self.run.config.reward.contexts
        if shown is not None:
            inside = (shown.time >= self.source.begin) & (shown.time < self.source.end) & self.source.counts(shown.user)
            pages = np.sort(rng.permutation(np.flatnonzero(inside))[:most])
            slot, filled = shown.slots_of(pages)
            items = np.where(filled & self.run.catalog.shown[shown.item[slot]], shown.item[slot], NO_ITEM).astype(np.int32)
            contexts = logged_contexts(shown, log, pages)
            batch = PageBatch(contexts, np.arange(len(pages)), items, shown.row[slot], shown.col[slot])
            happened = (shown.engaged[slot] & (items != NO_ITEM)).astype(np.float64)
        else:
            contexts = contexts_between(log, self.source.begin, self.source.end)
            contexts = contexts.take(contexts.warm & self.source.counts(contexts.user))
            contexts = contexts.take(np.sort(rng.permutation(len(contexts))[:most]))
            items = PolicyRanker(self.run, self.source.allowed, since=self.source.since).rank(
                contexts, self.run.config.pairs.slots
            )
            col = np.broadcast_to(np.arange(items.shape[1], dtype=np.int16), items.shape)
            batch = PageBatch(contexts, np.arange(len(contexts)), items, np.zeros_like(col), col)
            look = self.reward.model.look.of(items, batch.row, batch.col)
            taken = np.stack([np.isin(page, contexts.target(c)) for c, page in enumerate(items)])
            taken &= items != NO_ITEM
            happened = (look * taken).astype(np.float64)
        predicted = self.reward.model.scores(batch).item.mean(2, dtype=np.float64)
        by_place = calibration_by_place(predicted, happened, items != NO_ITEM, self.seed)
        return calibration(predicted.sum(1), happened.sum(1), self.seed), by_place


def judge_of(run: Run, reward: MultiGrainedReward, window: str, seed: int, most: int = MOST_PAGES) -> Judge:
    """The judge of a window, on at most so many pages: where there are more, users are drawn, each with all of theirs.

    Raises UsageError for an unknown window, DataError where no held-out user engaged with anything in it.
    """
    if window not in WINDOWS:
        raise UsageError(f"The window must be one of {', '.join(WINDOWS)}. Got {window!r}.")
    source = judged_source(run, window)
    sample = draw_users(source, most, seed)
    source = replace(source, users=sample.users)
    found = situations(source, run.config.pairs.slots, seed)
    chunks = [s.take(np.flatnonzero((s.gain > 0).any(1))) for s in found.chunks]
    chunks = [s for s in chunks if len(s)]
    if not chunks:
        raise DataError(
            f"No page of a held-out user in the window {window!r} has feedback. Hold out more: --set split.held_out=0.3"
        )
    return Judge(run, reward, source, chunks, found.engaged.among(source.allowed), seed, sample)


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
