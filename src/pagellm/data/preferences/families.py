"""The families of preference pairs: one function each makes one kind of defect, and says how bad it is.

Takes situations and keys for the draws, gives pairs. A slot that was not seen is never taken as refused. Knows no policy and no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.data.likeness import Likeness, Twins
from pagellm.data.preferences import fillings, kernels
from pagellm.data.preferences.pairs import Family, HeldOut, Operator, Pairs, join_pairs
from pagellm.data.preferences.situations import Engaged, Situations
from pagellm.types import F32, I16, I32, I64

_LARGEST_WEIGHT = 10.0  # of an inverse chance of being seen; clipping trades variance for bias (Ionides 2008)


@dataclass
class Made:
    """What a kernel fills: one candidate pair a context."""

    rejected: I32  # [context, slot]
    slot: I16  # [context] the engaged slot that the pair rests on, -1 where no pair could be made
    severity: F32  # [context]
    offset: F32  # [context] see `Pairs.offset`


def relevance(s: Situations, key: np.ndarray, engaged: Engaged) -> Pairs:
    """Engaged items give way to others at the same places; one pair an operator. Severity: the share of the engagement that is lost.

    An item of the target basket, of the history or of the page never stands in for another. `MATCHED` takes what the policy finds about
    as good as the engaged item, so that the policy's own opinion does not tell the two pages apart.
    """
    parts, drawn = [], np.bincount(engaged.item, minlength=int(max(s.items.max(initial=0), s.pool.max(initial=0))) + 1)
    for operator in (Operator.POLICY, Operator.MATCHED, Operator.CHANNEL, Operator.FOREIGN):
        made = blank(s)
        kernels.replace(
            *_history(s), s.items, s.gain, s.look, s.pool, s.logits, key, int(operator),
            s.contexts.user, s.contexts.time, engaged.user, engaged.time, engaged.item,
            drawn, made.rejected, made.slot, made.severity, made.offset,
        )  # fmt: skip
        parts.append(pairs_made(s, made, Family.RELEVANCE, operator))
    return join_pairs(parts)


def ranking(s: Situations, key: np.ndarray) -> Pairs:
    """Engaged items change places with seen ones of less engagement in less looked-at places.

    Severity: the loss of sum(gain · look) over that of the best order of the same items.
    """
    made = blank(s)
    kernels.move_down(s.items, s.gain, s.seen, s.look, s.drawn, key, made.rejected, made.slot, made.severity, made.offset)
    return pairs_made(s, made, Family.RANKING, Operator.DOWN)


def diversity(s: Situations, key: np.ndarray, vectors: F32, titles: F32, groups: I32, alike: float) -> Pairs:
    """Slots without engagement are filled with what is most like one item of the page, as relevant to the policy as what stood there.

    Severity: the loss of intra-page diversity, 1 - mean cosine of the page's items. `vectors` and `titles` [item, dim] are of unit length;
    a cosine of titles above `alike`, or one group [item] code, makes a near-duplicate, which is the business of redundancy.
    """
    made, text = blank(s), (vectors, titles, groups, alike)
    fillings.one_theme(*_history(s), s.items, s.gain, s.pool, s.logits, *text, key, made.rejected, made.slot, made.severity)
    return pairs_made(s, made, Family.DIVERSITY, Operator.THEME)


def redundancy(
    s: Situations, key: np.ndarray, likeness: Likeness, twins: Twins, repeats: bool = False, since: I64 | None = None
) -> Pairs:
    """Slots without engagement are filled with what the page or the user already has. Severity: the share of the page so filled.

    Twins stand in where they were known strictly before the context's time (`since` [item], unix seconds; from the start where None).
    `ALIKE` sets the page with near-duplicates beside one whose slots hold what is merely alike, so that likeness does not tell the two
    apart. Where users take things again (`repeats`), an item of the history is no defect.
    """
    since = np.full(len(twins.near), np.iinfo(np.int64).min) if since is None else since
    made = {
        operator: _refilled(s, key, likeness, twins.alike if operator == Operator.ALIKE else twins.near, since, operator)
        for operator in (Operator.NEAR_DUPLICATE, Operator.REPEAT, Operator.CONSUMED, Operator.ALIKE)
        if not (repeats and operator == Operator.CONSUMED)
    }
    alike, near = made.pop(Operator.ALIKE), made[Operator.NEAR_DUPLICATE]
    parts = [pairs_made(s, some, Family.REDUNDANCY, operator) for operator, some in made.items()]
    beside = Made(near.rejected, np.where(alike.slot >= 0, near.slot, np.int16(-1)), near.severity, near.offset)
    return join_pairs([*parts, pairs_made(s, beside, Family.REDUNDANCY, Operator.ALIKE, alike.rejected)])


def _refilled(s: Situations, key: np.ndarray, likeness: Likeness, twins: I32, since: I64, operator: Operator) -> Made:
    text, made, (item, start, stop, target_stop) = (likeness.titles, likeness.groups, likeness.alike), blank(s), _history(s)
    fillings.refill(
        item, s.contexts.log.taken, start, stop, target_stop, s.items, s.gain, twins, since, s.contexts.time, *text, key, int(operator),
        made.rejected, made.slot, made.severity,
    )  # fmt: skip
    return made


def swaps(s: Situations, key: np.ndarray, most: int) -> Pairs:
    """Two seen slots exchange their items; the page with the more engaging item in the better place is chosen. Up to `most` a context.

    Weight: |difference in gain| · |difference in look| (LambdaRank's, Burges 2010). Severity: the same over the page's best sum.
    """
    context, better, worse, weight = swap_slots(s, key, most)
    severity = weight / kernels.best_sums(s.gain, s.look)[context]
    shown, exchanged, every = s.items[context], s.items[context], np.arange(len(context))
    exchanged[every, better], exchanged[every, worse] = shown[every, worse], shown[every, better]
    kept = (s.look[context, better] > s.look[context, worse])[:, None]  # the page as shown is the better one
    chosen, rejected = np.where(kept, shown, exchanged), np.where(kept, exchanged, shown)
    bystander = s.gain[context, worse] == 0  # drawn onto the page; two engaged items are both there because they were engaged
    offset = np.where(bystander, s.drawn[context, worse] - s.drawn[context, better], 0)
    return _record(
        s,
        context.astype(np.int64),
        better.astype(np.int64),
        chosen,
        rejected,
        Family.SWAP,
        Operator.EXCHANGE,
        severity,
        weight,
        offset,
    )


def swap_slots(s: Situations, key: np.ndarray, most: int) -> tuple[I32, I16, I16, F32]:
    """(context, more engaging slot, less engaging slot, weight) of each swap. Shape [swap] each."""
    room = kernels.most_swaps(s.items, s.gain, s.seen, most)
    columns = [np.empty(room, kind) for kind in (np.int32, np.int16, np.int16, np.float32)]
    n = kernels.draw_swaps(s.items, s.gain, s.seen, s.look, key, most, *columns)
    context, better, worse, weight = (column[:n] for column in columns)
    return context, better, worse, weight


def inverse_look(look: F32) -> F32:
    """Inverse chances of being seen, clipped at ten: feedback from seldom seen places stands for what was not seen."""
    return np.minimum(1 / np.maximum(look, 1e-6), _LARGEST_WEIGHT).astype(np.float32)


def blank(s: Situations) -> Made:
    """Room for one pair a situation, none made yet."""
    return Made(s.items.copy(), np.full(len(s), -1, np.int16), np.zeros(len(s), np.float32), np.zeros(len(s), np.float32))


def _history(s: Situations) -> tuple[I32, I64, I64, I64]:
    c = s.contexts
    return c.log.item, c.start, c.stop, c.target_stop


def pairs_made(s: Situations, made: Made, family: Family, operator: Operator | HeldOut, chosen: I32 | None = None) -> Pairs:
    """The pairs that could be made; `chosen` [context, slot] are the better pages where they are not those of the situations.

    They weigh by the inverse chance that the engaged slot's place is seen, on logged pages; where pages were put together here, nothing was
    hidden.
    """
    chosen = s.items if chosen is None else chosen
    at = np.flatnonzero(made.slot >= 0)
    slot = made.slot[at].astype(np.int64)
    weight = np.where(s.page[at] >= 0, inverse_look(s.look[at, slot]), 1.0).astype(np.float32)
    return _record(s, at, slot, chosen[at], made.rejected[at], family, operator, made.severity[at], weight, made.offset[at])


def _record(
    s: Situations,
    at: I64,
    slot: I64,
    chosen: I32,
    rejected: I32,
    family: Family,
    operator: Operator | HeldOut,
    severity: F32,
    weight: F32,
    offset: np.ndarray,
) -> Pairs:
    n = len(at)
    return Pairs(
        s.contexts.user[at],
        s.contexts.time[at],
        s.page[at],
        chosen,
        rejected,
        s.row[at],
        s.col[at],
        np.full(n, family, np.int8),
        np.full(n, operator, np.int8),
        np.minimum(severity, 1.0),
        weight,
        s.items[at, slot],
        s.event[at, slot],
        s.gain[at, slot],
        offset.astype(np.float32),
    )
