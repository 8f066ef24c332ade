"""A simulated shop on disk: the data folder of the contract, and beside it the truth that readers of the data ignore.

Takes a world and its log, gives `items`, `users`, `impressions`, `events` (Parquet), `layout.toml` and `truth/`. Knows no
reader: what is written here is read as any shop's data is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pagellm.errors import RunError, UsageError
from pagellm.simulation.counters import Purpose, uniforms
from pagellm.simulation.demo_layout import layout_toml, row_ids
from pagellm.simulation.feedback import CARTED, CLICKED, PURCHASED, VIEWED
from pagellm.simulation.logging_policies import POLICIES
from pagellm.simulation.people import MOBILE
from pagellm.simulation.shop_log import ShopLog
from pagellm.simulation.spec import WorldSpec, spec_from_json
from pagellm.simulation.world import World
from pagellm.types import I32, I64

_COUNTRIES = (("DE", "de", 0.45), ("AT", "de", 0.6), ("NL", "nl", 0.75), ("FR", "fr", 0.9), ("SE", "sv", 1.0))
_STEPS = ((CLICKED, "select_item", 2), (CARTED, "add_to_cart", 15), (PURCHASED, "purchase", 75))
"""Bit, event and seconds after the slot was looked at."""
_READING_S = 60  # from the first slot to the last


def write_world(world: World, log: ShopLog, out: Path) -> None:
    """Writes the data folder. It appears whole or not at all; raises UsageError if `out` exists and is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty. Name a new folder, or remove this one.")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "truth").mkdir(parents=True)
    world.shop.items.write_parquet(partial / "items.parquet")
    user_table(world).write_parquet(partial / "users.parquet")
    impression_table(world, log).write_parquet(partial / "impressions.parquet")
    event_table(world, log).write_parquet(partial / "events.parquet")
    (partial / "layout.toml").write_text(layout_toml(world.spec), encoding="utf-8")
    _write_truth(world, log, partial / "truth")
    if out.exists():
        out.rmdir()
    partial.rename(out)


def load_world(folder: Path) -> World:
    """The world behind a data folder that `write_world` wrote. Raises RunError if it has none, or another."""
    path = folder / "truth" / "world.json"
    if not path.is_file():
        raise RunError(
            f"{folder} has no truth/world.json: it holds no simulated shop. Name a folder that `simulate world` wrote."
        )
    saved = json.loads(path.read_text(encoding="utf-8"))
    world = World.make(spec_from_json(saved["spec"]), saved["seed"])
    if fingerprint(world) != saved["fingerprint"]:
        raise RunError(
            f"{folder} was written by another version of the simulation: its world cannot be rebuilt. Simulate it anew."
        )
    return world


def load_truth(folder: Path) -> dict[str, NDArray[np.generic]]:
    """What the log was made from: user, time, policy [page], items [page, slot], owned [page, memory]; pages in log order."""
    return dict(load_file(folder / "truth" / "log.safetensors"))


def fingerprint(world: World) -> str:
    """SHA-256 over what defines the shop's items: equal worlds, equal fingerprint."""
    digest = hashlib.sha256()
    for part in (world.shop.traits["theme"], world.shop.traits["group"], world.shop.price, world.shop.launch):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def user_table(world: World) -> pl.DataFrame:
    """users: one row a user of the spec."""
    users = np.arange(world.spec.users, dtype=np.int32)
    start = np.full(len(users), world.spec.start, np.int64)
    device = world.users_at(users, start).device
    place = np.searchsorted([c[2] for c in _COUNTRIES], uniforms(world.seed, Purpose.PROFILE, 0, len(users)), side="right")
    return pl.DataFrame(
        {
            "user_id": user_ids(users),
            "device": np.where(device == MOBILE, "mobile", "desktop").tolist(),
            "country": [_COUNTRIES[c][0] for c in place],
            "language": [_COUNTRIES[c][1] for c in place],
        }
    )


def user_ids(users: I32) -> pl.Series:
    """Ids as in the log."""
    return pl.select(pl.format("u{}", pl.Series(users).cast(pl.String).str.zfill(6))).to_series()


def page_ids(count: int) -> pl.Series:
    """Ids of pages in order of time."""
    return pl.select(pl.format("p{}", pl.int_range(count).cast(pl.String).str.zfill(8))).to_series()


