"""Which items are considered for a context: the union of several channels, each as of the context's time.

Takes evidence, contexts and what may be shown; gives a pool of fixed width. Knows no model: what the policy itself would bring comes in
as an argument.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pagellm.config import CandidateConfig
from pagellm.data.cooccurrence import pair_candidates
from pagellm.data.evidence import Evidence
from pagellm.data.popularity import popular_candidates
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Contexts

_CHUNK = 1_024  # contexts whose text scores over the whole catalog are held at once


def draw_pool(
    evidence: Evidence,
    contexts: Contexts,
    config: CandidateConfig,
    allowed: Bool,
    extra: I32 | None = None,
    repeats: bool = False,
    since: I64 | None = None,
) -> I32:
    """The candidates of each context, rising, NO_ITEM at the end. Shape [context, candidate].

    `allowed` [item] says what may be shown at all; `extra` [context, any] adds the policy's own favorites; without `repeats` what
    the context's user has taken is left out. `since` [item], unix seconds, leaves out what was not known strictly before
    the context's time.
    """
    channels = _popular(evidence, contexts, config, allowed) + ([] if extra is None else [extra])
    if config.pairs and "pairs" not in config.drop:
        channels.append(pair_candidates(evidence.postings, contexts, config.pairs, allowed))
    if config.text and "text" not in config.drop:
        channels.append(nearest(evidence.vectors, evidence.tastes(contexts), config.text, allowed))
    if not channels:
        return np.full((len(contexts), 1), NO_ITEM, np.int32)
    return unite(np.concatenate(channels, axis=1), contexts, allowed, repeats, since)


def nearest(vectors: F32, queries: F32, k: int, allowed: Bool) -> I32:
    """The k allowed items whose vectors have the largest product with each query. Shape [context, k], NO_ITEM for empty queries."""
    places = np.flatnonzero(allowed)
    k = min(k, len(places))
    out = np.full((len(queries), k), NO_ITEM, np.int32)
    asked = np.flatnonzero(np.abs(queries).sum(axis=1) > 0)
    some = np.ascontiguousarray(vectors[places].T)
    for begin in range(0, len(asked), _CHUNK):
        chunk = asked[begin : begin + _CHUNK]
        scores = queries[chunk] @ some
        out[chunk] = places[np.argpartition(-scores, k - 1, axis=1)[:, :k]] if 0 < k < len(places) else places[None, :k]
    return out


def unite(drawn: I32, contexts: Contexts, allowed: Bool, repeats: bool, since: I64 | None = None) -> I32:
    """Each row's allowed items once, rising, what the user took left out unless `repeats`; as narrow as the widest row needs.

    `since` [item] as in `draw_pool`.
    """
    out = np.full(drawn.shape, NO_ITEM, np.int32)
    since = np.full(len(allowed), np.iinfo(np.int64).min) if since is None else since
    log, past = contexts.log, (contexts.start, contexts.stop, contexts.time)
    width = _unite(drawn, log.item, log.taken, *past, allowed, since, repeats, out)
    return np.ascontiguousarray(out[:, : max(int(width.max(initial=0)), 1)])


def _popular(evidence: Evidence, contexts: Contexts, config: CandidateConfig, allowed: Bool) -> list[I32]:
    recent = ((1.0, config.popular_1d), (7.0, config.popular_7d), (30.0, config.popular_30d), (90.0, config.popular_90d))
    kinds: list[tuple[float | None, int]] = [(None, config.popular_all)]
    if "popularity" not in config.drop:
        kinds += recent
    return [popular_candidates(evidence.postings, contexts.time, days, k, allowed) for days, k in kinds if k]


@njit(cache=True, parallel=True)
def _unite(drawn, item, taken, start, stop, time, allowed, since, repeats, out):  # type: ignore[no-untyped-def]
    width = np.zeros(len(drawn), np.int64)
    for c in prange(len(drawn)):
        row = np.unique(drawn[c])
        history = np.unique(item[start[c] : stop[c]][taken[start[c] : stop[c]]])
        n = 0
        for j in row:
            if j < 0 or not allowed[j] or since[j] >= time[c]:
                continue
            if not repeats:
                at = np.searchsorted(history, j)
                if at < len(history) and history[at] == j:
                    continue
            out[c, n] = j
            n += 1
        width[c] = n
    return width
