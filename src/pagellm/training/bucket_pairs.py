"""Pairs of a log of pages that does not fit into memory: mined one bucket of users after the other, as the whole log would be.

Takes `LogBuckets`, gives `PairParts`. What is global is counted over all buckets first: who looks where, how often items were seen,
what others engaged with. Popularity and co-occurrence come from the users with the lowest keys, `EVIDENCE_EVENTS` events of them at
most: in a log with fewer, from everybody, and the pairs are those of `mine_source`. Knows no files of the shop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pagellm.config import RunConfig
from pagellm.data.contexts import ALWAYS, user_starts
from pagellm.data.evidence import build_evidence
from pagellm.data.examination import PlaceCounts, count_places, examination_of
from pagellm.data.likeness import Likeness
from pagellm.data.log_buckets import LogBuckets
from pagellm.data.lots import id_keys
from pagellm.data.preferences.mining import MiningReport, Recipe, find_pairs
from pagellm.data.preferences.pair_parts import PairParts
from pagellm.data.preferences.situations import MOST_ENGAGED, Engaged
from pagellm.training.pair_sources import (
    Candidates,
    PairSource,
    channel_candidates,
    check_found,
    check_window,
    engaged_on,
    engaged_pages,
    examination_words,
    known_since,
    page_situations,
    pages_before,
)
from pagellm.types import F32, I32, I64, U64, Bool, Contexts, Impressions, Interactions

EVIDENCE_EVENTS = 300_000
"""Events of histories that popularity and co-occurrence are counted in. A postings list holds up to 60 entries of 13 bytes an event."""


@dataclass(frozen=True)
class Acts:
    """Who engaged with what, the users as keys of their ids: a sample of all buckets', in the order of lots."""

    who: U64  # [engagement]
    item: I32  # [engagement]
    time: I64  # [engagement]
    lot: U64  # [engagement]

    def plus(self, engaged: Engaged, user_keys: U64) -> Acts:
        """With those of another bucket, `MOST_ENGAGED` at most."""
        who = user_keys[engaged.user]
        lot = np.concatenate((self.lot, engaged.lots(who)))
        order = np.argsort(lot, kind="stable")[:MOST_ENGAGED]
        item, time = np.concatenate((self.item, engaged.item)), np.concatenate((self.time, engaged.time))
        return Acts(np.concatenate((self.who, who))[order], item[order], time[order], lot[order])

    @staticmethod
    def none() -> Acts:
        """No engagement."""
        return Acts(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.uint64))

    def seen_by(self, user_keys: U64) -> Engaged:
        """As a bucket with these users sees it: users of other buckets are -1, nobody that it knows."""
        order = np.argsort(user_keys)
        at = order[np.minimum(np.searchsorted(user_keys, self.who, sorter=order), len(order) - 1)]
        return Engaged(np.where(user_keys[at] == self.who, at, -1).astype(np.int32), self.item, self.time)


@dataclass(frozen=True)
class Survey:
    """What mining takes from all buckets together."""

    counts: PlaceCounts  # of the pages before the window's end
    acts: Acts  # of the window
    known: Interactions  # what evidence is counted in
    since: I64  # [item] unix seconds, see `known_since`
    complete: bool  # whether that is all of the log


def mine_buckets(
    buckets: LogBuckets, window: tuple[int, int], content: F32, likeness: Likeness, config: RunConfig, seed: int, parts: PairParts
) -> MiningReport:
    """Mines all buckets into the parts. `window` is the times between which feedback is mined, `content` [item, dim] the vectors of items.

    Raises DataError where the window holds nothing that pairs could be made from.
    """
    catalog = buckets.catalog
    survey = survey_buckets(buckets, window)
    examination = examination_of(survey.counts, lambda: _pages_before(buckets, window))
    evidence = build_evidence(catalog, survey.known, content, None, config.candidates.drop)
    candidates = channel_candidates(evidence, catalog, config, survey.since)
    report = MiningReport(examination=examination_words(examination))
    twins = likeness.twins(config.pairs.near, survey.since < ALWAYS)
    if not survey.complete:
        report.examination += f"; candidates from {len(survey.known):,} events of {survey.known.users:,} users drawn from all"
    for source in _sources(buckets, window, survey.since, candidates):
        shown = source.impressions
        assert shown is not None
        pages, _ = engaged_pages(shown, source)
        if not len(pages):
            continue
        acts, chunks = survey.acts.seen_by(id_keys(source.log.user_ids)), page_situations(source, shown, pages, examination)
        recipe = Recipe(acts, likeness, twins, config.pairs, seed, config.split.repeats, survey.since)
        found, who = find_pairs(chunks, recipe, report)
        parts.add(found, who, source.log.user_ids, shown.page_ids)
    check_found(parts.found)
    return report


