"""What a split says about itself: counts of its parts, its leaks, its file. Knows no protocol, only contexts and masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pagellm.data.whole_files import write_bytes
from pagellm.types import I64, Bool, Contexts, Interactions

CORE = 5
"""Events that a k-core filter leaves each user and item at least."""

CORE_SHARE = 0.999
"""A log is taken as filtered where this share of users and of items has `CORE` events: a few rows may have been lost since."""


def figures(contexts: Contexts, seen: Bool) -> dict[str, object]:
    """Counts of one part: contexts and users warm and cold, target events, targets on items that were never seen."""
    events = target_events(contexts)
    owner = np.repeat(np.arange(len(contexts)), contexts.target_stop - contexts.stop)
    unseen = ~seen[contexts.log.item[events]]
    warm = contexts.warm
    return {
        "contexts": len(contexts),
        "users": len(np.unique(contexts.user)),
        "warm_contexts": int(warm.sum()),
        "cold_contexts": int((~warm).sum()),
        "target_events": len(events),
        "target_events_of_warm": int(warm[owner].sum()),
        "target_events_on_unseen_items": int(unseen.sum()),
        "share_of_targets_on_unseen_items": round(float(unseen.mean()), 6) if len(events) else 0.0,
    }


def target_events(contexts: Contexts) -> I64:
    """Log places of all target events, context by context."""
    lengths = contexts.target_stop - contexts.stop
    shift = np.repeat(contexts.stop - np.concatenate(([0], np.cumsum(lengths)[:-1]))[: len(lengths)], lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) + shift


def core_share(log: Interactions) -> float:
    """The smaller share of users and of items that have at least `CORE` events, of those with any."""
    counts = (np.bincount(log.user, minlength=1), np.bincount(log.item, minlength=1))
    return min(float((c[c > 0] >= CORE).mean()) if c.any() else 0.0 for c in counts)


def core_note(log: Interactions, seen: Bool) -> dict[str, object]:
    """Whether the log looks filtered to 5 events a user and item over all time, which leaks under a cut in time."""
    share = core_share(log)
    note = f"at least {CORE} events a user and item over the whole span: an item unseen before the cut is sure to be taken later"
    return {
        "share_with_core": round(share, 6),
        "filtered": share > CORE_SHARE,
        "items_unseen_at_test": int((~seen).sum()),
        "note": note if share > CORE_SHARE else "no sign of a k-core filter over the whole span",
    }


def leak_note(log: Interactions, until_valid: Bool, end: I64) -> dict[str, object]:
    """What last-out sees of the future, measured. `end` [judged user]: one past the user's last event."""
    if len(end) == 0:
        return {"warning": "no user has three events: nothing is judged"}
    test, train = log.time[end - 1], log.time[until_valid]
    later = float((train > np.quantile(test, 0.1)).mean())
    tied = float((test == log.time[end - 2]).mean())
    return {
        "train_rows_later_than_first_test_event": round(float((train > test.min()).mean()), 6),
        "train_rows_later_than_first_tenth_of_test_events": round(later, 6),
        "users_whose_last_item_is_an_arbitrary_tie": round(tied, 6),
        "warning": (
            f"last-out leaks the future: {later:.1%} of the training rows are later than the first tenth of the test events, and "
            f"for {tied:.1%} of the users the last item is an arbitrary tie. Use --split temporal for figures that count."
        ),
    }


def save_card(card: dict[str, object], path: Path) -> None:
    """Writes the card as JSON: whole or not at all."""
    write_bytes(path, (json.dumps(card, indent=2, sort_keys=True) + "\n").encode())
