"""What is known of each candidate when a page is asked for: co-occurrence, popularity, text, profile and, where pages were logged, what was
seen and clicked; all as of the context's time.

Takes a log and item vectors, gives one row of numbers a candidate. Training, test and service call the same function, and it reads
nothing at or after a context's time. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from pagellm.catalog import Catalog
from pagellm.data.click_rates import KINDS as RATES
from pagellm.data.click_rates import ClickCounts, click_evidence
from pagellm.data.cooccurrence import KINDS, Postings, build_postings, pair_evidence
from pagellm.data.popularity import WINDOWS_D, popularity_evidence
from pagellm.types import DAY, F32, I32, Bool, Contexts, Interactions

TEXT = ("last", "mean", "nearest", "nearest3")
"""Cosine of text vectors with the last item, with the faded mean of the history, with the nearest and the three nearest items."""

PROFILE = ("category_share", "brand_share", "history", "idle")
"""Share of the history in the candidate's category and brand; log(1 + events); log(1 + days since the last event)."""

IMPRESSIONS = "impressions"
"""The group that only a log of pages has."""

GROUPS: dict[str, tuple[str, ...]] = {
    "pairs": tuple(f"pairs_{kind}" for kind in KINDS),
    "popularity": (*(f"taken_{d}d" for d in WINDOWS_D), "taken_all", "age", "quiet"),
    "text": tuple(f"text_{kind}" for kind in TEXT),
    "profile": PROFILE,
    IMPRESSIONS: RATES,
}
"""Names of the columns of `Evidence.features`, by group, in order."""

NAMES: tuple[str, ...] = tuple(name for group, names in GROUPS.items() if group != IMPRESSIONS for name in names)
"""Columns of a log without pages; a log of pages has those of the impressions after them."""

_DEPTH = 30  # newest events of a history that text and profile look at
_FADE = 0.85  # weight of a history event, per event back from the newest
_PAIR_SCALE = 1_000.0  # brings co-occurrence, mostly between 1e-4 and 1e-1, into the bend of log(1 + x)


@dataclass(frozen=True)
class Evidence:
    """All that evidence is computed from. `postings` holds every event that may ever be known; a context reads its own past."""

    log: Interactions
    postings: Postings
    vectors: F32  # [item, dim] unit content vectors
    categories: I32  # [item] code of the leading category, -1 where unknown
    brands: I32  # [item]
    drop: tuple[str, ...] = ()  # groups whose columns stay zero, for ablations
    clicks: ClickCounts | None = None  # None for a log without pages, and for what reads nothing of them
    leaves: I32 | None = None  # [item] code of the last category, beside `clicks`

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of columns that there are."""
        return tuple(group for group in GROUPS if group != IMPRESSIONS or self.clicks is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(name for group in self.groups for name in GROUPS[group])

    def features(self, contexts: Contexts, pool: I32) -> F32:
        """Evidence for each candidate. Shape [context, candidate, len(names)]; zeros where the pool is empty (NO_ITEM)."""
        text, profile = self._history(contexts, pool)
        parts = [
            np.log1p(_PAIR_SCALE * pair_evidence(self.postings, contexts, pool)),
            popularity_evidence(self.postings, contexts.time, pool),
            text,
            profile,
        ]
        if self.clicks is not None and self.leaves is not None:
            parts.append(click_evidence(self.clicks, contexts, pool, (self.categories, self.leaves, self.brands)))
        features = np.concatenate(parts, axis=2)
        features[:, :, [name in self._dropped for name in self.names]] = 0
        return features

    @property
    def _dropped(self) -> set[str]:
        return {name for group in self.drop for name in GROUPS.get(group, ())}

    def tastes(self, contexts: Contexts) -> F32:
        """The faded mean of each history's content vectors. Shape [context, dim], zeros without history."""
        out = np.zeros((len(contexts), self.vectors.shape[1]), np.float32)
        _tastes(contexts.log.item, contexts.start, contexts.stop, self.vectors, out)
        return out

    def _history(self, contexts: Contexts, pool: I32) -> tuple[F32, F32]:
        text = np.zeros((*pool.shape, len(TEXT)), np.float32)
        profile = np.zeros((*pool.shape, len(PROFILE)), np.float32)
        spans = (contexts.log.item, contexts.log.time, contexts.start, contexts.stop, contexts.time)
        _compare(*spans, pool, self.vectors, self.categories, self.brands, text, profile)
        return text, profile


