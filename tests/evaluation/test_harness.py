"""The timing harness of the benchmarks: a wrong answer has no time, and a known ratio is found."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def harness(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_harness", root / "benchmarks" / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def equal(peer: str, ours: int, theirs: int) -> float:
    assert ours == theirs, f"{peer} differs"
    return abs(ours - theirs)


@pytest.fixture
def clock(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the timed callables move."""
    now = [0.0]
    monkeypatch.setattr(harness.time, "process_time", lambda: now[0])
    return now


def test_a_known_ratio_is_found_and_judged_by_its_lower_end(harness: ModuleType, clock: list[float]) -> None:
    def takes(seconds: float) -> int:
        clock[0] += seconds
        return 7

    peers = {"slow": lambda: takes(3.0), "slower": lambda: takes(10.0)}
    found = harness.compare("x", ours=lambda: takes(1.0), peers=peers, check=equal, target={"slow": 4.0, "slower": 9.5})
    slow, slower = found.ratios
    assert (slow.ratio, slower.ratio) == (3.0, 10.0)
    assert slow.ci95 == (3.0, 3.0)
    assert not slow.passed
    assert slower.passed
    assert "MISSED" in harness.table(found)


def test_short_calls_are_repeated_within_a_round(harness: ModuleType, clock: list[float]) -> None:
    calls = {"ours": 0, "peer": 0}

    def takes(name: str, seconds: float) -> None:
        calls[name] += 1
        clock[0] += seconds

    peers = {"peer": lambda: takes("peer", 1.0)}
    found = harness.compare("x", ours=lambda: takes("ours", 0.001), peers=peers, check=lambda *_: 0.0, rounds=5)
    assert found.ratios[0].ratio == pytest.approx(1000)
    assert 2 + 5 * 20 <= calls["ours"] <= 2 + 5 * 21  # 20 ms a round, up to rounding
    assert calls["peer"] == 2 + 5


def test_a_wrong_answer_has_no_time(harness: ModuleType) -> None:
    with pytest.raises(AssertionError, match="peer differs"):
        harness.compare("x", ours=lambda: 1, peers={"peer": lambda: 2}, check=equal)


def test_too_few_rounds(harness: ModuleType) -> None:
    with pytest.raises(ValueError, match="at least 5"):
        harness.compare("x", ours=lambda: 1, peers={}, check=equal, rounds=4)


def test_results_are_saved_with_their_environment(
    harness: ModuleType, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second() -> int:
        clock[0] += 1
        return 1

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--save"])
    path = harness.save("x", [harness.compare("x", ours=second, peers={"p": second}, check=equal)])
    told = json.loads(path.read_text())
    assert told["command"] == "python benchmarks/x.py --save"
    assert told["comparisons"][0]["ratios"][0]["ratio"] == 1
    assert told["environment"]["cores"] >= 1
    assert "numpy" in told["environment"]["versions"]
