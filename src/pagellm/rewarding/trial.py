"""Pages of held-out users on trial: scored once for all laws, and altered as a law needs them.

Takes a judge's situations, gives pages with other items at the same places. Knows no law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pagellm.data.preferences.situations import Situations, keys_of
from pagellm.models.multi_grained import MultiGrainedReward, Scores
from pagellm.rewarding.judge import Judge
from pagellm.types import I32, NO_ITEM, Bool, PageBatch


@dataclass(frozen=True)
class Trial:
    """Pages of held-out users, scored once for all laws."""

    reward: MultiGrainedReward
    s: Situations
    batch: PageBatch
    scores: Scores
    key: np.ndarray  # [page] what all draws of a page follow from
    repeats: bool  # whether users take things again

    @classmethod
    def of(cls, judge: Judge, s: Situations) -> Trial:
        """The trial of some situations."""
        batch = batch_of(s)
        scores = judge.reward.model.scores(batch, logged=True)
        return cls(judge.reward, s, batch, scores, keys_of(s, judge.seed), judge.run.config.split.repeats)

    def altered(self, alter: Alter, law: int) -> tuple[I32, Bool]:
        """(pages as a law alters them, whether each could be); a page's draws are its own and the law's."""
        items, can = self.batch.items.copy(), np.zeros(len(self.s), bool)
        for p in range(len(self.s)):
            page = alter(self, p, np.random.default_rng((int(self.key[p]), law)))
            if page is not None:
                items[p], can[p] = page, True
        return items, can

    def scored(self, items: I32) -> Scores:
        """What the rewards find of other items at the same places."""
        return self.reward.model.scores(self.batch.with_items(items), logged=True)


Alter = Callable[[Trial, int, np.random.Generator], "I32 | None"]
"""Gives the altered page's items [slot], None where a page offers no room for it."""


def batch_of(s: Situations) -> PageBatch:
    """The pages of situations, each for its own context."""
    return PageBatch(s.contexts, np.arange(len(s), dtype=np.int64), s.items, s.row.astype(np.int16), s.col.astype(np.int16))


def doubled(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
    """The later of two slots has the item of the earlier."""
    out: I32 = trial.batch.items[p].copy()
    two = _two_slots(trial, p, rng)
    if two is None:
        return None
    out[max(two)] = out[min(two)]
    return out


def exchanged(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
    """Two slots have each other's items."""
    out: I32 = trial.batch.items[p].copy()
    two = _two_slots(trial, p, rng)
    if two is None:
        return None
    out[list(two)] = out[list(two[::-1])]
    return out


def risen(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
    """An engaged item has changed places with a seen one without engagement in a place that is looked at more."""
    s = trial.s
    out: I32 = trial.batch.items[p].copy()
    filled = np.flatnonzero(out >= 0)
    free = [t for t in filled[s.gain[p, filled] == 0] if s.seen[p, t] >= 0.5]
    low = [[e, t] for e in filled[s.gain[p, filled] > 0] for t in free if s.look[p, t] > s.look[p, e]]
    if not low:
        return None
    two = low[rng.integers(len(low))]
    out[two] = out[two[::-1]]
    return out


def consumed(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
    """A slot without engagement has what the user took before."""
    contexts = trial.s.contexts
    out: I32 = trial.batch.items[p].copy()
    past = slice(contexts.start[p], contexts.stop[p])
    owned = np.setdiff1d(contexts.log.item[past][contexts.log.taken[past]], out)
    owned = owned[trial.reward.model.reader.allowed[owned]]
    free = np.flatnonzero((out >= 0) & (trial.s.gain[p] == 0))
    if not len(owned) or not len(free) or (out >= 0).sum() < 2:
        return None
    out[rng.choice(free)] = rng.choice(owned)
    return out


def twin_beside(trial: Trial, p: int, rng: np.random.Generator, turned: bool = False) -> I32 | None:
    """Beside an item that is new to the user, another slot has its twin (see `first_of_two`); `turned`: the other way round."""
    out: I32 = trial.batch.items[p].copy()
    known = np.concatenate((out, trial.s.contexts.history(p)))
    twin = out ^ 1  # of NO_ITEM -2, which nothing is
    alone = np.array([(known == item).sum() == 1 for item in out], bool)
    fit = np.flatnonzero((out >= 0) & alone & (twin < len(trial.reward.model.reader.allowed)) & ~np.isin(twin, known))
    if not len(fit) or (out >= 0).sum() < 2:
        return None
    a = rng.choice(fit)
    b = rng.choice(np.flatnonzero((out >= 0) & (np.arange(len(out)) != a)))
    out[b] = twin[a]
    if turned:
        out[[a, b]] = out[[b, a]]
    return out


def first_of_two(items: I32) -> I32:
    """Items 0 and 1, 2 and 3, ... are twins: both as the first of them. NO_ITEM stays."""
    return np.where(items == NO_ITEM, items, items & ~1)


def _two_slots(trial: Trial, p: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Two slots with different items, None where a drawn two have the same or there are none."""
    items = trial.batch.items[p]
    filled = np.flatnonzero(items >= 0)
    if len(filled) < 2:
        return None
    a, b = rng.choice(filled, 2, replace=False)
    return None if items[a] == items[b] else (int(a), int(b))