def impression_table(world: World, log: ShopLog) -> pl.DataFrame:
    """impressions: one row a page, its slots nested in reading order."""
    pages, slots = log.items.shape
    filled = (log.items >= 0).ravel()
    row, col = np.divmod(np.arange(slots), world.spec.cols)
    nested = pl.DataFrame(
        {
            "page": np.repeat(np.arange(pages), slots),
            "slot_id": pl.Series(_slot_ids(world.spec))[np.tile(np.arange(slots), pages)],
            "row": np.tile(row.astype(np.int16), pages),
            "col": np.tile(col.astype(np.int16), pages),
            "row_id": pl.Series(row_ids(world.spec))[np.tile(row, pages)],
            "item_id": world.shop.items["item_id"][np.maximum(log.items, 0).ravel()],
            "viewed": (log.outcome & VIEWED).ravel().astype(bool),
            "propensity": log.propensity.ravel(),
        }
    ).filter(pl.Series(filled))
    grouped = nested.group_by("page", maintain_order=True).agg(pl.struct(pl.exclude("page")).alias("slots"))
    seen_rows = np.where(log.outcome & VIEWED, row + 1, 0).max(axis=1)
    head = pl.DataFrame(
        {
            "page": np.arange(pages),
            "page_id": page_ids(pages),
            "ts": _moments(log.visits.time),
            "user_id": user_ids(log.visits.user),
            "session_id": pl.Series(log.visits.session).cast(pl.String),
            "template_id": ["home"] * pages,
            "surface": ["home"] * pages,
            "policy_id": pl.Series([p.name for p in POLICIES])[log.policy.astype(np.int64)],
            "n_rows_visible": seen_rows,
        }
    ).with_columns(session_id=pl.format("s{}", pl.col("session_id").str.zfill(8)))
    return head.join(grouped, on="page", how="inner", maintain_order="left").drop("page")


def _slot_ids(spec: WorldSpec) -> list[str]:
    return [f"r{r}c{c}" for r in range(spec.rows) for c in range(spec.cols)]


def event_table(world: World, log: ShopLog) -> pl.DataFrame:
    """events: clicks, carts and purchases in order of time."""
    parts = [_step_events(world, log, bit, name, delay) for bit, name, delay in _STEPS]
    events = pl.concat(parts).sort("ts", "page_id", "slot_id", "event", maintain_order=True)
    return events.with_columns(event_id=pl.format("e{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(9))).select(
        "event_id", "event", "ts", "user_id", "page_id", "slot_id", "item_id", "value", "currency", "quantity", "order_id"
    )


def _step_events(world: World, log: ShopLog, bit: int, name: str, delay: int) -> pl.DataFrame:
    page, slot = np.nonzero(log.outcome & bit)
    item = log.items[page, slot]
    reading = slot * _READING_S // log.items.shape[1]
    price = world.shop.price[item]
    bought = bit == PURCHASED
    return pl.DataFrame(
        {
            "event": pl.Series([name], dtype=pl.String).new_from_index(0, len(page)),
            "ts": _moments(log.visits.time[page] + reading + delay),
            "user_id": user_ids(log.visits.user[page]),
            "page_id": page_ids(len(log.items))[page],
            "slot_id": pl.Series(_slot_ids(world.spec), dtype=pl.String)[slot],
            "item_id": world.shop.items["item_id"][item.astype(np.int64)],
            "value": pl.Series(price if bit != CLICKED else np.full(len(page), np.nan)).fill_nan(None),
            "currency": pl.Series(["EUR" if bit != CLICKED else None], dtype=pl.String).new_from_index(0, len(page)),
            "quantity": pl.Series([1 if bought else None], dtype=pl.Int32).new_from_index(0, len(page)),
            "order_id": pl.select(pl.format("o{}", pl.Series(page).cast(pl.String).str.zfill(8))).to_series()
            if bought
            else pl.Series([None], dtype=pl.String).new_from_index(0, len(page)),
        }
    )


def _moments(time: I64) -> pl.Series:
    return pl.from_epoch(pl.Series(time), "s").dt.replace_time_zone("UTC")


def _write_truth(world: World, log: ShopLog, folder: Path) -> None:
    saved = {"seed": world.seed, "fingerprint": fingerprint(world), "spec": world.spec.to_json()}
    (folder / "world.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
    arrays = {"user": log.visits.user, "time": log.visits.time, "policy": log.policy, "items": log.items, "owned": log.owned}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "log.safetensors")
