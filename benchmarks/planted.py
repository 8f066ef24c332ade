"""Page rewards that are planted, with a best value of 1. Needs numpy alone: peers in other environments read it too."""

from __future__ import annotations

import numpy as np


def themes_shown(pages: np.ndarray, theme: np.ndarray) -> np.ndarray:
    """[page] share of the slots that bring a theme which no slot before them has; `theme` [item] is -1 for items without one.

    A page of different themes has 1, the best. No item has a value of its own: the second item of a theme adds nothing.
    """
    shown = np.sort(theme[pages], axis=1)
    new = (shown >= 0) & np.concatenate([np.ones((len(pages), 1), bool), np.diff(shown, axis=1) != 0], 1)
    return new.mean(1)


def items_shown(pages: np.ndarray, theme: np.ndarray) -> np.ndarray:
    """[page] share of the slots that hold an item with a theme, whatever stands beside it: what is shown twice counts twice."""
    return (theme[pages] >= 0).mean(1)


PLANTED = {"items": items_shown, "themes": themes_shown}
"""Rewards by name."""


def planted_themes(items: int, themes: int, each: int, last: int, seed: int) -> np.ndarray:
    """[item] the theme of `each` items of every theme, drawn among the first `last` items; -1 for all others."""
    theme = np.full(items, -1)
    drawn = np.random.default_rng((seed, 41)).choice(last, themes * each, replace=False)
    theme[drawn] = np.arange(themes * each) % themes
    return theme
