"""A trained run judged off-policy in the simulated shop, beside what its pages are truly worth to the same users at the same moments.

Simulates the tiny world with 20,000 pages of several logging policies, trains the profile tiny on it, and asks `pagellm ope` about the
pages after everything that the run learned from. The truth is the world's exact expectation of pages that the policy draws, what users own
included. Run: python benchmarks/ope_world.py FOLDER [--pages N] [--save]; what FOLDER holds already (shop, run) is used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from harness import environment
from pagellm.config import resolve
from pagellm.data.readers import read_log
from pagellm.evaluation.ope.intervals import unit_values
from pagellm.evaluation.significance import interval, resampled_means
from pagellm.layout.compiled import compile_layout
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.run import Run, load_run, run_layout
from pagellm.models.threads import set_threads
from pagellm.offpolicy.judged_run import Asked, judge_pages
from pagellm.offpolicy.logged_pages import judged_pages
from pagellm.pipeline import train_run
from pagellm.simulation.disk import load_truth, load_world, write_world
from pagellm.simulation.shop_log import simulate_log
from pagellm.simulation.spec import profile
from pagellm.simulation.world import World
from pagellm.types import Context, Interactions

SEED, PAGES, TEMPERATURES, DRAWS = 7, 20_000, (2.0, 1.0), 2
RESULT = Path(__file__).parent / "results" / "ope_world.json"


def prepare(folder: Path) -> Run:
    """The shop and the run in the folder, made where they are missing."""
    if not (folder / "shop").exists():
        world = World.make(profile("tiny", pages=PAGES), SEED)
        write_world(world, simulate_log(world, "mixed"), folder / "shop")
    if not (folder / "run").exists():
        for _ in train_run(folder / "shop", folder / "run", resolve("tiny", ["threads=1"], seed=0), tell=lambda line: None):
            pass
    return load_run(folder / "run")


def truth(run: Run, shop: Path, temperature: float, most: int) -> dict[str, Any]:
    """Expected clicks of the policy's pages for the judged contexts, with its interval over users."""
    world, made, log = load_world(shop), load_truth(shop), read_log(shop)
    layout = run_layout(run, 1)
    assert log.impressions is not None
    rules = compile_layout(layout, run.catalog, int(log.impressions.time.max()))
    pages = judged_pages(run, log, rules, "clicks", None).drawn(most, 0)
    policy = LanguagePolicy(run, layout, Writing(temperature), int(pages.time.min()))
    users = np.array([int(str(log.interactions.user_ids[u])[1:]) for u in pages.user], np.int32)
    place = {key: at for at, key in enumerate(zip(made["user"].tolist(), made["time"].tolist(), strict=True))}
    owned = made["owned"][[place[key] for key in zip(users.tolist(), pages.time.tolist(), strict=True)]]
    worth = np.zeros(len(pages))
    rng = np.random.default_rng(1)
    for begin in range(0, len(pages), 64):
        some = slice(begin, begin + 64)
        asked = [context(pages.log, int(u), int(t)) for u, t in zip(pages.user[some], pages.time[some], strict=True)]
        for group in zip(*policy.compose_many(asked, rng, DRAWS), strict=True):
            items = np.array([[slot.item for slot in page.slots] for page in group], np.int32)
            worth[some] += world.expected(items, users[some], pages.time[some], owned=owned[some].astype(np.int32)).clicks / DRAWS
    values = unit_values(worth, np.unique(users, return_inverse=True)[1].astype(np.int64))
    ends = interval(resampled_means(values[:, None], 1_000))[:, 0]
    return {"value": float(worth.mean()), "bootstrap95": ends.tolist(), "pages": len(pages)}


def context(log: Interactions, user: int, now: int) -> Context:
    """What a user's context knows at a moment."""
    mine = (log.user == user) & (log.time < now)
    return Context(now, log.item[mine], log.event[mine], log.time[mine], str(log.user_ids[user]), baskets=log.basket[mine])


def main() -> None:
    parser = argparse.ArgumentParser(description="A trained run judged off-policy beside the truth.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pages", type=int, default=20_000, help="logged pages that are judged at most")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="does nothing: training takes minutes")
    options = parser.parse_args()
    if options.folder is None:
        print("This benchmark needs FOLDER, for a shop and a run.")
        sys.exit(0 if options.smoke else 2)
    run = prepare(options.folder)
    set_threads(run.config)
    out: dict[str, Any] = {}
    for temperature in TEMPERATURES:
        asked = Asked(temperature=temperature, pages=options.pages)
        whole = judge_pages(run, read_log(options.folder / "shop"), asked, lambda line: None)
        real = truth(run, options.folder / "shop", temperature, options.pages)
        out[f"temperature {temperature:g}"] = {"truth": real, "ope": whole.as_json()}
        print(f"temperature {temperature:g}: truth {real['value']:.4f} {real['bootstrap95']}")
        for figure in whole.judgement.figures:
            told = (
                figure.refusal.verdict
                if figure.refusal
                else f"{figure.value:.4f} {figure.bootstrap} ESS {figure.overlap.ess:,.0f}"
            )
            print(f"  {figure.name}: {told}")
        if options.save:
            command = f"python benchmarks/ope_world.py FOLDER --pages {options.pages} --save"
            RESULT.write_text(json.dumps({"environment": environment(), "command": command, "levels": out}, indent=2) + "\n")


if __name__ == "__main__":
    main()
