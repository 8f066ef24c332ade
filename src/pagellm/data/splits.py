"""Which events may be fitted on, which contexts are judged, which items may be ranked: three protocols, one record.

Comes in: the interactions of a log. Goes out: a `Split` with a card that says in numbers what the protocol does and where
it is weak. Knows no model, no metric and no file but its own card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pagellm.data.contexts import ALWAYS, contexts_between, cut_time, first_of_user, orderless, user_starts
from pagellm.data.split_card import CORE, core_note, figures, leak_note
from pagellm.errors import DataError, RunError, UsageError
from pagellm.types import I64, Bool, Contexts, Interactions

PROTOCOLS = ("temporal", "last-out", "multivae")
LINEAGE_SEED = 98_765


@dataclass(frozen=True)
class Split:
    """One log cut into what is fitted, what choices are made on and what is judged once."""

    protocol: str  # one of PROTOCOLS
    log: Interactions  # the events in the order that the contexts index
    train: Contexts
    valid: Contexts
    test: Contexts
    fit_until_valid: Bool  # [event] what may be fitted on while choices are made on `valid`
    fit_until_test: Bool  # [event] what may be fitted on for the final figures
    candidates_valid: Bool  # [item] seen in what may be fitted: only these are ranked, a target outside counts as a miss
    candidates_test: Bool  # [item]
    point_in_time: bool  # whether a context's time parts past from future; False: only the fit masks do
    card: dict[str, object]  # JSON-able: the protocol in numbers

    def between_cuts(self) -> Contexts:
        """Warm contexts to learn weights of evidence on: every basket between the cuts under a split in time, else the valid part."""
        if not self.point_in_time:
            return self.valid.take(self.valid.warm)
        contexts = contexts_between(self.log, int(str(self.card["valid_cut"])), int(str(self.card["test_cut"])))
        return contexts.take(contexts.warm)


def make_split(
    log: Interactions, n_items: int, protocol: str = "temporal", seed: int = LINEAGE_SEED, cuts: tuple[float, float] = (0.8, 0.9)
) -> Split:
    """The split of this name; `seed` matters to `multivae` alone, `cuts` (valid_at, test_at) to `temporal` alone."""
    if protocol == "temporal":
        return temporal_split(log, n_items, *cuts)
    if protocol == "last-out":
        return last_out_split(log, n_items)
    if protocol == "multivae":
        return multivae_split(log, n_items, seed)
    raise UsageError(f"The split must be one of {', '.join(PROTOCOLS)}. Got {protocol!r}.")


def temporal_split(log: Interactions, n_items: int, valid_at: float = 0.8, test_at: float = 0.9) -> Split:
    """Global cuts in time: train before the first, choices between the two, figures after the second (the default).

    Targets of valid and test are each user's first basket in the window. Ties at a cut stand after it.
    """
    if not 0 < valid_at < test_at < 1:
        raise UsageError(f"The cuts must satisfy 0 < valid_at < test_at < 1. Got {valid_at} and {test_at}.")
    cuts = (cut_time(log, valid_at), cut_time(log, test_at))
    parts = (
        contexts_between(log, -ALWAYS, cuts[0]),
        first_of_user(contexts_between(log, cuts[0], cuts[1])),
        first_of_user(contexts_between(log, cuts[1], ALWAYS)),
    )
    fits = (log.time < cuts[0], log.time < cuts[1])
    extra: dict[str, object] = {
        "valid_at": valid_at,
        "test_at": test_at,
        "valid_cut": cuts[0],
        "test_cut": cuts[1],
        "target": "the user's first basket in the window",
        "ties": "an event at the very second of a cut stands after it; a basket is an unordered set",
        "baskets_without_order": int(orderless(log).sum()),
    }
    return _split("temporal", log, n_items, parts, fits, True, extra)


def last_out_split(log: Interactions, n_items: int) -> Split:
    """Each user's last event is the test target, the one before it the valid target. Leaks the future: see the card.

    Users with fewer than three events are trained on and never judged. Ties are broken by the log's order (item index).
    """
    starts = user_starts(log)
    judged = np.flatnonzero(np.diff(starts) >= 3)
    begin, end = starts[judged], starts[judged + 1]
    until_valid, until_test = np.ones(len(log), bool), np.ones(len(log), bool)
    until_valid[np.concatenate((end - 1, end - 2))] = False
    until_test[end - 1] = False
    targets = (_next_event(log, begin, end - 2), _next_event(log, begin, end - 1))
    parts = (_within(contexts_between(log, -ALWAYS, ALWAYS), until_valid), *targets)
    extra: dict[str, object] = {
        "target": "the user's last event (test), the one before it (valid)",
        "ties": "events of one second are ordered by item index: an arbitrary order",
        "users_too_short": int(log.users - len(judged)),
        **leak_note(log, until_valid, end),
    }
    return _split("last-out", log, n_items, parts, (until_valid, until_test), False, extra)


def multivae_split(log: Interactions, n_items: int, seed: int = LINEAGE_SEED) -> Split:
    """Rating > 3, iterative 5-core, then each user's items shuffled 80/10/10 with at least one valid and one test item.

    The protocol of Multi-VAE (Liang et al. 2018) as the page literature inherited it. It leaks the future and is kept for
    comparison only. The split's log holds the kept events in shuffled order: train items (a basket each), valid, test.
    """
    kept = log.where(_core(log, _liked(log)))
    if len(kept) == 0:
        raise DataError(
            f"The multivae split keeps no event: after rating > 3 no user and item are left with {CORE} events each "
            f"(of {len(log):,} events). Use --split temporal, or a larger log."
        )
    order = np.lexsort((np.random.default_rng(seed).random(len(kept)), kept.user))
    part, basket = _shares(kept.user[order])
    shuffled = Interactions(
        kept.user[order],
        kept.item[order],
        kept.time[order],
        basket,
        kept.event[order],
        kept.rating[order],
        kept.value[order],
        kept.user_ids,
    )
    fits = (part == 0, part <= 1)
    every = _every_basket(shuffled)
    parts = tuple(every.take(part[every.stop] == p) for p in range(3))
    extra: dict[str, object] = {
        "seed": seed,
        "rows_in": len(log),
        "rows_kept": len(kept),
        "users_kept": len(np.unique(kept.user)),
        "items_kept": len(np.unique(kept.item)),
        "target": "10 % of the user's shuffled items, at least one (valid, test)",
        "ties": "none: the order is drawn",
        "history_at_test": "training and validation items; in the lineage code training items alone",
        "warning": "shuffled in time: trains on what comes after what it is judged on; for comparison with older tables only",
    }
    return _split("multivae", shuffled, n_items, (parts[0], parts[1], parts[2]), fits, False, extra)


def split_from_card(log: Interactions, n_items: int, path: Path) -> Split:
    """Makes the saved split again and checks that it is the same to the number. Raises RunError where it is not."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        protocol, seed = str(card["protocol"]), int(card.get("seed", LINEAGE_SEED))
        cuts = float(card.get("valid_at", 0.8)), float(card.get("test_at", 0.9))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise RunError(f"The split card {path.name} cannot be read ({problem}). Train again to write a new one.") from problem
    split = make_split(log, n_items, protocol, seed, cuts)
    differing = [key for key in card if json.loads(json.dumps(split.card.get(key))) != card[key]]
    if differing:
        raise RunError(
            f"The split of this data differs from the saved one in: {', '.join(sorted(differing))}. "
            "The run was trained on other data. Name the data folder that it was trained on."
        )
    return split


