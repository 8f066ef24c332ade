"""The records of a run folder as Parquet tables, and the way back. Knows which tables there are and checks what it reads: compiled
loops trust it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl

from pagellm.errors import RunError
from pagellm.types import Impressions, Interactions

_SLOT_FIELDS = ("item", "row", "col", "propensity", "viewed", "clicked", "carted", "purchased", "value")


def users_frame(log: Interactions) -> pl.DataFrame:
    """One row a user, in the order of their indexes; some may have no event."""
    return pl.DataFrame({"user_id": log.user_ids.tolist()}, schema={"user_id": pl.String})


def events_frame(log: Interactions) -> pl.DataFrame:
    """One row an event."""
    return pl.DataFrame(
        {
            "user": log.user,
            "item": log.item,
            "time": log.time,
            "basket": log.basket,
            "event": log.event,
            "rating": log.rating,
            "value": log.value,
        }
    )


def pages_frame(shown: Impressions) -> pl.DataFrame:
    """One row a page that was shown, with the number of its slots."""
    columns = {"page_id": shown.page_ids, "user": shown.user, "time": shown.time, "policy": shown.policy}
    return pl.DataFrame({**columns, "slots": np.diff(shown.offsets), "settled": shown.settled})


def slots_frame(shown: Impressions) -> pl.DataFrame:
    """One row a slot, in the order of the pages and in reading order within each."""
    return pl.DataFrame({name: getattr(shown, name) for name in _SLOT_FIELDS})


def read_events(users_path: Path, path: Path, n_items: int) -> Interactions:
    """The feedback as saved. Raises RunError for indexes that no log of these users and this catalog has."""
    ids, frame = read_table(users_path)["user_id"].to_numpy().astype(np.str_), read_table(path)
    user, places = frame["user"].to_numpy(), frame["item"].to_numpy()
    known = user.min(initial=0) >= 0 and user.max(initial=-1) < len(ids) and (np.diff(user) >= 0).all()
    if not (known and places.min(initial=0) >= 0 and places.max(initial=-1) < n_items):
        raise RunError(f"The events of this run do not fit its {len(ids):,} users and {n_items:,} items. Train it again.")
    item, time, basket, event, rating, value = (
        frame[n].to_numpy() for n in ("item", "time", "basket", "event", "rating", "value")
    )
    return Interactions(user, item, time, basket, event, rating, value, ids)


def read_impressions(pages_path: Path, slots_path: Path, log: Interactions, n_items: int) -> Impressions:
    """The pages as saved. Raises RunError where pages, slots, users and items do not fit each other."""
    pages, slots = read_table(pages_path), read_table(slots_path)
    user, item, sizes = pages["user"].to_numpy(), slots["item"].to_numpy(), pages["slots"].to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    fits = sizes.min(initial=0) >= 0 and offsets[-1] == len(slots)
    known = user.min(initial=0) >= 0 and user.max(initial=-1) < log.users
    if not (fits and known and item.min(initial=0) >= 0 and item.max(initial=-1) < n_items):
        raise RunError(f"The pages of this run do not fit its {log.users:,} users and {n_items:,} items. Train it again.")
    page_ids, policy = (pages[name].to_numpy().astype(np.str_) for name in ("page_id", "policy"))
    columns = {name: slots[name].to_numpy() for name in _SLOT_FIELDS}
    time = pages["time"].to_numpy()
    settled = pages["settled"].to_numpy() if "settled" in pages.columns else time  # older runs have none and read nothing of it
    return Impressions(page_ids, user, time, policy, offsets, **columns, settled=settled)


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet file. Raises RunError where it is missing or damaged."""
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise RunError(f"The file {path} cannot be read ({problem}). Copy it again, or train the run again.") from problem


def as_parquet(frame: pl.DataFrame) -> bytes:
    """The table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()
