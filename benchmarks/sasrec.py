"""P-BL-3: an epoch of our SASRec against one of RecBole's; whether SASRec and EASE are as good as RecBole's on the last-out split.

Needs PAGELLM_DATA, the folder with the real data sets, and PAGELLM_RECBOLE_PYTHON, the interpreter of an environment with RecBole; without
them it says so and measures nothing. The users are the first of `amazon14_beauty`; the last event of each is the test, the one before it
the valid target, and both sides keep the epoch with the best valid NDCG@10. Same sizes, same candidates, no text. Epochs take turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, Ratio, main, smoke

USERS, EPOCHS, L2 = 1_500, 24, 200.0  # epochs: enough that both sides have passed their best
DIMS, LENGTH, LR = 64, 20, 1e-3
SETTINGS = {
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "hidden_size": DIMS,
    "inner_size": 4 * DIMS,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dropout_prob": 0.2,
    "attn_dropout_prob": 0.2,
    "learning_rate": LR,
    "train_batch_size": 256,
    "reg_weight": L2,
}


class RecBole:
    """The worker: one request, one answer."""

    def __init__(self, python: str, folder: Path) -> None:
        pipe, code = subprocess.PIPE, f"import recbole_worker; recbole_worker.work({str(folder)!r})"
        self.folder = folder
        self._worker = subprocess.Popen([python, "-c", code], cwd=Path(__file__).parent, stdin=pipe, stdout=pipe, text=True)
        self.versions = self._answer()

    def __call__(self, name: str) -> tuple[float, np.ndarray]:
        """(CPU seconds, NDCG@10 [judged row])."""
        self._worker.stdin.write(name + "\n")  # type: ignore[union-attr]
        self._worker.stdin.flush()  # type: ignore[union-attr]
        return self._answer()["cpu"], np.load(self.folder / f"{name}.npy")

    def _answer(self) -> dict[str, Any]:
        line = self._worker.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("The RecBole worker ended. What it said stands on standard error.")
        return dict(json.loads(line))


def first_users(data: Path, users: int) -> tuple[Any, int]:
    """The events of the first users on the items that these took: (interactions, items)."""
    from pagellm.data.readers import read_log

    log = read_log(data).interactions
    log = log.where(log.user < users)
    taken, item = np.unique(log.item, return_inverse=True)
    return replace(log, item=item.astype(np.int32), user_ids=log.user_ids[:users]), len(taken)


def write_for_recbole(log: Any, parts: Sequence[Any], items: int, order: np.ndarray, folder: Path) -> None:
    """The log in RecBole's form, one time an event in the order of ours, and what is judged: valid, then test."""
    (folder / "log").mkdir()
    rows = [f"{u}\t{i}\t{n}" for n, (u, i) in enumerate(zip(log.user, log.item, strict=True))]
    head = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "log" / "log.inter").write_text("\n".join([head, *rows]) + "\n")
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    widest = max(int((part.stop - part.start).max()) for part in parts)
    history = np.full((sum(len(part) for part in parts), widest), -1, np.int64)
    every = [(part, c) for part in parts for c in range(len(part))]
    for row, (part, c) in enumerate(every):
        history[row, : part.stop[c] - part.start[c]] = part.history(c)
    target = np.array([part.target(c)[0] for part, c in every], np.int64)
    np.savez(folder / "asked.npz", history=history, target=target, items=items, candidates=order)


def ndcg(ranker: Any, parts: Sequence[Any]) -> np.ndarray:
    """NDCG@10 [judged row]."""
    from pagellm.evaluation.metrics import accuracy

    return np.concatenate([accuracy(ranker.rank(part, 10), part, (10,))["ndcg@10"] for part in parts])


