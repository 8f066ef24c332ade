"""P-PM-2: memory of `pagellm pairs mine --large` as the log grows from 10 to 100 million slots. It has to stay flat and below 2 GB.

One process a size; its peak is what the kernel says of it (`ru_maxrss`), everything included. Logs are generated: the items of the
simulated shop, pages of 20 slots, 25 pages a user, so that users grow with the log; attention falls with the place, items are wanted
unequally. Flat means a peak of at most 1.2 times that of the smallest size. Sizes are slots in millions.

    python benchmarks/mining_memory.py --folder FOLDER [--sizes 10,100] [--threads 1] [--save | --smoke]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import RESULTS, environment

ROWS, COLS, CHUNK, PAGES_A_USER = 4, 5, 16_384, 25
SLOTS = ROWS * COLS
START, DAYS = 1_735_689_600, 180  # 2025-01-01
FLAT, MOST_MB = 1.2, 2_048
_STEPS = (("select_item", 5), ("add_to_cart", 20), ("purchase", 90))  # event and seconds after the page
_CALL = """
import json, resource, sys, time
from pagellm.__main__ import tune_allocator
tune_allocator()
from pathlib import Path
from pagellm.pairing import Disk, Window, mine_large
begin, marks = time.perf_counter(), []
def tell(line):
    print(line, file=sys.stderr, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    marks.append((line, round(time.perf_counter() - begin, 1), peak))
folder = Path(sys.argv[1])
report = mine_large(folder, folder / "pairs.parquet", (), Window(), 0, Disk(), tell)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"peak_mb": used.ru_maxrss // 1024, "wall_s": round(time.perf_counter() - begin, 1),
    "cpu_s": round(used.ru_utime + used.ru_stime, 1), "pages_mined": report.situations, "pairs_found": report.found,
    "pairs_kept": report.found - report.over_cap, "marks": marks}))
