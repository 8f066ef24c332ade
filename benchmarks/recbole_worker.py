"""SASRec and EASE of RecBole on request, in a process of its own: runs in an environment that has RecBole and need not have pagellm.

    python -c "import recbole_worker; recbole_worker.work('FOLDER')"

FOLDER holds `settings.json`, `log/log.inter` in RecBole's own text form, and `asked.npz`: histories of judged users as item numbers padded
on the right with -1, a target each, and the items that may be ranked, first of equals first. The line `sasrec` on standard input trains an
epoch, `ease` fits; the answer on standard output is the CPU time, and the NDCG@10 of every judged user lies in FOLDER/<name>.npy. What a
user took is not ranked.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FOR_NUMPY_1 = {"float_": np.float64, "bool8": np.bool_, "complex_": np.complex128, "unicode_": np.str_}
"""Names that RecBole 1.2.1 reads and numpy 2 no longer has."""


def work(folder: str) -> None:
    """Serves requests until standard input ends."""
    out = os.fdopen(os.dup(1), "w")  # libraries may print; the answers are ours
    os.dup2(2, 1)
    for name, kind in FOR_NUMPY_1.items():
        if not hasattr(np, name):
            setattr(np, name, kind)
    import recbole
    import torch

    place = Path(folder)
    asked = dict(np.load(place / "asked.npz", allow_pickle=False))
    print(json.dumps({"recbole": recbole.__version__, "torch": torch.__version__}), file=out, flush=True)
    sasrec = None
    for line in sys.stdin:
        name = line.strip()
        if name == "sasrec":
            sasrec = sasrec or SASRec(place, asked)
        began = time.process_time()
        fitted = sasrec.epoch() if name == "sasrec" and sasrec else Ease(place, asked)
        cpu = time.process_time() - began
        np.save(place / f"{name}.npy", fitted.values())
        print(json.dumps({"cpu": cpu}), file=out, flush=True)


def ready(folder: Path, model: str) -> tuple[Any, Any, Any]:
    """(configuration, data set, training batches), each user's last two events held out."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    settings = json.loads((folder / "settings.json").read_text()) | {
        "data_path": str(folder),
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "device": "cpu",
        "use_gpu": False,
        "checkpoint_dir": str(folder / "saved"),
        "show_progress": False,
        "reproducibility": True,
        "seed": 0,
    }
    sys.argv = sys.argv[:1]  # RecBole reads it
    config = Config(model=model, dataset="log", config_dict=settings)
    logging.disable(logging.CRITICAL)
    dataset = create_dataset(config)
    return config, dataset, data_preparation(config, dataset)[0]


def items_of(dataset: Any, asked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is asked, in RecBole's own numbers: 0 pads, and stands for an item that it does not know."""
    known = dataset.field2token_id["item_id"]
    ours = np.array([0, *(known.get(str(i), 0) for i in range(int(asked["items"])))])
    place = np.full(len(known), len(known))  # too large for what is no candidate
    place[ours[asked["candidates"] + 1]] = np.arange(len(asked["candidates"]))
    place[0] = len(known)
    return {"history": ours[asked["history"] + 1], "target": ours[asked["target"] + 1], "place": place}


def ndcg(scores: np.ndarray, history: np.ndarray, target: np.ndarray, place: np.ndarray) -> np.ndarray:
    """NDCG@10 of one target a user; 0 for a target that may not be ranked. Equal scores go by `place` [item]."""
    allowed = place < len(place)
    scores = np.where(allowed, scores, -np.inf)
    np.put_along_axis(scores, history, -np.inf, 1)
    own = np.take_along_axis(scores, target[:, None], 1)
    rank = 1 + (scores > own).sum(1) + ((scores == own) & (place < place[target][:, None])).sum(1)
    return np.where((rank <= 10) & allowed[target], 1 / np.log2(rank + 1.0), 0.0)


class SASRec:
    """RecBole's SASRec with its own trainer."""

    def __init__(self, folder: Path, asked: dict[str, np.ndarray]) -> None:
        from recbole.model.sequential_recommender import SASRec as Model
        from recbole.trainer import Trainer
        from recbole.utils import init_seed

        config, dataset, self.batches = ready(folder, "SASRec")
        init_seed(0, True)
        self.length = int(config["MAX_ITEM_LIST_LENGTH"])
        self.model = Model(config, self.batches.dataset)
        self.trainer = Trainer(config, self.model)
        self.asked, self.done = items_of(dataset, asked), 0

    def epoch(self) -> SASRec:
        """One more pass over the training rows."""
        self.trainer._train_epoch(self.batches, self.done)
        self.done += 1
        return self

    def values(self) -> np.ndarray:
        """NDCG@10 [judged user], from the newest items of each history."""
        import torch

        self.model.eval()
        history, out = self.asked["history"], []
        sizes = (history > 0).sum(1)
        first = np.maximum(sizes - self.length, 0)
        columns = np.minimum(first[:, None] + np.arange(self.length), history.shape[1] - 1)
        newest = np.where(np.arange(self.length) < (sizes - first)[:, None], np.take_along_axis(history, columns, 1), 0)
        for begin in range(0, len(newest), 512):
            some = slice(begin, begin + 512)
            with torch.no_grad():
                hidden = self.model.forward(torch.from_numpy(newest[some]), torch.from_numpy((sizes - first)[some]))
                scores = (hidden @ self.model.item_embedding.weight.T).numpy()
            out.append(ndcg(scores, history[some], self.asked["target"][some], self.asked["place"]))
        return np.concatenate(out)


class Ease:
    """RecBole's EASE, which fits when it is made."""

    def __init__(self, folder: Path, asked: dict[str, np.ndarray]) -> None:
        from recbole.model.general_recommender import EASE

        config, dataset, batches = ready(folder, "EASE")
        self.weights = np.asarray(EASE(config, batches.dataset).item_similarity)
        self.asked = items_of(dataset, asked)

    def values(self) -> np.ndarray:
        """NDCG@10 [judged user], every item of the history weighing the same."""
        out = []
        for begin in range(0, len(self.asked["history"]), 512):
            some = slice(begin, begin + 512)
            taken = np.zeros((len(self.asked["history"][some]), len(self.weights)), np.float32)
            np.put_along_axis(taken, self.asked["history"][some], 1.0, 1)
            taken[:, 0] = 0
            out.append(ndcg(taken @ self.weights, self.asked["history"][some], self.asked["target"][some], self.asked["place"]))
        return np.concatenate(out)
