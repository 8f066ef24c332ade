"""The shop's items: what they are called, what they cost, how they are liked, day by day. Takes a spec and a seed.

Gives the table that anybody may see (`items`) and the truth behind it (`traits`, `appeal`). Knows no users and no pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pagellm.simulation.counters import Purpose, normals, uniforms
from pagellm.simulation.spec import WorldSpec
from pagellm.simulation.vocabulary import BRANDS, COLORS, LINES, THEMES
from pagellm.types import DAY, F32, F64, I32, Bool

STYLES = 4
"""Dimensions of taste: what people like in items beyond their theme, seen only through what is liked together."""

_WAVE_DAYS = 12  # days between two independent values of a group's fashion


TRAITS = np.dtype(
    [
        ("theme", np.int32),
        ("group", np.int32),  # near-duplicates share one
        ("log_price", np.float32),
        ("quality", np.float32),  # about standard normal
        ("style", np.float32, (STYLES,)),
    ]
)
"""The truth about one item, in half a cache line."""


@dataclass(frozen=True)
class Shop:
    """Items with their truth. An item's index is its place in the catalog."""

    items: pl.DataFrame  # the table of the contract
    traits: NDArray[np.void]  # [item] of TRAITS
    appeal: F32  # [day, item] lift of the click logit: lasting appeal, season, fashion, launch
    share: F64  # [theme] share of users' favorites
    price: F64  # [item]
    launch: F64  # [item] day of the log on which it can first be shown; before the log: negative
    buyable: Bool  # [item] in stock

    @property
    def eligible(self) -> Bool:
        """[day, item] whether the item may be shown on that day: launched before it and in stock."""
        days = np.arange(self.appeal.shape[0])[:, None]
        return (self.launch[None, :] <= days) & self.buyable[None, :]


class _Groups(NamedTuple):
    """What near-duplicates have in common. All [group]."""

    size: I32
    theme: I32
    brand: I32
    line: I32
    noun: I32
    material: I32
    spec: I32
    launch: F64
    price: F64
    quality: F64
    appeal: F64
    style: F64  # [group, style]


def make_shop(spec: WorldSpec, seed: int) -> Shop:
    """The items of a world; equal spec and seed give equal items."""
    share = _theme_shares(spec, seed)
    groups = _make_groups(spec, seed, share)
    group = np.repeat(np.arange(len(groups.size), dtype=np.int32), groups.size)[: spec.items]
    order = np.argsort(_uniforms(seed, 90, spec.items), kind="stable")  # ids tell nothing about theme or age
    group = group[order]
    price = _item_prices(groups.price[group], _normals(seed, 91, spec.items))
    launch = groups.launch[group]
    appeal = _appeal_by_day(spec, seed, groups, group, launch)
    traits = np.empty(spec.items, TRAITS)
    traits["theme"], traits["group"] = groups.theme[group], group
    traits["log_price"], traits["quality"] = np.log(price), groups.quality[group]
    traits["style"] = groups.style[group] + 0.15 * _normals(seed, 92, spec.items * STYLES).reshape(-1, STYLES)
    buyable = _uniforms(seed, 93, spec.items) >= spec.out_of_stock
    items = _item_table(spec, seed, groups, group, price, launch, buyable)
    return Shop(items, traits, appeal, share, price, launch, buyable)


def _uniforms(seed: int, part: int, count: int) -> F64:
    return uniforms(seed, Purpose.SHOP, part, count)


def _normals(seed: int, part: int, count: int) -> F64:
    return normals(seed, Purpose.SHOP, part, count)


def _choice(seed: int, part: int, count: int, options: int) -> I32:
    return (_uniforms(seed, part, count) * options).astype(np.int32)


def _theme_shares(spec: WorldSpec, seed: int) -> F64:
    """[theme] shares of favorites: a Zipf-like law in a random order."""
    rank = np.argsort(np.argsort(_uniforms(seed, 1, spec.themes)))
    weight = 1.0 / (6.0 + rank)
    return np.asarray(weight / weight.sum(), np.float64)


def _make_groups(spec: WorldSpec, seed: int, share: F64) -> _Groups:
    count = spec.items  # enough even if every group held one item; the surplus is cut
    several = _uniforms(seed, 10, count) < spec.variants
    size = np.where(several, 2 + _choice(seed, 11, count, 4), 1).astype(np.int32)
    count = int(np.searchsorted(np.cumsum(size), spec.items)) + 1
    themes = np.searchsorted(np.cumsum(0.5 / spec.themes + 0.5 * share), _uniforms(seed, 12, count) * (1 - 1e-12))
    theme = np.minimum(themes, spec.themes - 1).astype(np.int32)
    theme[: min(spec.themes, count)] = np.arange(min(spec.themes, count))  # no theme stays empty
    brand = (theme * 5 + _choice(seed, 13, count, 8)) % len(BRANDS)  # a theme has eight brands, shared with its neighbors
    quality = _normals(seed, 18, count)
    typical = np.array([t.price for t in THEMES])[theme]
    brand_style = _normals(seed, 22, len(BRANDS) * STYLES).reshape(-1, STYLES)
    style = 0.6 * brand_style[brand] + 0.8 * _normals(seed, 23, count * STYLES).reshape(-1, STYLES)
    return _Groups(
        size=size[:count],
        theme=theme,
        brand=brand.astype(np.int32),
        line=_choice(seed, 14, count, len(LINES)),
        noun=_choice(seed, 15, count, 4),
        material=_choice(seed, 16, count, 4),
        spec=_choice(seed, 17, count, 3),
        launch=_launch_days(spec, seed, count),
        price=typical * np.exp(0.4 * _normals(seed, 19, count) + 0.1 * quality),
        quality=quality,
        appeal=0.7 * _normals(seed, 20, count) + 0.3 * quality,
        style=style / np.sqrt(STYLES),
    )


