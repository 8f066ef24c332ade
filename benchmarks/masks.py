"""Cost of the rules while pages are written: 64 pages of 25 slots at once, pools of 500 candidates, five rules.

The peer asks the same rules of one candidate after the other in plain Python, as a callback that returns the allowed tokens of a
prefix would. It writes 4 pages while we write 64, so the true factor is 16 times the printed one; the 4 must be identical. Further
comparisons hold our own time at other pool and catalog sizes against the first: the cost follows the pool, not the catalog.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import Comparison, compare, main, smoke

NOW = 1_700_000_000
PAGES, POOL, ITEMS, SLOTS = 64, 500, 10_000, 25
SHOWN = 4  # pages that the peer writes
LAYOUT = """
id = "bench"
rows = [{ id = "hero" }, { id = "picks", capacity = 12 }, { id = "more", capacity = 12, source = { filter = "price < 60" } }]
[rules]
exclude = [{ where = "availability != 'in_stock'" }]
max_per = [
  { field = "brand", limit = 1, window = "row" },
  { field = "categories[0]", limit = 8 },
  { field = "categories[0]", limit = 5, window = "row" },
]
dedup = [{ unit = "group_id" }]
"""
MINIMUM = 'min_per = [{ field = "new", limit = 3 }]\n'


def shop(items: int) -> Any:
    import polars as pl

    from pagellm.catalog import Catalog

    rng = np.random.default_rng(1)
    frame = {
        "item_id": [f"i{n}" for n in range(items)],
        "title": [f"Item {n}" for n in range(items)],
        "brand": np.char.add("b", rng.integers(0, 60, items).astype(str)),
        "categories": [[f"c{n}"] for n in rng.integers(0, 10, items)],
        "group_id": np.char.add("g", rng.integers(0, items // 2, items).astype(str)),
        "new": rng.random(items) < 0.05,
        "price": rng.random(items) * 100,
        "availability": np.where(rng.random(items) < 0.95, "in_stock", "out_of_stock"),
    }
    return Catalog(pl.DataFrame(frame))


class Writer:
    """Writes the best-scored page that the masks allow, 64 at a time."""

    def __init__(self, catalog: Any, text: str, pool: int) -> None:
        """Compiles the rules and draws pools and scores; none of it is timed."""
        from pagellm.layout.compiled import compile_layout
        from pagellm.layout.reading import parse_layout

        rng = np.random.default_rng(2)
        self.rules = compile_layout(parse_layout(text), catalog, NOW)
        self.pools = np.stack([rng.choice(len(catalog), pool, replace=False) for _ in range(PAGES)]).astype(np.int32)
        self.scores = rng.random(self.pools.shape)
        self.allowed_ms: list[float] = []

    def __call__(self) -> np.ndarray:
        """[page, slot] items."""
        from pagellm.layout.masks import PageMasks

        masks = PageMasks(self.rules, self.pools)
        while not masks.done.all():
            began = time.perf_counter()
            allowed = masks.allowed()
            self.allowed_ms.append(1e3 * (time.perf_counter() - began))
            masks.place(np.where(allowed.any(1), np.argmax(np.where(allowed, self.scores, -1), 1), -1))
        return masks.items

    def one_by_one(self, catalog: Any) -> np.ndarray:
        """[page, slot] the same for the first pages, candidate by candidate."""
        from pagellm.layout.facts import Facts
        from pagellm.layout.promises import Promises
        from pagellm.types import Context

        none = np.empty(0, np.int32)
        context = Context(NOW, none, none.astype(np.int8), none.astype(np.int64))
        facts = self.facts = getattr(self, "facts", Facts(self.rules.layout, catalog, NOW))
        pages = []
        for pool, scores in zip(self.pools[:SHOWN], self.scores[:SHOWN], strict=True):
            promises, placed = Promises(facts, context, pool.tolist()), {}
            ranked = pool[np.argsort(-scores)].tolist()
            for row, spec in enumerate(self.rules.layout.rows):
                for col in range(spec.capacity):
                    allowed = [item for item in ranked if not promises.broken(item, (row, col), placed)[0]]
                    placed[row, col] = allowed[0]
            pages.append(list(placed.values()))
        return np.array(pages)


def same(peer: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    if theirs.shape == ours[:SHOWN].shape:
        assert (ours[:SHOWN] == theirs).all(), f"{peer} writes other pages"
    return 0.0


def comparisons() -> Sequence[Comparison]:
    catalog = shop(ITEMS)
    ours = Writer(catalog, LAYOUT, POOL)
    slow: Callable[[], Any] = lambda: ours.one_by_one(catalog)  # noqa: E731
    rounds = 5
    peers = {f"one by one, {SHOWN} pages": slow}
    done = [
        compare(
            "five rules", ours=ours, peers=peers, check=same, rounds=rounds, notes={"pages": PAGES, "slots": SLOTS, "pool": POOL}
        )
    ]
    sizes = {"pool 125": (catalog, 125), "pool 2000": (catalog, 2_000)}
    if not smoke():
        sizes |= {"catalog 1e6": (shop(1_000_000), POOL)}
    writers = {name: Writer(shop_, LAYOUT, pool) for name, (shop_, pool) in sizes.items()}
    writers["with min_per"] = Writer(catalog, LAYOUT + MINIMUM, POOL)
    done.append(
        compare("growth", ours=ours, peers=writers, check=lambda *_: 0.0, rounds=rounds, notes={"peer": "ours at another size"})
    )
    for name, writer in {"five rules": ours, **writers}.items():
        times = np.array(writer.allowed_ms)
        print(
            f"allowed() {name}: median {np.median(times):.3f} ms, 95 % below {np.quantile(times, 0.95):.3f} ms for {PAGES} pages"
        )
    return done


if __name__ == "__main__":
    main("masks", comparisons)
