"""A little shop with users who like one theme, for tests of models. Everything is drawn from a seed."""

from __future__ import annotations

import numpy as np
import polars as pl

from pagellm.catalog import Catalog
from pagellm.types import DAY, Event, Interactions

THEMES = ("tea", "bread", "cheese", "soap")


def small_catalog(items: int = 40) -> Catalog:
    """Items of four themes; the title says which."""
    words = ("green", "dark", "soft", "old", "fresh", "mild", "sweet", "dry", "fine", "plain")
    theme = [THEMES[i % 4] for i in range(items)]
    return Catalog(
        pl.DataFrame(
            {
                "item_id": [f"i{i}" for i in range(items)],
                "title": [f"{words[i // 4 % 10]} {t} number {i}" for i, t in enumerate(theme)],
                "categories": [[t] for t in theme],
                "brand": [f"brand {i % 3}" for i in range(items)],
            }
        )
    )


def small_log(users: int = 60, items: int = 40, seed: int = 0) -> Interactions:
    """Each user takes 3 to 9 baskets of one or two items, four out of five of the favorite theme, over 200 days."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, int]] = []
    for user in range(users):
        days = np.sort(rng.choice(200, rng.integers(3, 10), replace=False))
        for basket, day in enumerate(days):
            for item in rng.choice(items // 4, rng.integers(1, 3), replace=False):
                theme = user % 4 if rng.random() < 0.8 else rng.integers(4)
                rows.append((user, int(1.5e9) + int(day) * DAY, basket, int(item) * 4 + int(theme)))
    rows.sort()
    user, time, basket, item = (np.array(column) for column in zip(*rows, strict=True))
    missing = np.full(len(user), np.nan, np.float32)
    return Interactions(
        user.astype(np.int32),
        item.astype(np.int32),
        time.astype(np.int64),
        basket.astype(np.int32),
        np.full(len(user), Event.INTERACTION, np.int8),
        missing,
        missing,
        np.array([f"u{u}" for u in range(users)]),
    )
