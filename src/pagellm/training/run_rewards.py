"""The reward stage of a run: pairs from feedback later than what the policy has learned from, and both rewards from the pairs.

Takes a run with its policy, writes pairs.parquet, reward.safetensors and reward.json into its folder. Each file appears whole; a stage that
is killed is done again and gives the same bits. Yields a `Step` a gradient step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pagellm.config import RunConfig
from pagellm.data.cohorts import held_out_users
from pagellm.data.contexts import contexts_between
from pagellm.data.likeness import likeness_of
from pagellm.data.log import Log
from pagellm.data.look import Look
from pagellm.data.preferences.mining import MiningReport
from pagellm.data.preferences.pairs import Pairs, write_pairs
from pagellm.data.preferences.situations import logged_contexts
from pagellm.data.splits import Split
from pagellm.errors import DataError
from pagellm.models.multi_grained import RewardModel, Whitening
from pagellm.models.page_inputs import PageReader
from pagellm.models.reward import RewardNet
from pagellm.models.reward_files import RewardFacts, write_rewards
from pagellm.models.run import METRICS, PAIRS, REWARD, REWARD_FACTS, Run, make_schedule
from pagellm.models.storage import write_bytes
from pagellm.training.pair_sources import Candidates, Found, PairSource, known_before, mine_source, policy_candidates
from pagellm.training.reward_modeling import Engagement, calibrate, fit_rewards, measure_spread, pair_table
from pagellm.training.sft import Step
from pagellm.types import I32, NO_ITEM, Bool, Contexts

_FEWEST_USERS = 10  # with fewer, pairs tell who they are of
_LIKELY = 5  # times the slots of a page: as many of the policy's favorites are looked at in calibration


def learn_rewards(run: Run, tell: Callable[[str], None]) -> Iterator[Step]:
    """Mines pairs from the run's reward window, fits both rewards, calibrates them and saves all of it."""
    config = run.config
    source = reward_source(run)
    likeness = likeness_of(run.catalog, run.content, config.pairs.alike)
    pairs, report, found = mine_source(source, run.catalog, likeness, config.pairs, config.seed, config.split.repeats)
    _check(report)
    tell(f"Pairs: {len(pairs):,} from {report.engaged:,} pages; what was seen: {report.examination}")
    page_ids = None if run.impressions is None else run.impressions.page_ids
    write_pairs(run.folder / PAIRS, pairs, run.catalog, run.split.log.user_ids, page_ids, {"data": str(run.facts["fingerprint"])})
    look = Look.learned(found.examination)
    reader = PageReader(run.net, run.evidence, likeness, run.catalog.shown, config.model.max_history)
    table = pair_table(_drawn(pairs, config.reward.pairs, config.seed), run.split.log, reader, look)
    torch.manual_seed(config.seed)
    net = RewardNet(config.reward, config.split.repeats)
    metrics = run.folder / METRICS
    write_bytes(metrics, _before_rewards(metrics.read_bytes() if metrics.exists() else b""))
    with open(metrics, "ab") as file:
        for step in fit_rewards(net, table, config.reward, config.seed):
            file.write((json.dumps(asdict(step)) + "\n").encode())
            yield step
    net.eval()
    for name in calibrate(net, engagement_of(run, source, found, reader)):
        tell(
            f"The {name} head tells engaged items from others no better than chance (too little feedback): it says one chance of all"
        )
    measure_spread(net, table)
    model = RewardModel(net, reader, look, config.reward)
    page, item = Whitening(), Whitening()
    order = np.argsort(table.pages.place, kind="stable")
    for some in np.split(
        order, np.searchsorted(table.pages.place[order], np.arange(0, int(table.pages.place.max()) + 500, 500))[1:]
    ):
        if len(some):  # all pages of some contexts
            scores = model.of_inputs(table.pages.inputs(some))
            page.update(scores.page_total.mean(1), table.pages.place[some])
            item.update(scores.item.mean(2).sum(1), table.pages.place[some])
    facts = RewardFacts(
        look,
        report.families,
        report.effective,
        report.examination,
        (page.count, page.mean, page.squares, page.freedom),
        (item.count, item.mean, item.squares, item.freedom),
    )
    write_rewards(run.folder, net, facts)


def _drawn(pairs: Pairs, most: int, seed: int) -> Pairs:
    """At most so many of the pairs, in their order."""
    if len(pairs) <= most:
        return pairs
    return pairs.take(np.sort(np.random.default_rng((seed, 3)).permutation(len(pairs))[:most]))


def drop_rewards(folder: Path) -> None:
    """Removes what an attempt that failed has left, so that the run is again one of its policy alone."""
    for name in (PAIRS, REWARD_FACTS, REWARD):
        (folder / name).unlink(missing_ok=True)


def _before_rewards(metrics: bytes) -> bytes:
    """The metrics file without the steps of an earlier attempt that was killed, perhaps in the middle of a line."""
    lines = metrics.splitlines(keepends=True)
    return b"".join(line for line in lines if line.endswith(b"\n") and b'"stage": "reward"' not in line)


