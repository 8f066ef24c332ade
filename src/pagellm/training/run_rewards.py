"""The reward stage of a run: pairs from feedback later than what the policy has learned from, and both rewards from the pairs.

Takes a run with its policy, writes pairs.parquet, reward.safetensors and reward.json into its folder. Each file appears whole; a stage that
is killed is done again and gives the same bits. Yields a `Step` a gradient step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
import torch

from pagellm.data.cohorts import held_out_users
from pagellm.data.contexts import contexts_between
from pagellm.data.likeness import likeness_of
from pagellm.data.look import Look
from pagellm.data.preferences.mining import MiningReport
from pagellm.data.preferences.pairs import write_pairs
from pagellm.data.preferences.situations import logged_contexts
from pagellm.errors import DataError
from pagellm.models.multi_grained import RewardModel, Whitening
from pagellm.models.page_inputs import PageReader
from pagellm.models.reward import RewardNet
from pagellm.models.reward_files import RewardFacts, write_rewards
from pagellm.models.run import METRICS, PAIRS, Run, make_schedule
from pagellm.models.storage import write_bytes
from pagellm.training.pair_sources import Candidates, Found, PairSource, mine_source, policy_candidates
from pagellm.training.reward_modeling import Engagement, calibrate, fit_rewards, measure_spread, pair_table
from pagellm.training.sft import Step
from pagellm.types import I32, NO_ITEM, Bool, Contexts

_FEWEST_USERS = 10  # with fewer, pairs tell who they are of
_LIKELY = 5  # times the slots of a page: as many of the policy's favorites are looked at in calibration

SEEN = 0.5
"""Least chance of having been seen with which a slot of a logged page counts in calibration."""


def learn_rewards(run: Run, tell: Callable[[str], None]) -> Iterator[Step]:
    """Mines pairs from the run's reward window, fits both rewards, calibrates them and saves all of it."""
    config = run.config
    source = reward_source(run)
    for line in _check_feedback(run, source):
        tell(line)
    likeness = likeness_of(run.catalog, run.content, config.pairs.alike)
    pairs, report, found = mine_source(source, run.catalog, likeness, config.pairs, config.seed, config.split.repeats)
    _check(report)
    tell(f"Pairs: {len(pairs):,} from {report.engaged:,} pages; what was seen: {report.examination}")
    page_ids = None if run.impressions is None else run.impressions.page_ids
    write_pairs(run.folder / PAIRS, pairs, run.catalog, run.split.log.user_ids, page_ids, {"data": str(run.facts["fingerprint"])})
    look = Look.learned(found.examination)
    reader = PageReader(run.net, run.evidence, likeness, run.catalog.shown, config.model.max_history)
    table = pair_table(pairs, run.split.log, reader, look)
    torch.manual_seed(config.seed)
    net = RewardNet(config.reward, config.split.repeats)
    metrics = run.folder / METRICS
    write_bytes(metrics, _before_rewards(metrics.read_bytes() if metrics.exists() else b""))
    with open(metrics, "ab") as file:
        for step in fit_rewards(net, table, config.reward, config.seed):
            file.write((json.dumps(asdict(step)) + "\n").encode())
            yield step
    net.eval()
    calibrate(net, engagement_of(run, source, found, reader))
    pages = np.unique(table.chosen)
    measure_spread(net, table)
    model = RewardModel(net, reader, look, config.reward)
    page, item = Whitening(), Whitening()
    for some in np.array_split(pages, max(1, len(pages) // 2_000)):
        scores = model.of_inputs(table.pages.inputs(some))
        page.update(scores.page_total.mean(1))
        item.update(scores.item.mean(2).sum(1))
    facts = RewardFacts(
        look,
        report.families,
        report.effective,
        report.examination,
        (page.count, page.mean, page.squares),
        (item.count, item.mean, item.squares),
    )
    write_rewards(run.folder, net, facts)


def _before_rewards(metrics: bytes) -> bytes:
    """The metrics file without the steps of an earlier attempt that was killed, perhaps in the middle of a line."""
    lines = metrics.splitlines(keepends=True)
    return b"".join(line for line in lines if line.endswith(b"\n") and b'"stage": "reward"' not in line)


def reward_source(run: Run) -> PairSource:
    """The window of feedback that the run's rewards learn from, of users who are not held out.

    Raises RunError through `make_schedule` where the run leaves no such window.
    """
    schedule = make_schedule(run.split, run.config)
    assert schedule.rewards is not None
    users = ~held_out_users(run.split.log.user_ids, run.config.split.held_out)
    return PairSource(run.split.log, run.impressions, policy_candidates(run), *schedule.rewards, users)


def engagement_of(run: Run, source: PairSource, found: Found, reader: PageReader) -> Engagement:
    """What calibration looks at: seen slots of logged pages; without pages the policy's favorites in drawn contexts."""
    rng = np.random.default_rng((run.config.seed, 2))
    most = run.config.reward.contexts
    log, shown = run.split.log, run.impressions
    if shown is None:
        contexts = contexts_between(log, source.begin, source.end)
        contexts = contexts.take(contexts.warm & _users(source, contexts.user))
        contexts = contexts.take(np.sort(rng.permutation(len(contexts))[:most]))
        known = np.bincount(log.item[log.time < source.begin], minlength=len(run.catalog)) > 0
        pool = _favorites(policy_candidates(run, known), contexts, _LIKELY * run.config.pairs.slots)
        engaged = np.stack([np.isin(row, contexts.target(c)) for c, row in enumerate(pool)])
        seen = pool != NO_ITEM
    else:
        inside = (shown.time >= source.begin) & (shown.time < source.end) & _users(source, shown.user)
        pages = np.sort(rng.permutation(np.flatnonzero(inside))[: 4 * most])
        sizes = np.diff(shown.offsets)[pages]
        filled = np.arange(int(sizes.max(initial=1))) < sizes[:, None]
        slot = np.where(filled, shown.offsets[pages][:, None] + np.arange(filled.shape[1]), 0)
        engaged = (shown.clicked | shown.carted | shown.purchased)[slot] & filled
        look = Look.learned(found.examination).of(np.where(filled, shown.item[slot], NO_ITEM), shown.row[slot], shown.col[slot])
        known = np.where(shown.viewed[slot] >= 0, shown.viewed[slot] == 1, look >= SEEN)
        seen = filled & (known | engaged) & run.catalog.shown[shown.item[slot]]
        pool = np.where(seen, shown.item[slot], NO_ITEM).astype(np.int32)
        contexts = logged_contexts(shown, log, pages)
    rows = [
        reader.features(contexts.take(some), pool[some])[seen[some]]
        for some in np.array_split(np.arange(len(contexts)), max(1, len(contexts) // 256))
    ]
    return Engagement(np.concatenate(rows), engaged[seen])


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


def _check_feedback(run: Run, source: PairSource) -> Iterator[str]:
    """Yields what people should know of feedback that says little. Raises DataError where nothing can be learned from it."""
    log, shown = run.split.log, run.impressions
    inside = (log.time >= source.begin) & (log.time < source.end)
    users = len(np.unique(log.user[inside & _users(source, log.user)]))
    if users < _FEWEST_USERS:
        raise DataError(
            f"The reward window holds feedback of {users} users (column user_id; {len(np.unique(log.user[inside]))} with those held out), "
            f"and rewards need at least {_FEWEST_USERS}. Bring a longer log, or widen the window: a smaller split.reward_at."
        )
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
