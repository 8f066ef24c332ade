"""Memory follows the accepted records, not the file: eight times the raw text costs little more than its ids and numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from data_shops import ITEMS, T0, write

PROGRAM = """
import resource, sys
from pagellm.data.readers import read_log
log = read_log(sys.argv[1])
print(len(log.interactions), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(folder: Path, rows: int, junk: str) -> float:
    write(folder, "csv", items=ITEMS)
    with (folder / "interactions.ndjson").open("w") as stream:
        for n in range(rows):
            stream.write(
                f'{{"user_id": "u{n % 500}", "item_id": "SKU/{n % 12}", "timestamp": {T0 + 60 * n}, "text": "{junk}"}}\n'
            )
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True)
    count, kilobytes = done.stdout.split()
    assert int(count) == rows
    return int(kilobytes) / 1024


def test_memory_does_not_follow_the_file(tmp_path: Path):
    junk = "the text of a review " * 40
    small, large = peak_mb(tmp_path / "small", 10_000, junk), peak_mb(tmp_path / "large", 80_000, junk)
    grown_text = 70_000 * len(junk) / 2**20  # 56 MB more of raw text
    assert large - small < 0.5 * grown_text
