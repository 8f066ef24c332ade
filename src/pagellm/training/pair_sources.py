"""Where pairs come from: a run, whose policy brings hard negatives, or a bare log, whose channels do. Yields situations in chunks.

Takes records and a window of time; knows no family of pairs and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pagellm.catalog import Catalog
from pagellm.config import PairConfig, RunConfig
from pagellm.data.candidates import draw_pool
from pagellm.data.contexts import ALWAYS, contexts_between
from pagellm.data.evidence import Evidence
from pagellm.data.examination import Examination, estimate_examination
from pagellm.data.likeness import Likeness
from pagellm.data.preferences.mining import MiningReport, Recipe, mine
from pagellm.data.preferences.pairs import Pairs
from pagellm.data.preferences.situations import (
    Engaged,
    Situations,
    channel_logits,
    event_gain,
    from_baskets,
    from_pages,
    logged_contexts,
)
from pagellm.errors import DataError
from pagellm.models.composer import candidate_logits
from pagellm.models.run import Run
from pagellm.types import F32, I32, I64, Bool, Contexts, Impressions, Interactions

_CHUNK = 512  # contexts whose evidence is held at once

_WIDEN = "Widen the window: --from and --to of `pagellm pairs mine`, in training a smaller split.reward_at."

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
    since: I64  # [item] unix seconds, see `known_since`: what may be put onto the pages of later contexts
    users: Bool | None = None  # [user] whose feedback counts; everybody's where None
    flat: bool = False  # pages that are put together are drawn evenly from the pool, not as the policy would

    @property
    def allowed(self) -> Bool:
        """[item] what may be put onto a page at some time."""
        return self.since < ALWAYS

    def counts(self, user: I32) -> Bool:
        """[any] whether the feedback of each of these users counts."""
        return np.ones(len(user), bool) if self.users is None else self.users[user]


def known_since(log: Interactions, impressions: Impressions | None, catalog: Catalog) -> I64:
    """[item] unix seconds at which each was first taken or clicked on by anybody, or first shown where pages were logged.

    A context knows what is strictly older than its own time. ALWAYS for what never was, and for what may not be shown.
    """
    since = np.full(len(catalog), ALWAYS, np.int64)
    np.minimum.at(since, log.item, log.time)
    if impressions is not None:
        np.minimum.at(since, impressions.item, np.repeat(impressions.time, np.diff(impressions.offsets)))
    return np.where(catalog.shown, since, ALWAYS)


def policy_candidates(run: Run, since: I64) -> Candidates:
    """What the run's policy considers among what a context knows (`since` [item], see `known_since`), and what it thinks of it."""
    return lambda contexts: candidate_logits(run, contexts, run.catalog.shown, since)


def channel_candidates(evidence: Evidence, catalog: Catalog, config: RunConfig, since: I64) -> Candidates:
    """What the channels bring without a policy, ordered by co-occurrence and recent popularity; `since` as in `policy_candidates`."""
    shown = catalog.shown

    def draw(contexts: Contexts) -> tuple[I32, F32]:
        pool = draw_pool(evidence, contexts, config.candidates, shown, repeats=config.split.repeats, since=since)
        return pool, channel_logits(evidence, contexts, pool)

    return draw


@dataclass(frozen=True)
class Found:
    """What a window holds."""

    chunks: Iterator[Situations]
    engaged: Engaged
    examination: Examination | None  # of the log's pages; None where it has none

    @property
    def words(self) -> str:
        """Where chances of being seen come from."""
        if self.examination is None:
            return "nobody knows what was seen: all pairs of whole pages weigh the same"
        return examination_words(self.examination)


def examination_words(examination: Examination) -> str:
    """Where chances of being seen come from."""
    return f"{examination.source}: {examination.why}"