def _launch_days(spec: WorldSpec, seed: int, count: int) -> F64:
    """[group] launch day: some during the log, the others up to two years before it."""
    new = _uniforms(seed, 24, count) < spec.new_items
    when = _uniforms(seed, 25, count)
    return np.where(new, np.floor(when * spec.horizon), -1.0 - np.floor(when * 730))


def _item_prices(group_price: F64, noise: F64) -> F64:
    """[item] prices that end as prices do; near-duplicates cost nearly the same."""
    exact = group_price * np.exp(0.03 * noise)
    return np.asarray(np.maximum(np.round(exact) - 0.05, 1.95).round(2), np.float64)


def _appeal_by_day(spec: WorldSpec, seed: int, groups: _Groups, group: I32, launch: F64) -> F32:
    """[day, item] lasting appeal + season of the theme + fashion of the group + bursts + interest in what is new."""
    day = np.arange(spec.horizon, dtype=np.float64)[:, None]
    count = len(groups.size)
    period = 60.0 + 120.0 * _uniforms(seed, 30, spec.themes)
    season = 0.6 * np.sin(2 * np.pi * (day / period + _uniforms(seed, 31, spec.themes)))
    centre = _uniforms(seed, 32, count) * spec.horizon
    height = np.where(_uniforms(seed, 33, count) < 0.2, 1.8, 0.0)
    burst = height * np.exp(-0.5 * ((day - centre) / 5.0) ** 2)
    by_group = groups.appeal + season[:, groups.theme] + 0.5 * _waves(spec, seed, count) + burst
    age = np.maximum(day - launch, 0.0)
    fresh = 0.8 * np.exp(-age / 10.0)
    own = 0.2 * _normals(seed, 34, len(group))
    return np.asarray(by_group[:, group] + fresh + own, np.float32)


def _waves(spec: WorldSpec, seed: int, count: int) -> F64:
    """[day, group] smooth random curves of unit variance at their knots."""
    knots = spec.horizon // _WAVE_DAYS + 2
    value = _normals(seed, 35, knots * count).reshape(knots, count)
    place = np.arange(spec.horizon) / _WAVE_DAYS
    left = place.astype(np.int64)
    part = (place - left)[:, None]
    smooth = part * part * (3.0 - 2.0 * part)
    return np.asarray(value[left] * (1.0 - smooth) + value[left + 1] * smooth, np.float64)


def _item_table(spec: WorldSpec, seed: int, groups: _Groups, group: I32, price: F64, launch: F64, buyable: Bool) -> pl.DataFrame:
    """The items as the contract writes them: what anybody may see."""
    count = len(group)
    sponsored = _uniforms(seed, 94, count) < spec.sponsored
    margin = np.round(0.12 + 0.4 * _uniforms(seed, 95, count), 2)
    names = [_names(groups, g) for g in range(len(groups.size))]
    colors = _variant_colors(seed, group)
    themes = [THEMES[groups.theme[g]] for g in group]
    return pl.DataFrame(
        {
            "item_id": [f"i{i:05d}" for i in range(count)],
            "title": [f"{names[g]}, {COLORS[c]}" for g, c in zip(group, colors, strict=True)],
            "categories": [[t.department, t.name] for t in themes],
            "brand": [BRANDS[groups.brand[g]] for g in group],
            "price": price,
            "currency": ["EUR"] * count,
            "availability": np.where(buyable, "in_stock", "out_of_stock").tolist(),
            "created_at": pl.from_epoch(pl.Series((spec.start + launch * DAY).astype(np.int64)), "s").dt.replace_time_zone("UTC"),
            "group_id": [f"g{g:05d}" for g in group],
            "sponsored": sponsored,
            "margin": margin,
            "description": [_describe(groups, g, COLORS[c]) for g, c in zip(group, colors, strict=True)],
        }
    )


def _variant_colors(seed: int, group: I32) -> I32:
    """[item] a color that no other item of its group has (groups hold at most as many items as there are colors)."""
    first = _choice(seed, 96, int(group.max()) + 1, len(COLORS))
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], group[order])
    nth = np.empty(len(group), np.int64)
    nth[order] = np.arange(len(group)) - start
    return np.asarray((first[group] + 5 * nth) % len(COLORS), np.int32)


def _names(groups: _Groups, g: int) -> str:
    theme = THEMES[groups.theme[g]]
    noun, material, size = theme.nouns[groups.noun[g]], theme.materials[groups.material[g]], theme.specs[groups.spec[g]]
    return f"{BRANDS[groups.brand[g]]} {LINES[groups.line[g]]} {material} {noun} {size}"


def _describe(groups: _Groups, g: int, color: str) -> str:
    theme = THEMES[groups.theme[g]]
    noun, material = theme.nouns[groups.noun[g]].lower(), theme.materials[groups.material[g]].lower()
    line = LINES[groups.line[g]]
    return f"{material.capitalize()} {noun} in {color.lower()} from the {line} line. {theme.department}, {theme.name.lower()}."
