"""What all tests share: one thread, no network, and the two things that may be absent (real data, a browser)."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy, numba or torch is imported
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that PAGELLM_DATA names; the test skips without it."""
    named = os.environ.get("PAGELLM_DATA")
    if not named:
        pytest.skip("PAGELLM_DATA is not set: it names the folder with the real data sets, which are not in the repository")
    folder = Path(named)
    if not folder.is_dir():
        raise FileNotFoundError(f"PAGELLM_DATA must name a folder with data sets. Got {named!r}, which is none.")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the Chromium that browser tests drive; they skip without one."""
    names = (os.environ.get("PAGELLM_CHROMIUM") or "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: install it, or name it in PAGELLM_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def tiny_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of the small shop."""
    from tiny_run import write_shop

    return write_shop(tmp_path_factory.mktemp("tiny") / "shop")


@pytest.fixture(scope="session")
def tiny_run(tiny_shop: Path) -> Path:
    """A run trained on the small shop; copy it before changing anything in it."""
    from tiny_run import train

    return train(tiny_shop, tiny_shop.with_name("run"))
