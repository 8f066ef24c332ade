"""Which users rewards and reinforcement learning never learn from, so that both can be judged on people they have not met."""

from __future__ import annotations

import zlib

import numpy as np

from pagellm.types import Bool

_BUCKETS = 10_000


def held_out_users(user_ids: np.ndarray, share: float) -> Bool:
    """[user] True for about this share of the users. An id decides by its hash, so a user stays on its side whatever the log holds."""
    buckets = [zlib.crc32(f"held out {user}".encode()) % _BUCKETS for user in user_ids.tolist()]
    return np.array(buckets, np.int64) < share * _BUCKETS
