"""The reinforcement learning stage of a run: pages for contexts of the reward window, learned from with both rewards, watched by a canary.

Takes a run with its policy and its rewards; writes ppo.safetensors (what differs from the policy) and ppo.json (the curve, and what became
of it) into its folder. Every iteration draws its randomness from its number and a checkpoint holds all else, so a training that is
killed anywhere and resumed ends with the same bits. Yields `Stats` an iteration.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pagellm.config import RunConfig
from pagellm.data.cohorts import held_out_users
from pagellm.data.contexts import contexts_between, cut_time
from pagellm.data.likeness import Likeness
from pagellm.errors import DataError
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.models.multi_grained import MultiGrainedReward
from pagellm.models.pools import read_contexts
from pagellm.models.reward_files import RewardFacts, load_rewards
from pagellm.models.run import METRICS, PPO_FACTS, Run, save_tuned
from pagellm.models.storage import write_json
from pagellm.training.canary import Canary, canary_contexts
from pagellm.training.later_feedback import LaterFeedback
from pagellm.training.learner import Learner, NotFiniteError
from pagellm.training.metrics_log import MetricsLog, cut, length_of
from pagellm.training.pair_sources import known_since
from pagellm.training.ppo import Stats, ppo
from pagellm.training.ppo_checkpoint import CHECKPOINT, Progress, load_progress, save_progress, trained_weights
from pagellm.training.rollouts import Asked, Desk, ask
from pagellm.training.run_rewards import reward_window
from pagellm.training.slot_rewards import Mixed
from pagellm.training.watch import Watch
from pagellm.types import Contexts, PageBatch, PageReward

_FEWEST = 30  # contexts of the canary: with fewer it says nothing


def learn_pages(run: Run, layout: Layout, tell: Callable[[str], None]) -> Iterator[Stats]:
    """Learns from the run's rewards, keeps a policy as `watch` says, and saves it with what became of the training.

    A training whose updates are no longer finite ends there, with the best policy so far. The checkpoint is the caller's to remove.
    """
    config = run.config
    stage = open_stage(run, layout)
    progress = stage.progress
    path, metrics = run.folder / CHECKPOINT, run.folder / METRICS
    if path.exists():
        load_progress(path, progress, config.ppo)
        cut(metrics, progress.metrics_bytes)
    else:
        stage.look(0.0, 0.0)
        progress.metrics_bytes = length_of(metrics)
        save_progress(path, progress)
    saved_at = time.monotonic()
    with MetricsLog(metrics) as file:
        for stats in stage.iterations():
            file.write(stats)
            progress.watch.count(stats)
            if stats.step % config.ppo.canary_every == 0 or stats.step == stats.steps or progress.watch.stopped:
                stage.look(stats.kl, stats.reward)
            if time.monotonic() - saved_at >= config.sft.checkpoint_s:
                progress.metrics_bytes = file.saved()
                save_progress(path, progress)
                saved_at = time.monotonic()
            yield stats
    health, cause, following = progress.watch.verdict
    tell(f"PPO: {health}: {cause}. {following}")
    save_tuned(run.folder, progress.best, stage.likeness)
    write_json(run.folder / PPO_FACTS, progress.watch.as_json())


@dataclass
class Stage:
    """What the stage works with."""

    asked: Asked
    desk: Desk
    likeness: Likeness
    reward: PageReward
    progress: Progress
    config: RunConfig

    def contexts_of(self, iteration: int) -> Asked:
        """Contexts of one iteration."""
        return self.asked.drawn(self.config.ppo.contexts, self.config.seed, iteration)

    def iterations(self) -> Iterator[Stats]:
        """What is left to learn, until the watch stops it."""
        watch, config = self.progress.watch, self.config
        learning = ppo(self.progress.learner, self.contexts_of, self.reward, config.ppo, self.desk, config.seed)
        try:
            for stats in () if watch.stopped else learning:  # it may have been stopped before it was interrupted
                yield stats
                if watch.stopped:
                    return
        except NotFiniteError as problem:
            watch.give_up(str(problem))

    def look(self, kl: float, reward: float) -> None:
        """Looks at the canary and keeps the weights where they are the best so far."""
        progress = self.progress
        sighting = progress.canary.sight(progress.learner.net, progress.learner.step, kl, reward)
        if progress.watch.see(sighting):
            progress.best = trained_weights(progress.learner)


def open_stage(run: Run, layout: Layout) -> Stage:
    """Everything at its start. Raises DataError where the reward window or the held-out users bring too little."""
    config, log = run.config, run.split.log
    likeness = run.likeness
    rewards, facts = load_rewards(run)
    rewards.caution, rewards.stepwise = config.ppo.caution, config.ppo.stepwise
    end = windows(run)[0][1]
    desk = Desk(compile_layout(layout, run.catalog, end), config.model.max_history)
    since = known_since(log, run.impressions, run.catalog)
    learned, watched = asked_contexts(run)
    net = copy.deepcopy(run.net)
    net.page_evidence.attach(likeness)
    canary = Canary(
        ask(run, watched, since, desk.rules, config.ppo.candidates), desk, facts.look, likeness, config.ppo.duplicate_cost
    )
    learner = Learner.start(net, run.net, config.ppo, config.seed)
    if learner.rests:
        canary.h = read_contexts(net, watched, desk.max_history)
    progress = Progress(learner, (rewards.page, rewards.item), canary, Watch(config.ppo))
    asked = ask(run, learned, since, desk.rules, config.ppo.candidates)
    return Stage(asked, desk, likeness, learning_reward(rewards, facts, config), progress, config)


def learning_reward(rewards: MultiGrainedReward, facts: RewardFacts, config: RunConfig) -> PageReward:
    """The multi-grained reward, whitened by the pages that the policy writes, with the verifiable one beside it where it has weight."""

    def learned(pages: PageBatch) -> np.ndarray:
        return rewards(pages, learn=True)

    if not config.ppo.verifiable:
        return learned
    return Mixed([(1.0, learned), (config.ppo.verifiable, LaterFeedback(facts.look))])


def windows(run: Run) -> tuple[tuple[int, int], tuple[int, int]]:
    """(seconds that are learned from, seconds that choices are made on), [begin, end) each."""
    learned = reward_window(run.split, run.config)
    return learned, (learned[1], cut_time(run.split.log, run.config.split.test_at))


def asked_contexts(run: Run) -> tuple[Contexts, Contexts]:
    """(contexts that pages are learned from, contexts of held-out users that the canary looks at): warm, with a next basket.

    Raises DataError where either are too few.
    """
    config, log = run.config, run.split.log
    held = held_out_users(log.user_ids, config.split.held_out)
    learned, watched = (contexts_between(log, *window) for window in windows(run))
    learned = learned.take(learned.warm & ~held[learned.user])
    watched = watched.take(watched.warm & held[watched.user] & (watched.target_stop > watched.stop))
    for words, contexts, least in (("reward window", learned, 1), ("window of choices", watched, _FEWEST)):
        if len(contexts) < least:
            raise DataError(
                f"The {words} holds {len(contexts)} contexts of users with a history ({'held-out' if contexts is watched else 'other'} "
                f"users), and reinforcement learning needs at least {least}. Bring a longer log, or raise split.held_out "
                f"({config.split.held_out:g})."
            )
    rng = np.random.default_rng((config.seed, 12))
    learned = learned.take(np.sort(rng.permutation(len(learned))[: config.ppo.most_contexts]))
    return learned, canary_contexts(watched, config.ppo, config.seed)
