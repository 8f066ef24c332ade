"""P-OPE-1: off-policy estimates and their intervals, against Open Bandit Pipeline on the same logged pages.

obp 0.5.7 lives in an environment of its own, named by PAGELLM_OBP_PYTHON (its interpreter); benchmarks/obp_worker.py says how to make it.
Estimates must agree within 1e-10 before any time counts. Ours is the whole way from chances and rewards to the estimate, weights included.
Of intervals obp has 10,000 bootstrap resamples of pages in a Python loop. Ours beside it, with a target, is empirical Bernstein and normal
from one pass; and without a target our own bootstrap with as many resamples. Both bootstraps and the normal interval must agree within a
tenth of their width. obp's checks of its arguments are part of its calls and part of the times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke
from obp_worker import make_pages

PAGES, SLOTS, ITEMS = (200, 4, 8) if smoke() else (5_000, 8, 12)
NAMES = ("ips", "snips", "iips", "rips", "cascade-dr")
RESAMPLES = 10_000
ESTIMATE, INTERVAL = 50.0, 1_000.0


def estimators(a: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Ours by name: from chances and rewards to `Terms`."""
    from pagellm.evaluation.ope.estimators import (
        cascade_dr,
        iips,
        ips,
        page_weights,
        prefix_weights,
        rips,
        slot_weights,
        snips,
    )

    reward, logging, given, real = a["reward"], a["logging"], a["given"], np.ones(a["reward"].shape, bool)

    first = ITEMS * np.arange(reward.size).reshape(reward.shape)  # of each slot's row in the flat table of predictions

    def cascade() -> Any:
        chosen = a["q"].ravel().take(first + a["action"])
        expected = np.einsum("psi,psi->ps", a["target"], a["q"])
        return cascade_dr(reward, prefix_weights(given, logging), chosen, expected)

    return {
        "ips": lambda: ips(reward.sum(1), page_weights(given, logging)),
        "snips": lambda: snips(reward.sum(1), page_weights(given, logging)),
        "iips": lambda: iips(reward, slot_weights(a["alone"], logging), real),
        "rips": lambda: rips(reward, prefix_weights(given, logging)),
        "cascade-dr": cascade,
    }


class Obp:
    """obp's estimators in another process; `cpu` counts the seconds that they took, `wait` those of the last call."""

    def __init__(self, python: str, arrays: Path) -> None:
        self.cpu, self.arrays = 0.0, arrays
        worker = Path(__file__).parent / "obp_worker.py"
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        pipe = subprocess.PIPE
        self._worker = subprocess.Popen([python, str(worker), "work"], stdin=pipe, stdout=pipe, text=True, env=env)
        self.versions = self._answer()

    def ask(self, name: str, what: str) -> Any:
        """obp's answer."""
        request = {"file": str(self.arrays), "estimator": name, "what": what}
        self._worker.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self._worker.stdin.flush()  # type: ignore[union-attr]
        answer = self._answer()
        self.cpu += answer["cpu"]
        return answer["answer"]

    def close(self) -> None:
        """Ends the process."""
        self._worker.stdin.close()  # type: ignore[union-attr]
        self._worker.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._worker.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("obp's process ended; what it wrote to standard error says why.")
        return dict(json.loads(line))


def same_estimate(peer: str, ours: float, theirs: float) -> float:
    """Their difference, below 1e-10."""
    assert abs(ours - theirs) <= 1e-10, f"{ours} against {theirs}"
    return abs(ours - theirs)


def near(peer: str, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Largest difference of two intervals' ends, below a tenth of the width; smoke runs have few pages and skip the bound."""
    off = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    assert smoke() or off <= 0.1 * (theirs[1] - theirs[0]), f"{ours} against {theirs}"
    return off


def interval_of(make: Callable[[], Any], unit: np.ndarray, kind: str) -> Callable[[], tuple[float, float]]:
    """Ends of our interval: `closed` computes empirical Bernstein and normal and gives the normal ends."""
    from pagellm.evaluation.ope.intervals import bootstrap, bootstrap_interval, empirical_bernstein, normal, unit_values

    def closed() -> tuple[float, float]:
        values = unit_values(make().contributions, unit)
        bernstein, found = empirical_bernstein(values), normal(values)
        assert bernstein.low < found.low
        return found.low, found.high

    def drawn() -> tuple[float, float]:
        found = bootstrap_interval(bootstrap([make()], unit, RESAMPLES)[:, 0])
        return found.low, found.high

    return closed if kind == "closed" else drawn


def comparisons() -> Sequence[Comparison]:
    python = os.environ.get("PAGELLM_OBP_PYTHON")
    if not python:
        print("P-OPE-1 is not measured: PAGELLM_OBP_PYTHON is not set. It names the interpreter of an environment with obp.")
        return []
    arrays, unit, out = make_pages(PAGES, SLOTS, ITEMS, 0), np.arange(PAGES), []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "pages.npz", **arrays)
        obp = Obp(python, Path(folder) / "pages.npz")
        notes = {"pages": PAGES, "slots": SLOTS} | obp.versions

        def cpu() -> float:
            return time.process_time() + obp.cpu

        for name, make in estimators(arrays).items():

            def value(make: Callable[[], Any] = make) -> float:
                return float(make().value)

            def theirs(name: str = name) -> float:
                return float(obp.ask(name, "estimate"))

            out.append(
                compare(
                    f"P-OPE-1, estimate, {name}",
                    ours=value,
                    peers={"obp": theirs},
                    check=same_estimate,
                    rounds=7,
                    target={"obp": ESTIMATE},
                    timer=cpu,
                    notes=notes,
                )
            )
        for name, kind, target in (
            ("rips", "closed", {"obp": INTERVAL}),
            ("cascade-dr", "closed", {"obp": INTERVAL}),
            ("rips", "drawn", {}),
        ):

            def ends(name: str = name) -> list[float]:
                return list(obp.ask(name, "interval"))

            ours = interval_of(estimators(arrays)[name], unit, kind)
            words = "Bernstein and normal" if kind == "closed" else f"bootstrap of {RESAMPLES:,}"
            out.append(
                compare(
                    f"P-OPE-1, interval, {name}, {words}",
                    ours=ours,
                    peers={"obp bootstrap": ends},
                    check=near,
                    rounds=5,
                    target={"obp bootstrap": target["obp"]} if target else {},
                    timer=cpu,
                    notes=notes,
                )
            )
        obp.close()
    return out


if __name__ == "__main__":
    main("ope_speed", comparisons)
