"""A data folder of the small shop and one run trained on it in seconds, for every test that needs a finished run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from models.small_shop import small_catalog, small_log
from pagellm.catalog import Catalog
from pagellm.config import resolve
from pagellm.data.content import content_vectors
from pagellm.models.policy import PolicyNet
from pagellm.models.run import Run, make_evidence, make_net, make_run_split
from pagellm.pipeline import train_run
from pagellm.types import Interactions

SETTINGS = (
    "threads=1",
    "sft.epochs=8",
    "sft.batch=32",
    "sft.min_steps=0",
    "sft.warmup_steps=10",
    "sft.lr=3e-3",
    "sft.head_min_steps=0",
    "sft.head_epochs=8",
    "model.dims=32",
    "model.dropout=0",
    "candidates.content_dims=32",
)
USERS = 240


def write_shop(folder: Path, catalog: Catalog | None = None, log: Interactions | None = None) -> Path:
    """Writes the items and interactions as Parquet; returns the folder."""
    catalog, log = catalog or small_catalog(), log or small_log(USERS)
    folder.mkdir(parents=True, exist_ok=True)
    catalog.frame.write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": log.user_ids[log.user],
            "item_id": catalog.item_ids[log.item],
            "timestamp": log.time,
            "basket_index": log.basket,
        }
    ).write_parquet(folder / "interactions.parquet")
    return folder


def train(shop: Path, run: Path, *more: str) -> Path:
    """Trains a tiny policy on the shop; returns the run folder."""
    for _ in train_run(shop, run, resolve("tiny", [*SETTINGS, *more]), tell=lambda line: None):
        pass
    return run


def fresh_run(catalog: Catalog, log: Interactions, *more: str) -> Run:
    """A run with drawn weights in every part, so that text, evidence and the page so far all matter. Needs no training."""
    config = resolve("tiny", [*SETTINGS, *more])
    split = make_run_split(log, len(catalog), config)
    content = content_vectors(catalog, config.candidates.content_dims)
    net = make_net(config, content, catalog)
    wake(net)
    facts = {"name": "shop", "fingerprint": "0" * 64}
    return Run(Path("run"), config, facts, catalog, split, content, make_evidence(catalog, split, content, config), net.eval())


def wake(net: PolicyNet) -> None:
    """Gives the two heads that start at zero some weights."""
    torch.manual_seed(1)
    torch.nn.init.normal_(net.page_head.weight, std=0.5)
    torch.nn.init.normal_(net.evidence.outer[-1].weight, std=0.1)


def wake_page(net: PolicyNet, run: Run) -> None:
    """Gives what depends on the page so far some weights, and the likeness that it reads."""
    net.page_evidence.attach(run.likeness)
    torch.manual_seed(2)
    for layer in (net.page_head, net.page_evidence.linear, net.page_evidence.outer):
        torch.nn.init.normal_(layer.weight, std=0.3)