def alternating(recbole: RecBole, split: Any, parts: Sequence[Any]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Epochs in turn: CPU seconds [epoch, ours and theirs], and the values of each after every epoch."""
    import torch

    from pagellm.evaluation.baselines.ranking import known_users, popular_first
    from pagellm.evaluation.baselines.sasrec import SASRecNet
    from pagellm.evaluation.baselines.sequence import SequenceRanker, SequenceSettings, epochs_of, user_spans

    settings = SequenceSettings(dims=DIMS, length=LENGTH, lr=LR)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = SASRecNet(np.zeros((len(split.candidates_valid), 1), np.float32), settings)
    users = known_users(split.log, split.fit_until_valid)[0]
    order = popular_first(split.log, split.fit_until_valid, split.candidates_valid)
    ranker = SequenceRanker(net, users, order, False, "sasrec")
    epochs = epochs_of(net, user_spans(split.log, split.fit_until_valid, LENGTH), users, settings, 0)
    seconds, ours, theirs = [], [], []
    for _ in range(2 if smoke() else EPOCHS):
        began = time.process_time()
        next(epochs)
        mine = time.process_time() - began
        ours.append(ndcg(ranker, parts))
        cpu, values = recbole("sasrec")
        theirs.append(values)
        seconds.append((mine, cpu))
        print(
            f"epoch {len(seconds)}: {mine:.1f} s {ours[-1].mean():.4f}, RecBole {cpu:.1f} s {values.mean():.4f}", file=sys.stderr
        )
    return np.array(seconds), ours, theirs


def figures(name: str, ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """NDCG@10 of both and ours over theirs, 95 % over users."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(ours), (2_000, len(ours)))
    ratio = np.quantile(ours[draws].mean(1) / theirs[draws].mean(1), (0.025, 0.975))
    quotient = float(ours.mean() / theirs.mean())
    return {name: {"ours": float(ours.mean()), "RecBole": float(theirs.mean()), "ratio": quotient, "ci95": ratio.tolist()}}


def comparisons() -> Sequence[Comparison]:
    """Nothing where the data or RecBole is not named."""
    from pagellm.data.splits import last_out_split
    from pagellm.evaluation.baselines.ease import fit_ease
    from pagellm.evaluation.baselines.ranking import popular_first

    data, python = os.environ.get("PAGELLM_DATA"), os.environ.get("PAGELLM_RECBOLE_PYTHON")
    if not data or not python:
        print("not measured: PAGELLM_DATA and PAGELLM_RECBOLE_PYTHON name the data sets and an interpreter with RecBole")
        return []
    log, items = first_users(Path(data) / "amazon14_beauty", 100 if smoke() else USERS)
    split = last_out_split(log, items)
    parts = split.valid, split.test
    with tempfile.TemporaryDirectory() as folder:
        write_for_recbole(log, parts, items, popular_first(log, split.fit_until_valid, split.candidates_valid), Path(folder))
        recbole = RecBole(python, Path(folder))
        seconds, ours, theirs = alternating(recbole, split, parts)
        valid = len(split.valid)
        best = [int(np.argmax([v[:valid].mean() for v in some])) for some in (ours, theirs)]
        quality = figures("SASRec", ours[best[0]][valid:], theirs[best[1]][valid:])
        ease = fit_ease(log, split.fit_until_valid, split.candidates_valid, L2, 1.0)
        quality |= figures("EASE", ndcg(ease, parts)[valid:], recbole("ease")[1][valid:])
    rng = np.random.default_rng(0)
    draws = seconds[rng.integers(0, len(seconds), (10_000, len(seconds)))]
    ratios = np.median(draws[..., 1], 1) / np.median(draws[..., 0], 1)
    mine, other = np.median(seconds, axis=0)
    low, high = np.quantile(ratios, (0.025, 0.975))
    worse = abs(quality["SASRec"]["ratio"] - 1)
    equal = quality["SASRec"]["ci95"][0] <= 1 <= quality["SASRec"]["ci95"][1]  # no difference can be told from chance
    ratio = Ratio("RecBole", mine, other, other / mine, (float(low), float(high)), 2.0 if equal else None, worse)
    until_best = [float(seconds[: b + 1, side].sum()) for side, b in enumerate(best)]
    notes = {"users": log.users, "items": items, "events": len(log), "best_epochs": [b + 1 for b in best], "ndcg@10": quality}
    notes["cpu_seconds_to_best_epoch"] = {"ours": until_best[0], "RecBole": until_best[1], "ratio": until_best[1] / until_best[0]}
    if not equal:
        notes["target"] = "missed: a faster epoch that teaches less meets none"
    return [Comparison("P-BL-3, SASRec epoch", len(seconds), "cpu", (ratio,), notes | {"versions": recbole.versions})]


if __name__ == "__main__":
    main("sasrec", comparisons)
