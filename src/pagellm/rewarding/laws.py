"""Laws that any reward of ours must obey, and how often it does on pages of held-out users.

One table says what each law is and how often it must hold; one function a law says where it does, a chunk of pages at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from pagellm.data.look import Look
from pagellm.errors import DataError
from pagellm.evaluation.reward_checks import Cases, Law, rate
from pagellm.models.multi_grained import MultiGrainedReward, Scores
from pagellm.models.reward import FAMILIES
from pagellm.rewarding.judge import Judge
from pagellm.rewarding.readers import Beside, SeesDouble
from pagellm.rewarding.trial import Trial, consumed, doubled, exchanged, risen, twin_beside
from pagellm.types import F64, I32, I64, NO_ITEM, Bool, PageBatch

LAWS = {
    "duplicate_lowers": ("a second copy of an item lowers the page reward, and the reward of both grains", 0.95),
    "engaged_up_raises": ("moving an engaged item to a better place raises the item reward", 0.55),
    "equal_swap": ("where all places are looked at alike, exchanging two items changes nothing of what items are worth", 1.0),
    "equal_items": ("exchanging two items that nothing the reward reads can tell apart changes nothing", 1.0),
    "order_of_pages": ("other pages and their order change nothing", 1.0),
    "consumed_never_raises": ("putting in what the user already took does not raise the reward", 0.95),
    "order_of_candidates": ("which other candidates are read, and in what order, changes nothing of a page's reward", 1.0),
    "impossible_is_an_error": ("an item out of the catalog or hidden is an error, not a score", 1.0),
    "unseen_defects": ("defects that it was never trained on lower the page reward", 0.70),
}
"""Laws, what they say, and the least rate at which each must hold."""

_NOTHING_HIDDEN = "an item out of the catalog is an error, not a score (none of this catalog is hidden, so that was not tried)"
_ALIKE = Look(np.ones((1, 1)))
_READ_AGAIN = 64  # pages of a chunk that are read again among other candidates
_WITHIN = 1e-4  # of float32 sums over a page, relative to them where they are large

Held = tuple[F64, I64]
"""[case] 1 where a law holds, and the situation of each case."""


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
        if name == "impossible_is_an_error" and judge.reward.model.reader.allowed.all():
            says = _NOTHING_HIDDEN
        laws.append(Law(name, says, rate(held, who, judge.seed), least))
    return laws


def duplicate_lowers(trial: Trial) -> Held:
    """The later of two slots takes the item of the earlier."""
    items, can = trial.altered(doubled, 0)
    after, reward = trial.scored(items), trial.reward
    less = (_page(after) < _page(trial.scores)) & (reward.totals(after) < reward.totals(trial.scores))
    return _cases(less, can)


def engaged_up_raises(trial: Trial) -> Held:
    """An engaged item changes places with a seen one without engagement in a place that is looked at more."""
    items, can = trial.altered(risen, 1)
    return _cases(_item(trial.scored(items)) > _item(trial.scores), can)


def equal_swap(trial: Trial) -> Held:
    """Two items change places on a page whose places are all looked at alike: item reward, relevance and ranking stay as they are.

    Diversity and redundancy may change: they read what stands before what.
    """
    items, can = trial.altered(exchanged, 2)
    flat = replace(trial.reward.model, look=_ALIKE)
    before, after = (flat.scores(trial.batch.with_items(page), logged=True) for page in (trial.batch.items, items))
    same = _same(_item(after), _item(before))
    for name in ("relevance", "ranking"):
        one, other = (s.page[:, :, FAMILIES.index(name)].sum(1, dtype=np.float64).mean(1) for s in (before, after))
        same &= _same(one, other)
    return _cases(same, can)


def equal_items(trial: Trial) -> Held:
    """A slot takes the twin of another slot's item, both new to the user, and the reward sees each item as its twin: the page is worth the
    same whichever of the two stands where, slot by slot."""
    beside, can = trial.altered(twin_beside, 6)
    other, _ = trial.altered(partial(twin_beside, turned=True), 6)
    model = replace(trial.reward.model, reader=SeesDouble.of(trial.reward.model.reader))
    before, after = (model.scores(trial.batch.with_items(items), logged=True) for items in (beside, other))
    return _cases(_same_slots(after, before), can)


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
    items, can = trial.altered(consumed, 4)
    now, before = (trial.reward.totals(scores) for scores in (trial.scored(items), trial.scores))
    return _cases(now <= before + 1e-7, can)


def order_of_candidates(trial: Trial) -> Held:
    """Some pages are scored whose items are read among other candidates: as many as a context has and half as many, in drawn orders."""
    some = np.arange(min(len(trial.s), _READ_AGAIN))
    pool, batch, model = trial.s.pool[some], trial.batch.take(some), trial.reward.model
    rng = np.random.default_rng((int(trial.key[0]), 5))
    alone, same = model.scores(batch, logged=True), np.ones(len(some), bool)
    for count in (pool.shape[1], pool.shape[1] // 2):
        others = rng.permutation(np.unique(pool[pool != NO_ITEM]))[: max(1, count)]
        among = replace(model, reader=Beside.of(model.reader, others)).scores(batch, logged=True)
        same &= _same_slots(among, alone)
    return same.astype(np.float64), some


def impossible_is_an_error(trial: Trial) -> Held:
    """A page with an item out of the catalog is refused, and one with a hidden item where the catalog has any."""
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
        equal_items,
        order_of_pages,
        consumed_never_raises,
        order_of_candidates,
        impossible_is_an_error,
    )
}


def _cases(held: Bool, can: Bool) -> Held:
    return held[can].astype(np.float64), np.flatnonzero(can)


def _page(scores: Scores) -> F64:
    return np.asarray(scores.page_total.mean(1, dtype=np.float64), np.float64)


def _item(scores: Scores) -> F64:
    return np.asarray(scores.item.mean(2, dtype=np.float64).sum(1), np.float64)


def _same_slots(one: Scores, other: Scores) -> Bool:
    """[page] whether both rewards are the same in every slot."""
    page, item = _same(one.page, other.page).all((1, 2, 3)), _same(one.item, other.item).all((1, 2))
    return np.asarray(page & item & (one.base == other.base), bool)


def _same(one: np.ndarray, other: np.ndarray) -> Bool:
    return np.asarray(np.isclose(one, other, _WITHIN, _WITHIN), bool)


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
