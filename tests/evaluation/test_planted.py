"""The planted page reward of the benchmarks: worked by hand, and its best value is 1."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def planted(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted", root / "benchmarks" / "planted.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_theme_counts_once(planted: ModuleType) -> None:
    theme = np.array([-1, 0, 0, 1, 2, -1])
    pages = np.array([[1, 3, 4], [1, 2, 1], [0, 5, 0], [3, 0, 3], [4, 1, 2]])
    np.testing.assert_allclose(planted.themes_shown(pages, theme), [1, 1 / 3, 0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(planted.items_shown(pages, theme), (theme[pages] >= 0).sum(1) / 3)
    assert (planted.items_shown(pages, theme) >= planted.themes_shown(pages, theme)).all()


def test_themes_lie_where_they_may_and_a_page_of_them_is_worth_one(planted: ModuleType) -> None:
    theme = planted.planted_themes(50, 6, 2, 47, seed=3)
    assert (np.bincount(theme[theme >= 0], minlength=6) == 2).all()
    assert (theme[47:] == -1).all()
    best = np.array([[np.flatnonzero(theme == t)[0] for t in range(6)]])
    assert planted.themes_shown(best, theme)[0] == 1
    assert (planted.planted_themes(50, 6, 2, 47, seed=4) != theme).any()
