"""The reward stage of a run: pairs from feedback later than what the policy has learned from, and both rewards from the pairs.

Takes a run with its policy, writes pairs.parquet, reward.safetensors and reward.json into its folder. Each file appears whole; a stage that
is killed is done again and gives the same bits. Yields a `Step` a gradient step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from pagellm.config import RunConfig
from pagellm.data.cohorts import held_out_users
from pagellm.data.contexts import contexts_between
from pagellm.data.log import Log
from pagellm.data.look import Look
from pagellm.data.preferences.mining import MiningReport
from pagellm.data.preferences.pairs import Family, Pairs, write_pairs
from pagellm.data.preferences.situations import logged_contexts
from pagellm.data.splits import Split
from pagellm.data.whole_files import remove
from pagellm.errors import DataError
from pagellm.models.composer import PolicyRanker
from pagellm.models.device import device_of
from pagellm.models.multi_grained import RewardModel
from pagellm.models.page_inputs import PageReader
from pagellm.models.reward import RewardNet
from pagellm.models.reward_files import RewardFacts, made_with, write_rewards
from pagellm.models.run import LAYOUT, METRICS, PAIRS, REWARD, REWARD_FACTS, Run, make_schedule, run_layout
from pagellm.training.metrics_log import MetricsLog, drop_stages
from pagellm.training.own_pages import measure_spread, own_pages, whitened
from pagellm.training.pair_sources import Found, PairSource, known_since, mine_source, policy_candidates
from pagellm.training.reward_modeling import Engagement, calibrate, fit_rewards, pair_table
from pagellm.training.sft import Step
from pagellm.types import NO_ITEM

_FEWEST_USERS = 10  # with fewer, pairs tell who they are of
_OWN = 500  # contexts for which the policy's own pages are looked at
_LIKELY = 5  # times the slots of a page: as many of the policy's favorites are looked at in calibration, where pages are made


def learn_rewards(run: Run, tell: Callable[[str], None]) -> Iterator[Step]:
    """Mines pairs from the run's reward window, fits both rewards, calibrates them and saves all of it."""
    config = run.config
    source = reward_source(run)
    likeness = run.likeness
    pairs, report, found = mine_source(source, likeness, config.pairs, config.seed, config.split.repeats)
    _check(report)
    tell(f"Pairs: {len(pairs):,} from {report.engaged:,} pages; what was seen: {report.examination}")
    page_ids = None if run.impressions is None else run.impressions.page_ids
    write_pairs(run.folder / PAIRS, pairs, run.catalog, run.split.log.user_ids, page_ids, {"data": str(run.facts["fingerprint"])})
    look = Look.learned(found.examination)
    reader = PageReader(run.net, run.evidence, likeness, run.catalog.shown, config.model.max_history)
    table = pair_table(_drawn(pairs, config.reward.pairs, config.seed), run.split.log, reader, look)
    if config.reward.noise:
        table = table.exchanged(config.reward.noise, config.seed)
    torch.manual_seed(config.seed)
    net = RewardNet(config.reward, config.split.repeats, len(reader.columns)).to(device_of(run.net))
    metrics = run.folder / METRICS
    drop_stages(metrics, "reward")
    with MetricsLog(metrics) as file:
        for step in fit_rewards(net, table, config.reward, config.seed):
            file.write(step)
            yield step
    net.eval()
    for name in calibrate(net, engagement_of(run, source, found, reader)):
        tell(
            f"The {name} head tells engaged items from others no better than chance (too little feedback): it says one chance of all"
        )
    own = own_pages(source, reader, look, _places(run), config.ppo.temperature, _OWN, config.seed)
    measure_spread(net, own)
    page, item = whitened(RewardModel(net, reader, look, config.reward), own)
    facts = RewardFacts(
        look,
        report.families,
        report.effective,
        report.examination,
        (page.count, page.mean, page.squares, page.freedom),
        (item.count, item.mean, item.squares, item.freedom),
        made_with(run),
    )
    write_rewards(run.folder, net, facts)


def _places(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) [slot] of a page: of the shop's layout, else of the newest logged page, else one row of `pairs.slots`."""
    shown = run.impressions
    if shown is not None and len(shown) and not (run.folder / LAYOUT).exists():
        newest = int(shown.time.argmax())
        slots = slice(int(shown.offsets[newest]), int(shown.offsets[newest + 1]))
        return shown.row[slots], shown.col[slots]
    sizes = [row.capacity for row in run_layout(run, run.config.pairs.slots).rows]
    return np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(size) for size in sizes])


def _drawn(pairs: Pairs, most: int, seed: int) -> Pairs:
    """At most so many of the pairs, in their order: of each family alike, more of those where others have fewer."""
    if len(pairs) <= most:
        return pairs
    rng, left, chosen = np.random.default_rng((seed, 3)), most, []
    families = sorted((np.flatnonzero(pairs.family == family) for family in Family), key=len)
    for place, some in enumerate(families):
        share = min(len(some), left // (len(families) - place))
        chosen.append(rng.permutation(some)[:share])
        left -= share
    return pairs.take(np.sort(np.concatenate(chosen)))


def drop_rewards(folder: Path) -> None:
    """Removes what an attempt that failed has left, so that the run is again one of its policy alone."""
    for name in (PAIRS, REWARD_FACTS, REWARD):
        remove(folder / name)


def reward_source(run: Run) -> PairSource:
    """The window of feedback that the run's rewards learn from, of users who are not held out.

    Raises RunError through `make_schedule` where the run leaves no such window.
    """
    begin, end = reward_window(run.split, run.config)
    users = ~held_out_users(run.split.log.user_ids, run.config.split.held_out)
    since = known_since(run.split.log, run.impressions, run.catalog)
    return PairSource(run.split.log, run.impressions, policy_candidates(run, since), begin, end, since, users)


def reward_window(split: Split, config: RunConfig) -> tuple[int, int]:
    """[begin, end) in unix seconds of the feedback that rewards and pages are learned from."""
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
        contexts = contexts.take(contexts.warm & source.counts(contexts.user))
        contexts = contexts.take(np.sort(rng.permutation(len(contexts))[:most]))
        pool = PolicyRanker(run, source.allowed, since=source.since).rank(contexts, _LIKELY * run.config.pairs.slots)
        engaged = np.stack([np.isin(row, contexts.target(c)) for c, row in enumerate(pool)])
        seen = (pool != NO_ITEM).astype(np.float32)
    else:
        inside = (shown.time >= source.begin) & (shown.time < source.end) & source.counts(shown.user)
        pages = np.sort(rng.permutation(np.flatnonzero(inside))[: 4 * most])
        slot, filled = shown.slots_of(pages)
        engaged = shown.engaged[slot] & filled
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


def check_feedback(log: Log, split: Split, config: RunConfig) -> Iterator[str]:
    """Yields what people should know of feedback that says little, before anything is trained.

    Raises DataError where rewards cannot be learned from it.
    """
    begin, end = reward_window(split, config)
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
