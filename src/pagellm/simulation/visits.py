"""Who opens the shop when. Takes a spec and a seed, gives visits in order of time; knows no pages and no feedback.

A session is one to a few page views of one user, minutes apart. Sessions follow the hour of the day, the day of the week
and a slow growth of the shop; a few users visit often and many rarely; some join during the log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.simulation.counters import Purpose, normals, uniforms
from pagellm.simulation.spec import WorldSpec
from pagellm.types import DAY, F64, I32, I64

_HOUR_WEIGHT = np.array([3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 10, 9, 8, 8, 9, 11, 13, 15, 16, 14, 10, 6], np.float64)
_WEEKDAY_WEIGHT = np.array([1.0, 0.95, 0.95, 1.0, 1.05, 1.2, 1.35])  # from Monday: the world starts on one
PAGE_GAP_S = (180, 600)
"""Seconds between two pages of one session; all feedback on a page is given within the first of them."""


@dataclass(frozen=True, slots=True)
class Visits:
    """Page views in order of time. A visit's number is its place."""

    user: I32  # [visit]
    time: I64  # [visit] unix seconds
    session: I32  # [visit] number of the session, in order of its first page

    def __len__(self) -> int:
        return len(self.user)


def make_visits(spec: WorldSpec, seed: int) -> Visits:
    """Exactly `spec.pages` visits."""
    length = _session_lengths(spec, seed)
    sessions = len(length)
    who = _choose_users(spec, uniforms(seed, Purpose.VISIT, 1, sessions), seed)
    start = _start_times(spec, uniforms(seed, Purpose.VISIT, 2, sessions), _joined(spec, seed)[who])
    session = np.repeat(np.arange(sessions), length)
    gap = PAGE_GAP_S[0] + uniforms(seed, Purpose.VISIT, 3, spec.pages) * (PAGE_GAP_S[1] - PAGE_GAP_S[0])
    passed = np.cumsum(gap)
    first = np.concatenate([[0], np.cumsum(length)[:-1]])
    time = start[session] + (passed - passed[first][session])
    time = np.minimum(time.astype(np.int64), spec.end - 1)
    order = np.lexsort((session, time))
    _, inverse = np.unique(session[order], return_index=True)
    rank = np.empty(sessions, np.int32)
    rank[np.argsort(inverse, kind="stable")] = np.arange(sessions, dtype=np.int32)
    return Visits(who[session][order].astype(np.int32), time[order], rank[session[order]])


def _session_lengths(spec: WorldSpec, seed: int) -> I64:
    """[session] pages of each session, one to six, summing to `spec.pages`."""
    u = uniforms(seed, Purpose.VISIT, 0, spec.pages)
    length = np.minimum(1 + np.floor(np.log1p(-u) / np.log(0.5)), 6).astype(np.int64)
    count = int(np.searchsorted(np.cumsum(length), spec.pages)) + 1
    length = length[:count]
    length[-1] -= length.sum() - spec.pages
    return np.asarray(length, np.int64)


def _choose_users(spec: WorldSpec, u: F64, seed: int) -> I64:
    """[session] users in proportion to a log-normal activity."""
    activity = np.exp(0.9 * normals(seed, Purpose.ACTIVITY, 0, spec.users))
    total = np.cumsum(activity)
    return np.asarray(np.minimum(np.searchsorted(total, u * total[-1], side="right"), spec.users - 1), np.int64)


def _joined(spec: WorldSpec, seed: int) -> F64:
    """[user] share of the log that had passed when the user first came: 0 for most."""
    return np.asarray(np.maximum(0.0, uniforms(seed, Purpose.ACTIVITY, 1, spec.users) * 1.5 - 0.6), np.float64)


def _start_times(spec: WorldSpec, u: F64, joined: F64) -> F64:
    """[session] seconds, by the inverse of the traffic's running sum over hours, after the user has joined."""
    hour = np.arange(spec.days * 24)
    growth = 1.0 + 0.4 * hour / max(len(hour) - 1, 1)
    traffic = _HOUR_WEIGHT[hour % 24] * _WEEKDAY_WEIGHT[(hour // 24) % 7] * growth
    total = np.concatenate([[0.0], np.cumsum(traffic)])
    total /= total[-1]
    edge = np.arange(len(total)) * 3600.0
    begin = np.interp(joined * spec.days * DAY, edge, total)
    return np.asarray(spec.start + np.interp(begin + u * (1.0 - begin), total, edge), np.float64)
