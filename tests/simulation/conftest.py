"""Small worlds that several tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pagellm.simulation.shop_log import ShopLog, simulate_log
from pagellm.simulation.spec import profile
from pagellm.simulation.world import World


@pytest.fixture(scope="session")
def tiny() -> World:
    return World.make("tiny", 3)


@pytest.fixture(scope="session")
def tiny_log(tiny: World) -> ShopLog:
    return simulate_log(tiny)


@pytest.fixture(scope="session")
def demo() -> World:
    return World.make("demo", 7)


@pytest.fixture(scope="session")
def micro() -> World:
    """Seven items and pages of three slots: every ordered page can be listed."""
    return World.make(profile("tiny", items=7, themes=3, rows=1, cols=3, users=20, pages=100, out_of_stock=0.0), 11)


def _benchmark(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", root / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def twin(root: Path) -> ModuleType:
    """The world's equations written anew, in numpy and in plain Python."""
    return _benchmark(root, "simulation")


@pytest.fixture(scope="session")
def worth(root: Path) -> ModuleType:
    """The figures of docs/world.md."""
    return _benchmark(root, "world_value")