def build_evidence(
    catalog: Catalog,
    log: Interactions,
    vectors: F32,
    known: Bool | None = None,
    drop: tuple[str, ...] = (),
    clicks: ClickCounts | None = None,
) -> Evidence:
    """Evidence over a log. `known` [event] leaves out what may never be read, for splits in which time parts nothing; `clicks` are those of
    the log's pages."""
    return Evidence(
        log,
        build_postings(log, len(catalog), known),
        vectors,
        field_codes(catalog, ("main_category", "categories[0]")),
        field_codes(catalog, ("brand", "seller_id")),
        drop,
        clicks,
        None if clicks is None else leaf_codes(catalog),
    )


def leaf_codes(catalog: Catalog) -> I32:
    """Codes [item] of the last category of each item's path under its first one; of the leading category where there is but one."""
    leading = field_codes(catalog, ("main_category", "categories[0]"))
    if not catalog.has("categories") or not catalog.frame["categories"].dtype.is_nested():
        return leading
    last = catalog.codes("categories[-1]")[0].astype(np.int64)
    both = (leading.astype(np.int64) + 1) * (last.max(initial=0) + 2) + last
    codes = np.unique(both, return_inverse=True)[1].astype(np.int32)
    return np.where(last >= 0, codes, -1).astype(np.int32)


def field_codes(catalog: Catalog, names: tuple[str, ...]) -> I32:
    """Codes [item] of the first of these columns that the catalog has and that tells items apart, else all -1."""
    for name in names:
        if catalog.has(name.partition("[")[0]):
            codes, values = catalog.codes(name)
            if len(values) > 1:
                return codes
    return np.full(len(catalog), -1, np.int32)


@njit(cache=True, parallel=True)
def _tastes(item, start, stop, vectors, out):  # type: ignore[no-untyped-def]
    for c in prange(len(start)):
        weight, total = 1.0, 0.0
        for e in range(stop[c] - 1, max(start[c], stop[c] - _DEPTH) - 1, -1):
            for d in range(out.shape[1]):
                out[c, d] += np.float32(weight) * vectors[item[e], d]
            total += weight
            weight *= _FADE
        if total > 0:
            for d in range(out.shape[1]):
                out[c, d] /= np.float32(total)


@njit(cache=True, fastmath={"reassoc", "contract"})
def _cosines(vector: F32, history: F32, out: F32) -> None:
    """Products of one vector with each row, by hand: a BLAS called from parallel threads starts threads of its own."""
    for e in range(len(history)):
        total = np.float32(0)
        for d in range(len(vector)):
            total += vector[d] * history[e, d]
        out[e] = total


@njit(cache=True, parallel=True)
def _compare(item, time, start, stop, moment, pool, vectors, categories, brands, text, profile):  # type: ignore[no-untyped-def]
    dims = vectors.shape[1]
    for c in prange(len(start)):
        first = max(start[c], stop[c] - _DEPTH)
        n = stop[c] - first
        if n == 0:
            continue
        history = np.empty((n, dims), np.float32)
        for e in range(n):
            history[e] = vectors[item[first + e]]
        cosine = np.empty(n, np.float32)
        idle = np.log1p(max(moment[c] - time[stop[c] - 1], 0) / DAY)
        for a in range(pool.shape[1]):
            j = pool[c, a]
            if j < 0:
                continue
            _cosines(vectors[j], history, cosine)
            mean, total, weight, same_category, same_brand = 0.0, 0.0, 1.0, 0.0, 0.0
            top1, top2, top3 = -1.0, -1.0, -1.0
            for e in range(n - 1, -1, -1):
                s = cosine[e]
                mean += weight * s
                i = item[first + e]
                if categories[j] >= 0 and categories[i] == categories[j]:
                    same_category += weight
                if brands[j] >= 0 and brands[i] == brands[j]:
                    same_brand += weight
                total += weight
                weight *= _FADE
                if s > top1:
                    top1, top2, top3 = s, top1, top2
                elif s > top2:
                    top2, top3 = s, top2
                elif s > top3:
                    top3 = s
            three = top1 + (top2 if n > 1 else 0.0) + (top3 if n > 2 else 0.0)
            text[c, a, 0], text[c, a, 1], text[c, a, 2], text[c, a, 3] = cosine[n - 1], mean / total, top1, three / min(n, 3)
            profile[c, a, 0], profile[c, a, 1] = same_category / total, same_brand / total
            profile[c, a, 2], profile[c, a, 3] = np.log1p(stop[c] - start[c]), idle