def situations(source: PairSource, slots: int, seed: int) -> Found:
    """The situations of the window, in chunks.

    Raises DataError where the window holds nothing that pairs could be made from.
    """
    shown = source.impressions
    if shown is not None:
        pages, looked = engaged_pages(shown, source)
        check_window(len(shown), looked, len(pages))
        before = pages_before(shown, source)
        examination = estimate_examination(before)
        return Found(page_situations(source, shown, pages, examination), engaged_on(shown, pages), examination)
    contexts = contexts_between(source.log, source.begin, source.end)
    baskets = len(contexts)
    contexts = contexts.take(contexts.warm & (contexts.target_stop > contexts.stop) & source.counts(contexts.user))
    if not len(contexts):
        raise DataError(
            f"None of the {baskets:,} baskets in the window (column timestamp) is of a user with a history (column user_id), so there is "
            f"nothing to mine. {_WIDEN}"
        )
    inside = (source.log.time < source.end) & (event_gain(source.log) > 0) & source.counts(source.log.user)
    engaged = Engaged(source.log.user[inside], source.log.item[inside], source.log.time[inside])
    return Found(_of_baskets(source, contexts, slots, seed), engaged, None)


def mine_source(
    source: PairSource, likeness: Likeness, config: PairConfig, seed: int, repeats: bool
) -> tuple[Pairs, MiningReport, Found]:
    """All pairs of a source, with what was found of who looks where. Raises DataError where no pair can be made."""
    found = situations(source, config.slots, seed)
    engaged = found.engaged.among(source.allowed).drawn(source.log.user_ids)
    twins = likeness.twins(config.near, source.allowed)
    recipe = Recipe(engaged, likeness, twins, config, seed, repeats, source.since)
    pairs, report = mine(found.chunks, recipe, found.words)
    check_found(len(pairs))
    return pairs, report, found


def check_found(pairs: int) -> None:
    """Raises DataError where no pair was found."""
    if not pairs:
        raise DataError(
            "No pair could be made: no engaged item of the window is among the candidates. Widen it, or look at the catalog."
        )


def _of_baskets(source: PairSource, contexts: Contexts, slots: int, seed: int) -> Iterator[Situations]:
    for begin in range(0, len(contexts), _CHUNK):
        some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
        pool, logits = source.candidates(some)
        yield from_baskets(some, pool, logits, slots, seed, source.flat)


def page_situations(source: PairSource, shown: Impressions, pages: I64, examination: Examination) -> Iterator[Situations]:
    """The situations of logged pages, in chunks."""
    every = logged_contexts(shown, source.log, pages)
    for begin in range(0, len(pages), _CHUNK):
        some = pages[begin : begin + _CHUNK]
        contexts = every.take(np.arange(begin, begin + len(some)))
        pool, logits = source.candidates(contexts)
        yield from_pages(shown, contexts, some, pool, logits, examination)


def engaged_on(shown: Impressions, pages: I64) -> Engaged:
    """Who engaged with what on these pages."""
    sizes = np.diff(shown.offsets)
    inside = np.repeat(np.isin(np.arange(len(shown)), pages), sizes) & shown.engaged
    return Engaged(np.repeat(shown.user, sizes)[inside], shown.item[inside], np.repeat(shown.time, sizes)[inside])


def pages_before(shown: Impressions, source: PairSource) -> Impressions:
    """The pages before the window's end of users who count, so that nothing later or of anybody else weighs in it."""
    pages = (shown.time < source.end) & source.counts(shown.user)
    return shown if pages.all() else shown.where(pages)


def engaged_pages(shown: Impressions, source: PairSource) -> tuple[I64, int]:
    """(the pages in the window with an engaged slot, how many with any slot the window holds)."""
    within = (shown.time >= source.begin) & (shown.time < source.end)
    inside = np.flatnonzero(within & (np.diff(shown.offsets) > 0) & source.counts(shown.user))
    so_far = np.concatenate([[0], np.cumsum(shown.engaged)])
    return inside[so_far[shown.offsets[inside + 1]] > so_far[shown.offsets[inside]]], len(inside)


def check_window(logged: int, pages: int, engaged: int) -> None:
    """Raises DataError where a window holds no page, or none with an engaged slot. `logged`: pages of the whole log."""
    if not pages:
        raise DataError(
            f"None of the {logged:,} logged pages lies in the window (column timestamp) and holds slots (column slots), so there is "
            f"nothing to mine. {_WIDEN}"
        )
    if not engaged:
        raise DataError(
            f"None of the {pages:,} pages in the window has an engaged slot: no select_item, add_to_cart or purchase (column event) names "
            f"one of them (column page_id) with an item on it (column item_id). Mend these columns of the events file. {_WIDEN}"
        )