def _split(
    protocol: str,
    log: Interactions,
    n_items: int,
    parts: tuple[Contexts, Contexts, Contexts],
    fits: tuple[Bool, Bool],
    point_in_time: bool,
    extra: dict[str, object],
) -> Split:
    seen_valid, seen_test = (_seen(log, fit, n_items) for fit in fits)
    card: dict[str, object] = {
        "protocol": protocol,
        "events": len(log),
        "items": n_items,
        "point_in_time": point_in_time,
        "fit_until_valid_events": int(fits[0].sum()),
        "fit_until_test_events": int(fits[1].sum()),
        "train": figures(parts[0], seen_valid),
        "valid": figures(parts[1], seen_valid),
        "test": figures(parts[2], seen_test),
        "candidates": "items seen in what may be fitted; a target outside counts as a miss",
        "candidates_valid": int(seen_valid.sum()),
        "candidates_test": int(seen_test.sum()),
        "core": core_note(log, seen_test),
        **extra,
    }
    return Split(protocol, log, *parts, *fits, seen_valid, seen_test, point_in_time, card)


def _seen(log: Interactions, fit: Bool, n_items: int) -> Bool:
    """[item] whether an item has an event among those that may be fitted."""
    return np.bincount(log.item[fit], minlength=n_items) > 0


