"""Laws that any reward of ours must obey, and how often it does on pages of held-out users.

One table says what each law is and how often it must hold; one function a law says where it does, a chunk of pages at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pagellm.data.look import Look
from pagellm.data.preferences.situations import Situations, keys_of
from pagellm.errors import DataError
from pagellm.evaluation.reward_checks import Cases, Law, rate
from pagellm.models.multi_grained import MultiGrainedReward, Scores
from pagellm.models.reward import FAMILIES
from pagellm.rewarding.judge import Judge
from pagellm.types import F64, I32, I64, Bool, PageBatch

LAWS = {
    "duplicate_lowers": ("a second copy of an item lowers the page reward, and the reward of both grains", 0.95),
    "engaged_up_raises": ("moving an engaged item to a better place raises the item reward", 0.55),
    "equal_swap": ("where all places are looked at alike, exchanging two items changes nothing of what items are worth", 1.0),
    "order_of_pages": ("other pages and their order change nothing", 1.0),
    "consumed_never_raises": ("putting in what the user already took does not raise the reward", 0.95),
    "order_of_candidates": ("what is read of an item depends on no other candidate", 1.0),
    "impossible_is_an_error": ("an item out of the catalog or hidden is an error, not a score", 1.0),
    "unseen_defects": ("defects that it was never trained on lower the page reward", 0.70),
}
"""Laws, what they say, and the least rate at which each must hold."""

_ALIKE = Look(np.ones((1, 1)))
_READ_AGAIN = 64  # contexts of a chunk whose candidates are read a second time
_WITHIN = 1e-4  # of float32 sums over a page, relative to them where they are large

Held = tuple[F64, I64]
"""[case] 1 where a law holds, and the situation of each case."""


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


def laws_of(judge: Judge, unseen: list[Cases]) -> list[Law]:
    """Every law; `unseen` are the cases of held-out defects."""
    found: dict[str, list[tuple[F64, I32]]] = {name: [] for name in LAWS}
    for s in judge.chunks:
        trial = Trial.of(judge, s)
        for name, cases in _CASES.items():
            held, which = cases(trial)
            found[name].append((held, s.contexts.user[which]))
    found["unseen_defects"] = [(cases.caught, cases.user) for cases in unseen]
    laws = []
    for name, (says, least) in LAWS.items():
        held = np.concatenate([np.empty(0), *(h for h, _ in found[name])])
        who = np.concatenate([np.empty(0, np.int32), *(w for _, w in found[name])])
        laws.append(Law(name, says, rate(held, who, judge.seed), least))
    return laws


def batch_of(s: Situations) -> PageBatch:
    """The pages of situations, each for its own context."""
    return PageBatch(s.contexts, np.arange(len(s), dtype=np.int64), s.items, s.row.astype(np.int16), s.col.astype(np.int16))


def duplicate_lowers(trial: Trial) -> Held:
    """The later of two slots takes the item of the earlier."""
    items, can = trial.altered(_doubled, 0)
    after, reward = trial.scored(items), trial.reward
    less = (_page(after) < _page(trial.scores)) & (reward.totals(after) < reward.totals(trial.scores))
    return _cases(less, can)


def engaged_up_raises(trial: Trial) -> Held:
    """An engaged item changes places with a seen one without engagement in a place that is looked at more."""
    items, can = trial.altered(_risen, 1)
    return _cases(_item(trial.scored(items)) > _item(trial.scores), can)


def equal_swap(trial: Trial) -> Held:
    """Two items change places on a page whose places are all looked at alike: item reward, relevance and ranking stay as they are.

    Diversity and redundancy may change: they read what stands before what.
    """
    items, can = trial.altered(_exchanged, 2)
    flat = replace(trial.reward.model, look=_ALIKE)
    before, after = (flat.scores(trial.batch.with_items(page), logged=True) for page in (trial.batch.items, items))
    same = _same(_item(after), _item(before))
    for name in ("relevance", "ranking"):
        one, other = (s.page[:, :, FAMILIES.index(name)].sum(1, dtype=np.float64).mean(1) for s in (before, after))
        same &= _same(one, other)
    return _cases(same, can)


def order_of_pages(trial: Trial) -> Held:
    """Half of the pages in a drawn order are scored as among all of them."""
    size = len(trial.s)
    order = np.random.default_rng((int(trial.key[0]), 3)).permutation(size)[: max(1, size // 2)]
    alone = trial.reward.model.scores(trial.batch.take(order), logged=True)
    same = _same(_page(alone), _page(trial.scores)[order]) & _same(_item(alone), _item(trial.scores)[order])
    return same.astype(np.float64), order


def consumed_never_raises(trial: Trial) -> Held:
    """A slot without engagement takes what the user has. Where users take things again, the law does not apply."""
    if trial.repeats:
        return np.empty(0), np.empty(0, np.int64)
    items, can = trial.altered(_consumed, 4)
    now, before = (trial.reward.totals(scores) for scores in (trial.scored(items), trial.scores))
    return _cases(now <= before + 1e-7, can)


def order_of_candidates(trial: Trial) -> Held:
    """Half of the candidates in a drawn order are read as among all of them."""
    some = np.arange(min(len(trial.s), _READ_AGAIN))
    contexts, pool = trial.s.contexts.take(some), trial.s.pool[some]
    width = pool.shape[1]
    half = np.random.default_rng((int(trial.key[0]), 5)).permutation(width)[: max(1, width // 2)]
    reader = trial.reward.model.reader
    gap = np.abs(reader.features(contexts, pool[:, half]) - reader.features(contexts, pool)[:, half])
    return (gap.max((1, 2)) < _WITHIN).astype(np.float64), some


def impossible_is_an_error(trial: Trial) -> Held:
    """A page with an item out of the catalog, or a hidden one, is refused."""
    allowed = trial.reward.model.reader.allowed
    impossible = [len(allowed), -7, *np.flatnonzero(~allowed)[:1].tolist()]
    refused = np.array([_refuses(trial.reward, trial.batch, item) for item in impossible], np.float64)
    return refused, np.zeros(len(impossible), np.int64)


_CASES: dict[str, Callable[[Trial], Held]] = {
    law.__name__: law
    for law in (
        duplicate_lowers,
        engaged_up_raises,
        equal_swap,
        order_of_pages,
        consumed_never_raises,
        order_of_candidates,
        impossible_is_an_error,
    )
}


def _doubled(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
    out: I32 = trial.batch.items[p].copy()
    two = _two_slots(trial, p, rng)
    if two is None:
        return None
    out[max(two)] = out[min(two)]
    return out


def _exchanged(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
    out: I32 = trial.batch.items[p].copy()
    two = _two_slots(trial, p, rng)
    if two is None:
        return None
    out[list(two)] = out[list(two[::-1])]
    return out


def _two_slots(trial: Trial, p: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Two slots with different items, None where a drawn two have the same or there are none."""
    items = trial.batch.items[p]
    filled = np.flatnonzero(items >= 0)
    if len(filled) < 2:
        return None
    a, b = rng.choice(filled, 2, replace=False)
    return None if items[a] == items[b] else (int(a), int(b))


def _risen(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
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


def _consumed(trial: Trial, p: int, rng: np.random.Generator) -> I32 | None:
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


def _cases(held: Bool, can: Bool) -> Held:
    return held[can].astype(np.float64), np.flatnonzero(can)


def _page(scores: Scores) -> F64:
    return np.asarray(scores.page_total.mean(1, dtype=np.float64), np.float64)


def _item(scores: Scores) -> F64:
    return np.asarray(scores.item.mean(2, dtype=np.float64).sum(1), np.float64)


def _same(one: F64, other: F64) -> Bool:
    return np.isclose(one, other, _WITHIN, _WITHIN)


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