"""


class Writer:
    """Writes one shop, chunk by chunk."""

    def __init__(self, folder: Path, pages: int) -> None:
        """Draws what does not depend on the chunk."""
        from pagellm.simulation.world import World

        self.folder, self.pages, self.rng = folder, pages, np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        items = World.make("demo", 0).shop.items
        items.write_parquet(folder / "items.parquet")
        self.ids = items["item_id"].to_numpy()
        self.popular = np.cumsum(1 / (np.arange(len(items)) + 20.0) ** 0.7)
        self.wanted = self.rng.beta(0.6, 60, len(items))
        self.look = 0.93 ** np.arange(SLOTS)
        self.users = max(1, pages // PAGES_A_USER)

    def write(self) -> None:
        """All pages and events, in order of time."""
        import polars as pl
        import pyarrow.parquet as pq

        compat = pl.CompatLevel.oldest()
        writers: dict[str, Any] = {}
        for begin in range(0, self.pages, CHUNK):
            for name, frame in zip(("impressions", "events"), self._chunk(begin, min(CHUNK, self.pages - begin)), strict=True):
                table = frame.to_arrow(compat_level=compat)
                if name not in writers:
                    writers[name] = pq.ParquetWriter(self.folder / f"{name}.parquet", table.schema, compression="zstd")
                writers[name].write_table(table)
        for writer in writers.values():
            writer.close()

    def _chunk(self, begin: int, count: int) -> tuple[Any, Any]:
        """(pages, their events) of the pages begin to begin + count."""
        import polars as pl

        rng, span = self.rng, DAYS * 86_400 / self.pages
        when = START + ((begin + np.arange(count)) * span).astype(np.int64)
        user, page = rng.integers(0, self.users, count), np.arange(begin, begin + count)
        item = np.searchsorted(self.popular, rng.random((count, SLOTS)) * self.popular[-1])
        viewed = rng.random((count, SLOTS)) < self.look
        outcome = np.cumprod(
            rng.random((3, count, SLOTS)) < np.stack((viewed * self.wanted[item], *np.full((2, *item.shape), 0.35))), 0
        )
        names = {"page_id": pl.Series(page), "user_id": pl.Series(user)}
        heads = pl.DataFrame(names).select(pl.format("p{}", "page_id"), pl.format("u{}", "user_id"), ts=pl.Series(when))
        row, col = (np.tile(x.astype(np.int16), count) for x in np.divmod(np.arange(SLOTS), COLS))
        slots = {"row": row, "col": col, "item_id": self.ids[item.ravel()], "viewed": viewed.ravel()}
        nested = pl.DataFrame({"slots": pl.DataFrame(slots).to_struct("slots").reshape((count, SLOTS)).arr.to_list()})
        parts = []
        for (name, delay), mark in zip(_STEPS, outcome, strict=True):
            at, slot = np.nonzero(mark)
            about = {
                "item_id": self.ids[item[at, slot]],
                "slot_id": [f"r{s // COLS}c{s % COLS}" for s in slot],
                "ts": when[at] + delay,
            }
            parts.append(
                heads[at]
                .select("page_id", "user_id")
                .with_columns(event=pl.lit(name), **{k: pl.Series(v) for k, v in about.items()})
            )
        events = pl.concat(parts)
        return heads.hstack(nested), events.with_columns(event_id=pl.format("e{}-{}", pl.lit(begin), pl.int_range(pl.len())))


def measure(slots: int, folder: Path) -> dict[str, Any]:
    """Generates a log, mines it in a process of its own, takes it away."""
    begin = time.perf_counter()
    Writer(folder, slots // SLOTS).write()
    size = sum(p.stat().st_size for p in folder.glob("*.parquet"))
    print(f"{slots:,} slots generated in {time.perf_counter() - begin:.0f} s, {size / 2**30:.2f} GiB", flush=True)
    done = subprocess.run([sys.executable, "-c", _CALL, str(folder)], stdout=subprocess.PIPE, text=True, check=True)
    out = {"slots": slots, "pages": slots // SLOTS, "log_gib": round(size / 2**30, 2), **json.loads(done.stdout)}
    out["pairs_gib"] = round((folder / "pairs.parquet").stat().st_size / 2**30, 3)
    shutil.rmtree(folder)
    print(json.dumps(out), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="P-PM-2: peak memory of mining by the size of the log.")
    parser.add_argument("--sizes", default="10,100", help="millions of slots")
    parser.add_argument("--folder", type=Path, help="where logs are generated and mined; needed unless --smoke")
    parser.add_argument("--threads", type=int, default=1)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--save", action="store_true", help="write benchmarks/results/mining_memory.json")
    output.add_argument("--smoke", action="store_true", help="two small logs; nothing is judged")
    options = parser.parse_args()
    if not options.smoke and options.folder is None:
        print("Name a folder with 20 GB of room: --folder FOLDER. The largest log takes most of an hour on one busy core.")
        sys.exit(2)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = str(options.threads)
    sizes = [20_000, 60_000] if options.smoke else [int(float(s) * 1e6) for s in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        measured = [measure(size, Path(scratch) / f"log-{size}") for size in sizes]
    ratio = measured[-1]["peak_mb"] / measured[0]["peak_mb"]
    met = ratio <= FLAT and max(m["peak_mb"] for m in measured) <= MOST_MB
    print(f"peak at {sizes[-1]:,} slots over peak at {sizes[0]:,}: {ratio:.2f} (at most {FLAT}); all below {MOST_MB:,} MB: {met}")
    if options.save:
        result = {
            "name": "mining_memory",
            "environment": environment(),
            "flat": FLAT,
            "most_mb": MOST_MB,
            "ratio": round(ratio, 3),
        }
        (RESULTS / "mining_memory.json").write_text(json.dumps(result | {"sizes": measured, "met": met}, indent=1) + "\n")
    sys.exit(0 if options.smoke or met else 4)


if __name__ == "__main__":
    main()
