"""Where pairs come from: a run, whose policy brings hard negatives, or a bare log, whose channels do. Yields situations in chunks.

Takes records and a window of time; knows no family of pairs and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pagellm.catalog import Catalog
from pagellm.config import RunConfig
from pagellm.data.candidates import draw_pool
from pagellm.data.contexts import contexts_between
from pagellm.data.evidence import Evidence
from pagellm.data.examination import Examination, estimate_examination
from pagellm.data.preferences.situations import Situations, channel_logits, from_baskets, from_pages, logged_contexts
from pagellm.errors import DataError
from pagellm.models.composer import candidate_logits
from pagellm.models.run import Run
from pagellm.types import F32, I32, Bool, Contexts, Impressions, Interactions

_CHUNK = 512  # contexts whose evidence is held at once

Candidates = Callable[[Contexts], tuple[I32, F32]]
"""Gives contexts their candidates and logits, [context, candidate] both."""


@dataclass(frozen=True)
class PairSource:
    """All that pairs of a window of time are made from."""

    log: Interactions
    impressions: Impressions | None
    candidates: Candidates
    begin: int  # unix seconds, inclusive
    end: int  # exclusive


def policy_candidates(run: Run) -> Candidates:
    """What the run's policy considers, and what it thinks of it."""
    shown = visible(run.catalog)
    return lambda contexts: candidate_logits(run, contexts, shown)


def channel_candidates(evidence: Evidence, catalog: Catalog, config: RunConfig) -> Candidates:
    """What the channels bring without a policy, ordered by co-occurrence and recent popularity."""
    shown = visible(catalog)

    def draw(contexts: Contexts) -> tuple[I32, F32]:
        pool = draw_pool(evidence, contexts, config.candidates, shown, repeats=config.split.repeats)
        return pool, channel_logits(evidence, contexts, pool)

    return draw


def visible(catalog: Catalog) -> Bool:
    """[item] what may be shown: all but hidden items."""
    if not catalog.has("hidden"):
        return np.ones(len(catalog), bool)
    return ~catalog.frame["hidden"].cast(bool, strict=False).fill_null(False).to_numpy()


def situations(source: PairSource, slots: int, seed: int) -> tuple[Iterator[Situations], str]:
    """The situations of the window, in chunks, and in words where chances of being seen come from.

    Raises DataError where the window holds nothing that pairs could be made from.
    """
    if source.impressions is None:
        return _of_baskets(source, slots, seed), "nobody knows what was seen: every pair weighs the same"
    examination = estimate_examination(source.impressions)
    return _of_pages(source, source.impressions, examination), f"{examination.source}: {examination.why}"


def _of_baskets(source: PairSource, slots: int, seed: int) -> Iterator[Situations]:
    contexts = contexts_between(source.log, source.begin, source.end)
    contexts = contexts.take(contexts.warm & (contexts.target_stop > contexts.stop))
    if not len(contexts):
        raise DataError("The window holds no basket of a user with a history, so there is nothing to mine. Widen it.")
    for begin in range(0, len(contexts), _CHUNK):
        some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
        pool, logits = source.candidates(some)
        yield from_baskets(some, pool, logits, slots, seed)


def _of_pages(source: PairSource, shown: Impressions, examination: Examination) -> Iterator[Situations]:
    inside = np.flatnonzero((shown.time >= source.begin) & (shown.time < source.end) & (np.diff(shown.offsets) > 0))
    if not len(inside):
        raise DataError("The window holds no page with slots, so there is nothing to mine. Widen it.")
    engaged = np.concatenate([[0], np.cumsum(shown.clicked | shown.carted | shown.purchased)])
    pages = inside[engaged[shown.offsets[inside + 1]] > engaged[shown.offsets[inside]]]
    if not len(pages):
        raise DataError(
            f"None of the {len(inside):,} pages in the window has an engaged slot. Check the events file, or widen it."
        )
    for begin in range(0, len(pages), _CHUNK):
        some = pages[begin : begin + _CHUNK]
        contexts = logged_contexts(shown, source.log, some)
        pool, logits = source.candidates(contexts)
        yield from_pages(shown, contexts, some, pool, logits, examination)
