"""How well ranked items hit the items of a target basket. Takes integer arrays, gives one value a context; knows no model.

All measures and cut-offs come from one pass. Relevance is binary, a target basket is a set, and a target that cannot be ranked
stays in every denominator, so it counts as a miss. The definitions are those of trec_eval and ranx.
"""

from __future__ import annotations

import itertools

import numpy as np
from numba import njit

from pagellm.types import F64, I32, I64, NO_ITEM, Contexts

MEASURES = ("ndcg", "recall", "hit", "mrr", "map")
"""With h(r) = 1 where the item of rank r is a target, T distinct targets and cut-off k.

ndcg: sum over r <= k of h(r) / log2(r + 1), over the same sum for the ideal ranking, which has min(k, T) hits first
(Jarvelin & Kekalainen 2002). recall: hits up to k over T, not over min(k, T). hit: 1 where there is any hit up to k.
mrr: 1 / rank of the first hit up to k, else 0. map: sum over the hits up to k of hits(r) / r, over T.
"""

CUTS = (10, 20, 40, 100)


def accuracy(ranked: I32, contexts: Contexts, cuts: tuple[int, ...] = CUTS) -> dict[str, F64]:
    """Every measure at every cut-off, named as in `ndcg@10`: one array [context] each. `ranked` is [context, rank].

    A context without a target has 0 everywhere, as in ranx.
    """
    values = accuracy_of(ranked, contexts.log.item, contexts.stop, contexts.target_stop, cuts)
    return {f"{m}@{k}": values[:, c, j] for j, m in enumerate(MEASURES) for c, k in enumerate(cuts)}


def accuracy_of(ranked: I32, items: I32, start: I64, stop: I64, cuts: tuple[int, ...] = CUTS) -> F64:
    """The same on bare arrays: the targets of context c are `items[start[c]:stop[c]]`. Shape [context, cut, measure].

    `ranked` [context, rank] holds items best first, NO_ITEM where a ranking ends early. An item that stands twice hits once.
    Raises ValueError where cut-offs do not rise or shapes do not fit.
    """
    if ranked.ndim != 2 or not len(ranked) == len(start) == len(stop):
        raise ValueError(f"The ranked items must be [context, rank] with {len(start)} contexts. Got shape {ranked.shape}.")
    if not cuts or cuts[0] < 1 or any(a >= b for a, b in itertools.pairwise(cuts)):
        raise ValueError(f"The cut-offs must be rising positive numbers. Got {cuts}.")
    n_items = 1 + max(int(ranked.max(initial=NO_ITEM)), int(items.max(initial=NO_ITEM)))
    discount = 1.0 / np.log2(np.arange(2.0, cuts[-1] + 2.0))
    values: F64 = _one_pass(ranked, items, start, stop, np.array(cuts), discount, np.cumsum(discount), n_items)
    return values


@njit(cache=True)
def _one_pass(ranked, items, start, stop, cuts, discount, ideal, n_items):  # type: ignore[no-untyped-def]
    out = np.zeros((len(ranked), len(cuts), 5))
    wanted = np.zeros(n_items, np.int32)  # holds c + 1 where the item is a target of context c that was not hit yet
    for c in range(len(ranked)):
        targets = 0
        for e in range(start[c], stop[c]):
            targets += wanted[items[e]] != c + 1
            wanted[items[e]] = c + 1
        if targets == 0:
            continue
        hits, gain, precision, first, r = 0, 0.0, 0.0, 0.0, 0
        for j in range(len(cuts)):
            while r < min(cuts[j], ranked.shape[1]):
                item = ranked[c, r]
                if item >= 0 and wanted[item] == c + 1:
                    wanted[item] = 0
                    hits += 1
                    gain += discount[r]
                    precision += hits / (r + 1)
                    if hits == 1:
                        first = 1.0 / (r + 1)
                r += 1
            out[c, j, 0] = gain / ideal[min(targets, cuts[j]) - 1]
            out[c, j, 1] = hits / targets
            out[c, j, 2] = 1.0 if hits else 0.0
            out[c, j, 3] = first
            out[c, j, 4] = precision / targets
    return out