def _next_event(log: Interactions, begin: I64, place: I64) -> Contexts:
    """Contexts whose target is the single event at `place`, after a history from `begin`. Shapes [context]."""
    return Contexts(log, begin, place, place + 1, log.user[place], log.time[place])


def _within(contexts: Contexts, allowed: Bool) -> Contexts:
    """The contexts with their targets cut to the events that may be fitted; those left without a target go."""
    before = np.concatenate(([0], np.cumsum(allowed)))
    length = before[contexts.target_stop] - before[contexts.stop]  # what is held out is the tail of a user's events
    cut = Contexts(contexts.log, contexts.start, contexts.stop, contexts.stop + length, contexts.user, contexts.time)
    return cut.take(length > 0)


def _every_basket(log: Interactions) -> Contexts:
    """Contexts on every basket, with a time past the log's end: in a shuffled log no moment parts past from future."""
    starts = user_starts(log)
    first = np.flatnonzero(np.concatenate(([True], (np.diff(log.user) != 0) | (np.diff(log.basket) != 0)))).astype(np.int64)
    user = log.user[first]
    time = np.full(len(first), int(log.time.max()) + 1, np.int64)
    return Contexts(log, starts[user], first, np.append(first[1:], len(log)).astype(np.int64), user, time)


def _liked(log: Interactions) -> Bool:
    """[event] rating > 3 where the log has ratings, and each user-item pair once (its first event)."""
    liked: NDArray[np.bool_] = np.isnan(log.rating) | (log.rating > 3)
    places = np.flatnonzero(liked)
    _, first = np.unique(np.stack((log.user[places], log.item[places])), axis=1, return_index=True)
    once = np.zeros(len(log), bool)
    once[places[first]] = True
    return once


def _core(log: Interactions, keep: Bool) -> Bool:
    """[event] what is left when users and items with fewer than five events are dropped until none is."""
    while True:
        users = np.bincount(log.user[keep], minlength=log.users)
        items = np.bincount(log.item[keep], minlength=int(log.item.max(initial=-1)) + 1)
        stays = keep & (users[log.user] >= CORE) & (items[log.item] >= CORE)
        if stays.sum() == keep.sum():
            return stays
        keep = stays


def _shares(user: NDArray[np.int32]) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """For events sorted by user: [event] part (0 train, 1 valid, 2 test) and basket (each train event its own)."""
    _, begin, count = np.unique(user, return_index=True, return_counts=True)
    held = np.maximum(1, count // 10)
    place = np.arange(len(user)) - np.repeat(begin, count)
    train = np.repeat(count - 2 * held, count)
    part = (place >= train).astype(np.int8) + (place >= train + np.repeat(held, count)).astype(np.int8)
    basket = np.where(part == 0, place, train + part - 1)
    return part.astype(np.int8), basket.astype(np.int32)