def reward_source(run: Run) -> PairSource:
    """The window of feedback that the run's rewards learn from, of users who are not held out.

    Raises RunError through `make_schedule` where the run leaves no such window.
    """
    begin, end = _window(run.split, run.config)
    users = ~held_out_users(run.split.log.user_ids, run.config.split.held_out)
    known = known_before(run.split.log, run.catalog, begin)
    return PairSource(run.split.log, run.impressions, policy_candidates(run, known), begin, end, known, users)


def _window(split: Split, config: RunConfig) -> tuple[int, int]:
    rewards = make_schedule(split, config).rewards
    assert rewards is not None, "the pipeline asks for rewards only where split.reward_at is set"
    return rewards


def engagement_of(run: Run, source: PairSource, found: Found, reader: PageReader) -> Engagement:
    """What calibration looks at: seen slots of logged pages; without pages the policy's favorites in drawn contexts."""
    rng = np.random.default_rng((run.config.seed, 2))
    most = run.config.reward.contexts
    log, shown = run.split.log, run.impressions
    if shown is None:
        contexts = contexts_between(log, source.begin, source.end)
        contexts = contexts.take(contexts.warm & _users(source, contexts.user))
        contexts = contexts.take(np.sort(rng.permutation(len(contexts))[:most]))
        pool = _favorites(source.candidates, contexts, _LIKELY * run.config.pairs.slots)
        engaged = np.stack([np.isin(row, contexts.target(c)) for c, row in enumerate(pool)])
        seen = (pool != NO_ITEM).astype(np.float32)
    else:
        inside = (shown.time >= source.begin) & (shown.time < source.end) & _users(source, shown.user)
        pages = np.sort(rng.permutation(np.flatnonzero(inside))[: 4 * most])
        sizes = np.diff(shown.offsets)[pages]
        filled = np.arange(int(sizes.max(initial=1))) < sizes[:, None]
        slot = np.where(filled, shown.offsets[pages][:, None] + np.arange(filled.shape[1]), 0)
        engaged = (shown.clicked | shown.carted | shown.purchased)[slot] & filled
        look = Look.learned(found.examination).of(np.where(filled, shown.item[slot], NO_ITEM), shown.row[slot], shown.col[slot])
        known = np.where(shown.viewed[slot] >= 0, shown.viewed[slot] == 1, look)
        seen = np.where(engaged, 1, known) * (filled & run.catalog.shown[shown.item[slot]])
        pool = np.where(seen > 0, shown.item[slot], NO_ITEM).astype(np.int32)
        contexts = logged_contexts(shown, log, pages)
    rows = [
        reader.features(contexts.take(some), pool[some])[seen[some] > 0]
        for some in np.array_split(np.arange(len(contexts)), max(1, len(contexts) // 256))
    ]
    return Engagement(np.concatenate(rows), engaged[seen > 0], seen[seen > 0].astype(np.float32))


def _favorites(candidates: Candidates, contexts: Contexts, most: int) -> I32:
    """The candidates that the policy likes best, NO_ITEM where there are fewer. Shape [context, most].

    Chances must be right where pages are made, and a page holds none of the many candidates that nobody would put there.
    """
    out = np.full((len(contexts), most), NO_ITEM, np.int32)
    for some in np.array_split(np.arange(len(contexts)), max(1, len(contexts) // 256)):
        pool, logits = candidates(contexts.take(some))
        best = np.argsort(-logits, axis=1, kind="stable")[:, :most]
        out[some, : best.shape[1]] = np.take_along_axis(pool, best, 1)
    return out


def _users(source: PairSource, user: np.ndarray) -> Bool:
    return np.ones(len(user), bool) if source.users is None else source.users[user]


def check_feedback(log: Log, split: Split, config: RunConfig) -> Iterator[str]:
    """Yields what people should know of feedback that says little, before anything is trained.

    Raises DataError where rewards cannot be learned from it.
    """
    begin, end = _window(split, config)
    events = split.log
    inside = (events.time >= begin) & (events.time < end)
    held = held_out_users(events.user_ids, config.split.held_out)
    every = np.unique(events.user[inside])
    users = int((~held[every]).sum())
    if users < _FEWEST_USERS:
        raise DataError(
            f"The reward window holds feedback of {users} users (column user_id; {len(every)} with those held out), "
            f"and rewards need at least {_FEWEST_USERS}. Bring a longer log, or widen the window: a smaller split.reward_at."
        )
    shown = log.impressions
    if shown is not None and not (shown.carted | shown.purchased).any():
        yield (
            f"All {int(shown.clicked.sum()):,} engagements of the pages are clicks (column event of the events file), so pairs cannot tell "
            "what was bought from what was looked at. Add add_to_cart and purchase events if the shop has them."
        )


def _check(report: MiningReport) -> None:
    """Raises DataError where a family has nothing to learn from."""
    lacking = [name for name, count in report.families.items() if not count]
    if lacking:
        raise DataError(
            f"The reward window brings no pair of: {', '.join(lacking)} ({report.engaged:,} pages with feedback). Widen it: a smaller "
            "split.reward_at, or pairs.slots that fit the pages."
        )
