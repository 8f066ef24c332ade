"""Off-policy estimates on a sample of the Open Bandit Dataset, each policy on the other's slots, beside the judged policy's own log.

Run: python benchmarks/ope_obd.py FILE [--save], FILE with rows of both policies and both campaigns (columns policy, campaign).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from harness import environment
from pagellm.offpolicy.judged_slots import judge_slots

RESULT = Path(__file__).parent / "results" / "ope_obd_small.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Off-policy estimates on the Open Bandit Dataset.")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="does nothing: real data are not in the repository")
    options = parser.parse_args()
    if options.file is None:
        print("This benchmark needs FILE, the Open Bandit Dataset or a sample of it.")
        sys.exit(0 if options.smoke else 2)
    out: dict[str, Any] = {}
    for logged_by, target_by in (("random", "bts"), ("bts", "random")):
        for campaign in ("men", "women"):
            found = judge_slots(options.file, options.file, logged_by, target_by, {"campaign": campaign})
            name = f"{campaign}: {target_by} on slots of {logged_by}"
            out[name] = found.as_json()
            print(name, "· own log", found.truth["a_row"], found.truth["a_page"])
            for figure in (*found.judgement.figures, *found.judgement.slots):
                told = figure.refusal.verdict if figure.refusal else f"{figure.value:.5f} {figure.bootstrap} {figure.bernstein}"
                print(f"  {figure.name}: {told}")
    if options.save:
        command = "python benchmarks/ope_obd.py obd_small --save"
        RESULT.write_text(json.dumps({"environment": environment(), "command": command, "figures": out}, indent=2) + "\n")


if __name__ == "__main__":
    main()
