"""Open Bandit Pipeline's estimators on arrays from a file: runs in an environment that has obp and need not have pagellm.

    python -m venv OBP && OBP/bin/pip install numpy scipy scikit-learn pandas tqdm pyyaml matplotlib seaborn torch==2.13.0
    OBP/bin/pip install --no-deps --ignore-requires-python obp==0.5.7
    OBP/bin/python benchmarks/obp_worker.py freeze tests/evaluation/obp_0.5.7.json      # the fixtures of the tests, anew

`work` answers one request a line: {"file": npz, "estimator": name, "what": "estimate" | "interval"} → value or ends, and CPU seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SLATES = {
    "ips": ("SlateStandardIPS", "page"),
    "snips": ("SelfNormalizedSlateStandardIPS", "page"),
    "iips": ("SlateIndependentIPS", "item_position"),
    "sniips": ("SelfNormalizedSlateIndependentIPS", "item_position"),
    "rips": ("SlateRewardInteractionIPS", "cascade"),
    "cascade-dr": ("SlateCascadeDoublyRobust", "cascade"),
}
"""Our name → (obp's class, whose chances it reads)."""


def make_pages(pages: int, slots: int, items: int, seed: int) -> dict[str, np.ndarray]:
    """Logged pages under two Plackett-Luce policies: chances given the slots before, and some numbers for those of each slot alone."""
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(size=(2, items)) * np.array([[0.3], [0.5]]))
    order = np.argsort(-(np.log(weights[0]) + rng.gumbel(size=(pages, items))), axis=1)[:, :slots]
    chances = np.empty((2, pages, slots, items))
    for policy in (0, 1):
        left = np.tile(weights[policy], (pages, 1))
        for slot in range(slots):
            chances[policy, :, slot] = left / left.sum(1, keepdims=True)
            left[np.arange(pages), order[:, slot]] = 0.0
    page, slot = np.arange(pages)[:, None], np.arange(slots)
    logging, given = chances[0][page, slot, order], chances[1][page, slot, order]
    return {
        "action": order,
        "reward": (rng.random((pages, slots)) < 0.2 + 0.3 * (order % 2)).astype(float),
        "logging": logging,
        "given": given,
        "alone": np.clip(given * rng.uniform(0.8, 1.2, given.shape), 0, 1),
        "q": rng.uniform(0, 1, (pages, slots, items)),
        "target": chances[1],
    }


def _slate(name: str, a: dict[str, np.ndarray], what: str, resamples: int = 10_000) -> Any:
    import obp.ope as ope

    kind, reads = SLATES[name]
    pages, slots, items = a["target"].shape
    extra = {"n_unique_action": items} if name == "cascade-dr" else {}
    estimator = getattr(ope, kind)(len_list=slots, **extra)
    given = {
        "slate_id": np.repeat(np.arange(pages), slots),
        "position": np.tile(np.arange(slots), pages),
        "reward": a["reward"].ravel(),
    }
    if reads == "page":
        pair = [np.repeat(np.prod(a[side], 1), slots) for side in ("logging", "given")]
        given |= {"pscore": pair[0], "evaluation_policy_pscore": pair[1]}
    elif reads == "cascade":
        pair = [np.cumprod(a[side], 1).ravel() for side in ("logging", "given")]
        given |= {"pscore_cascade": pair[0], "evaluation_policy_pscore_cascade": pair[1]}
    else:
        given |= {"pscore_item_position": a["logging"].ravel(), "evaluation_policy_pscore_item_position": a["alone"].ravel()}
    if name == "cascade-dr":
        given |= {"action": a["action"].ravel(), "q_hat": a["q"].ravel(), "evaluation_policy_action_dist": a["target"].ravel()}
    if what == "estimate":
        return float(estimator.estimate_policy_value(**given))
    found = estimator.estimate_interval(**given, n_bootstrap_samples=resamples, random_state=0)
    return [float(found[f"95.0% CI ({end})"]) for end in ("lower", "upper")]


def _rows(a: dict[str, np.ndarray]) -> dict[str, float]:
    """obp's estimators of single choices, on the first slot of each page."""
    from obp.ope import DoublyRobust, InverseProbabilityWeighting, SelfNormalizedInverseProbabilityWeighting

    given = {
        "reward": a["reward"][:, 0], "action": a["action"][:, 0], "pscore": a["logging"][:, 0],
        "action_dist": a["target"][:, 0, :, None], "position": np.zeros(len(a["reward"]), int),
    }  # fmt: skip
    q = a["q"][:, 0, :, None]
    return {
        "ipw": float(InverseProbabilityWeighting().estimate_policy_value(**given)),
        "snipw": float(SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**given)),
        "dr": float(DoublyRobust().estimate_policy_value(**given, estimated_rewards_by_reg_model=q)),
    }


def freeze(out: Path) -> None:
    """Writes inputs and obp's answers as JSON."""
    import obp
    from obp.ope.helper import estimate_bernstein_lower_bound

    cases = []
    for pages, slots, items, seed in ((40, 3, 5, 1), (25, 4, 6, 2), (60, 2, 9, 3)):
        a = make_pages(pages, slots, items, seed)
        values = {name: _slate(name, a, "estimate") for name in SLATES}
        x = np.prod(a["given"] / a["logging"], 1) * a["reward"].sum(1)
        values["bernstein_low"] = float(estimate_bernstein_lower_bound(x, None, 0.025))
        cases.append({"inputs": {name: array.tolist() for name, array in a.items()}, "values": values | _rows(a)})
    head = {"written_by": f"benchmarks/obp_worker.py freeze, obp {obp.__version__}, numpy {np.__version__}", "cases": cases}
    out.write_text(json.dumps(head) + "\n", encoding="utf-8")


def work() -> None:
    """Answers requests from standard input until it ends."""
    import obp

    print(json.dumps({"obp": obp.__version__, "numpy": np.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        arrays = dict(np.load(asked["file"]))
        began = time.process_time()
        answer = _slate(asked["estimator"], arrays, asked["what"])
        print(json.dumps({"answer": answer, "cpu": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["freeze"]:
        freeze(Path(sys.argv[2]))
    else:
        work()