def survey_buckets(buckets: LogBuckets, window: tuple[int, int]) -> Survey:
    """One reading of all buckets. Raises DataError where the window holds no engaged page."""
    counts: PlaceCounts | None = None
    known: list[Interactions] = []
    room, logged, looked, engaged = EVIDENCE_EVENTS, 0, 0, 0
    acts, complete, allowed = Acts.none(), True, buckets.catalog.shown
    since = np.full(len(buckets.catalog), ALWAYS, np.int64)
    for source in _sources(buckets, window, since):
        since = np.minimum(since, known_since(source.log, source.impressions, buckets.catalog))
        shown, keys = source.impressions, id_keys(source.log.user_ids)
        assert shown is not None
        some = count_places(pages_before(shown, source))
        counts = some if counts is None else counts.plus(some)
        pages, within = engaged_pages(shown, source)
        logged, looked, engaged = logged + len(shown), looked + within, engaged + len(pages)
        acts = acts.plus(engaged_on(shown, pages).among(allowed), keys)
        if complete:
            taken = first_users(source.log, keys, room)
            complete = bool(taken.all())
            known.append(source.log.where(taken))
            room -= int(taken.sum())
    check_window(logged, looked, engaged)
    assert counts is not None
    return Survey(counts, acts, join_users(known), since, complete)


def first_users(log: Interactions, keys: U64, room: int) -> Bool:
    """[event] the events of the users with the lowest keys, as many whole users as have `room` events together."""
    order = np.argsort(keys, kind="stable")
    sizes = np.diff(user_starts(log))
    taken = np.zeros(log.users, bool)
    taken[order] = np.cumsum(sizes[order]) <= room
    return taken[log.user]


def join_users(logs: list[Interactions]) -> Interactions:
    """One log of all users of several, none of whom is in two. Users without events are left out."""
    ids = [log.user_ids[np.unique(log.user)] for log in logs]
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    rank = np.empty(len(every), np.int32)
    rank[order] = np.arange(len(every), dtype=np.int32)
    begin = np.cumsum([0, *(len(i) for i in ids)])
    user = np.concatenate([rank[at + np.unique(log.user, return_inverse=True)[1]] for at, log in zip(begin, logs, strict=False)])
    by_user = np.argsort(user, kind="stable")
    names = ("item", "time", "basket", "event", "rating", "value")
    columns = {name: np.concatenate([getattr(log, name) for log in logs])[by_user] for name in names}
    return Interactions(user=user[by_user], **columns, user_ids=every[order])


def _pages_before(buckets: LogBuckets, window: tuple[int, int]) -> Iterator[Impressions]:
    """Each bucket's pages before the window's end."""
    for source in _sources(buckets, window, np.full(len(buckets.catalog), ALWAYS, np.int64)):
        assert source.impressions is not None
        yield pages_before(source.impressions, source)


def _sources(
    buckets: LogBuckets, window: tuple[int, int], since: I64, candidates: Candidates | None = None
) -> Iterator[PairSource]:
    """Each bucket's records as a source of pairs."""

    def none(contexts: Contexts) -> tuple[I32, F32]:
        raise AssertionError("Surveys draw no candidates.")

    for log, shown in buckets:
        yield PairSource(log, shown, candidates or none, *window, since)
