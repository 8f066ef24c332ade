"""P-RL-3: both rewards and a value of 10,000 pages of 20 slots from one reading and one trunk, against three models of their own.

Both sides go from catalog indexes to numbers: evidence, language model and relations of each slot, then the networks. The peer reads
the pages once for each of its models, as one does where page reward, item reward and value are models of their own, with the same weights,
so that the outputs can be compared.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke

SLOTS, EACH, TARGET = 20, 4, 2.0
CONTEXTS = 50 if smoke() else 2_500  # times EACH pages


class Scoring:
    """The demo shop with rewards of drawn weights: what they say does not matter here."""

    def __init__(self) -> None:
        import torch

        from pagellm.config import resolve
        from pagellm.data.content import content_vectors
        from pagellm.data.contexts import contexts_at
        from pagellm.data.likeness import likeness_of
        from pagellm.data.look import Look
        from pagellm.data.readers import read_log
        from pagellm.models.multi_grained import RewardModel
        from pagellm.models.page_inputs import PageReader
        from pagellm.models.reward import Members, RewardNet
        from pagellm.models.run import make_evidence, make_net, make_run_split
        from pagellm.simulation.disk import write_world
        from pagellm.simulation.shop_log import simulate_log
        from pagellm.simulation.world import World
        from pagellm.types import PageBatch

        with tempfile.TemporaryDirectory() as folder:
            world = World.make("demo", 7)
            write_world(world, simulate_log(world, "mixed"), Path(folder) / "shop")
            log = read_log(Path(folder) / "shop")
        config = resolve("tiny")
        split = make_run_split(log.interactions, len(log.catalog), config)
        content = content_vectors(log.catalog, config.candidates.content_dims)
        evidence = make_evidence(log.catalog, split, content, config)
        policy = make_net(config, content, log.catalog).eval()
        reader = PageReader(policy, evidence, likeness_of(log.catalog, content, 0.6), log.catalog.shown, config.model.max_history)
        torch.manual_seed(0)
        self.model = RewardModel(RewardNet(config.reward).eval(), reader, Look(), config.reward)
        self.value = Members(config.reward.hidden + 1, config.reward.head_hidden, 1).eval()
        rng = np.random.default_rng(0)
        busy = np.unique(log.interactions.user)
        user = rng.choice(busy, CONTEXTS).astype(np.int32)
        contexts = contexts_at(log.interactions, user, np.full(CONTEXTS, int(log.interactions.time.max()) + 1))
        place = np.repeat(np.arange(CONTEXTS), EACH)
        shown = np.flatnonzero(log.catalog.shown)
        likely = np.stack(
            [rng.choice(shown, 3 * SLOTS, replace=False) for _ in range(CONTEXTS)]
        )  # pages of one context share items
        items = np.stack([rng.permutation(likely[p])[:SLOTS] for p in place]).astype(np.int32)
        row, col = (np.tile(a, (len(place), 1)).astype(np.int16) for a in np.divmod(np.arange(SLOTS), 5))
        self.pages = PageBatch(contexts, place, items, row, col)

    def read(self) -> Any:
        """The table of all pages."""
        look = self.model.look.of(self.pages.items, self.pages.row, self.pages.col)
        return self.model.reader.read(self.pages.contexts, self.pages.place, self.pages.items, look)

    def values(self, vectors: Any) -> Any:
        """A value of each page from its item vectors."""
        return self.value(vectors.mean(1))[:, 0].numpy()

    def chunks(self, table: Any) -> Any:
        """The pages, 2,048 at once."""
        return (table.inputs(slice(at, at + 2_048)) for at in range(0, len(table), 2_048))

    def shared(self) -> tuple[np.ndarray, ...]:
        """(page reward, item reward, value) from one reading and one trunk."""
        import torch

        out = []
        with torch.no_grad():
            for inputs in self.chunks(self.read()):
                vectors = self.model.net.item_vectors(inputs.items)
                page = self.model.net.page_parts(inputs, vectors).sum((1, 2)).numpy()
                out.append((page, self.model.net.item_parts(inputs, vectors).numpy(), self.values(vectors)))
        return tuple(np.concatenate(parts) for parts in zip(*out, strict=True))

    def separate(self) -> tuple[np.ndarray, ...]:
        """The same by three models, each with its own reading and trunk."""
        import torch

        net = self.model.net
        with torch.no_grad():
            page = [net.page_parts(inputs).sum((1, 2)).numpy() for inputs in self.chunks(self.read())]
            item = [net.item_parts(inputs).numpy() for inputs in self.chunks(self.read())]
            value = [self.values(net.item_vectors(inputs.items)) for inputs in self.chunks(self.read())]
        return tuple(np.concatenate(parts) for parts in (page, item, value))


def comparisons() -> list[Comparison]:
    scoring = Scoring()
    pages = len(scoring.pages)

    def same(peer: str, ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> float:
        difference = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
        assert difference < 1e-5, f"the scores differ by {difference}"
        return difference

    peers = {"three models": scoring.separate}
    notes = {"pages": pages, "slots": SLOTS, "pages of one context": EACH, "members": scoring.model.net.members}
    return [
        compare(
            "both rewards and a value", ours=scoring.shared, peers=peers, check=same, target={"three models": TARGET}, notes=notes
        )
    ]


if __name__ == "__main__":
    main("scoring", comparisons)
