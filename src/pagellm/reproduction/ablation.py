"""The ablation: does learning from both rewards make better pages than either alone, than other ways to learn, than no learning?

    for each data set and seed: a run up to its rewards → supervised controls → re-rankers over their range → learned arms

Every step leaves a file, and what has one is not done again. All arms start at the run's policy, learn from the same rewards on the same
contexts, and stay within the same distance. A learned arm is judged as it was learned (base `start`) and put on supervised policies of more
labels, as a shop would serve it: what it has learned of repetition on any of them, its evidence head on a later language model.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pagellm.config import RunConfig, adjust
from pagellm.data.preferences.pairs import Family, Pairs, read_pairs
from pagellm.data.readers import read_log
from pagellm.evaluation.baselines import rerank
from pagellm.models.multi_grained import MultiGrainedReward, Whitening
from pagellm.models.policy import PolicyNet
from pagellm.models.reward_files import load_rewards
from pagellm.models.run import PAIRS, PPO, PPO_FACTS, REWARD, REWARD_FACTS, Run, load_run, run_layout
from pagellm.models.storage import MANIFEST, read_tensors, write_tensors
from pagellm.models.threads import set_threads
from pagellm.pipeline import finished, stage_config, train_run
from pagellm.reproduction.arms import DIALS, FARTHEST, Arm, Dial, learned_arms
from pagellm.reproduction.jobs import Arrays, Job, Matrix, Outcome, plain_name, plain_names
from pagellm.reproduction.stand import Base, Stand, of_pages, single_row
from pagellm.reproduction.supervised import (
    BOTH,
    CONTROLS,
    HEAD,
    REFRESHED,
    START,
    with_head_of,
    with_later_head,
    with_later_language_model,
    with_page_evidence,
)
from pagellm.training.alternatives import best_of_n, rejection_sampling
from pagellm.training.dpo import dpo, duels_of
from pagellm.training.learner import Learner
from pagellm.training.pair_sources import known_since
from pagellm.training.ppo import ppo
from pagellm.training.rollouts import Asked
from pagellm.training.run_ppo import learning_reward
from pagellm.types import I32, PageBatch

Tell = Callable[[str], None]

BEST_OF = 64
_SMOOTH = 5  # last iterations that an arm's distance and reward are the mean of


def run_ablation(
    data: Sequence[Path], out: Path, seeds: int, groups: Sequence[str], profile: str, settings: Sequence[str], tell: Tell
) -> Matrix:
    """Does what is missing of the matrix.

    Raises UsageError where `out` was begun with other settings or data, or where two data sets have one name.
    """
    arms = learned_arms(groups)
    names = plain_names(data)
    logs = {name: read_log(folder).fingerprint for name, folder in zip(names, data, strict=True)}
    made_with: dict[str, Any] = {"profile": profile, "settings": list(settings), **{f"data {k}": v for k, v in logs.items()}}
    matrix = Matrix.open(out, made_with)
    for name, folder in zip(names, data, strict=True):
        for seed in range(seeds):
            bench = Bench(folder, out / "runs" / f"{name}-{seed}", seed, profile, tuple(settings), tell)
            matrix.run(jobs_of(bench, arms, "controls" in groups), tell)
    return matrix


def jobs_of(bench: Bench, arms: Sequence[Arm], controls: bool) -> Iterator[Job]:
    """The jobs of one data set and seed, in order."""
    prefix = f"{plain_name(bench.data)}/{bench.seed}"
    if controls:
        for name in CONTROLS:
            yield Job(f"{prefix}/sft.{name}", partial(bench.supervised, name))
        for name in CONTROLS:
            for dial in DIALS if bench.one_row else ():
                for value in dial.values:
                    yield Job(f"{prefix}/{dial.name}.{name}.{value:g}", partial(bench.reranked, name, dial, value))
    for arm in arms:
        yield Job(f"{prefix}/{arm.name}", partial(bench.learned, arm))


@dataclass(frozen=True)
class Bench:
    """One data set and seed: its run, its stand, its controls, each made when it is first needed."""

    data: Path
    folder: Path  # of the run
    seed: int
    profile: str
    settings: tuple[str, ...]
    tell: Tell

    @cached_property
    def run(self) -> Run:
        """The run up to its rewards, trained where it is not there."""
        return _trained(self.data, self.folder, stage_config("reward", self.profile, self.settings, self.seed), self.tell)

    @cached_property
    def stand(self) -> Stand:
        """What arms share."""
        set_threads(self.run.config)
        return Stand.of(self.run, self.data)

    @cached_property
    def nets(self) -> dict[str, PolicyNet]:
        """The supervised policies by name."""
        head, language_model = self._kept(HEAD, with_later_head), self._kept(REFRESHED, with_later_language_model)
        return {START: self.run.net, HEAD: head, REFRESHED: language_model, BOTH: with_head_of(language_model, head)}

    @cached_property
    def bases(self) -> dict[str, Base]:
        """What is judged with which candidates."""
        return {name: self.stand.base(net) for name, net in self.nets.items()}

    @property
    def one_row(self) -> bool:
        """Whether pages are one row, which is all that re-rankers know."""
        return len(run_layout(self.run, self.run.config.pairs.slots).rows) == 1

    def supervised(self, name: str) -> Outcome:
        """A supervised policy as it is."""
        return Outcome(_named(name, self.stand.figures(self.bases[name], self.nets[name], "nothing")), _notes("sft", "none", ""))

    def reranked(self, name: str, dial: Dial, value: float) -> Outcome:
        """A supervised policy's order, re-ranked."""
        base, likeness, slots = self.bases[name], self.stand.likeness, self.run.config.pairs.slots
        pages = {}
        for part, judged in base.items():
            logits, pool = judged.logits, judged.asked.pool
            items: I32
            if dial.name == "mmr":
                items = rerank.mmr(logits, pool, likeness.titles, slots, value)
            elif dial.name == "dpp":
                items = rerank.dpp(logits, pool, likeness.titles, slots, value)
            else:
                items = rerank.priced(logits, pool, likeness.titles, slots, value, likeness.alike)
            pages[part] = single_row(judged.asked, items)
        return Outcome(_named(name, of_pages(base, pages)), _notes(dial.name, "none", f"{dial.letter}={value:g}"))

    def learned(self, arm: Arm) -> Outcome:
        """Learns an arm and judges it."""
        stand, config = self.stand, adjust(self.run.config, arm.settings)
        rewards = self._rewards(arm, config)
        notes = _notes(arm.method, arm.reward, arm.setting)
        if arm.method == "best-of-n":
            return Outcome(_named(START, of_pages(self.bases[START], self._best_pages(rewards, config))), notes | {"n": BEST_OF})
        net = copy.deepcopy(self.run.net)
        net.page_evidence.attach(stand.likeness)
        learner = Learner.start(net, self.run.net, config.ppo, self.seed)
        stats = within_budget(self._learning(arm, learner, rewards, config), net, FARTHEST)
        last = stats[-_SMOOTH:]
        for name, figure in (("kl", "kl"), ("learned_reward", "reward")):
            if hasattr(last[0], figure):  # DPO has neither
                notes[name] = float(np.mean([getattr(step, figure) for step in last]))
        arrays: Arrays = {}
        for name, judged in self._put_on(net, config.ppo.learn).items():
            arrays |= _named(name, stand.figures(self.bases[name], judged, config.ppo.learn))
        return Outcome(arrays, notes)

    def _put_on(self, net: PolicyNet, learned: str) -> dict[str, PolicyNet]:
        """By base: the learned policy as it is, and what was learned on supervised policies of more labels, where it belongs to no other
        part of the policy."""
        on = {START: net}
        if learned == "repetition":
            on |= {name: with_page_evidence(self.nets[name], net) for name in (HEAD, REFRESHED, BOTH)}
        if learned == "evidence":
            on[REFRESHED] = with_page_evidence(with_head_of(self.nets[REFRESHED], net), net)
        return on

    def _learning(self, arm: Arm, learner: Learner, rewards: MultiGrainedReward, config: RunConfig) -> Iterator[Any]:
        if arm.method == "dpo":
            shown, log = self.run.impressions, self.run.split.log
            pages = None if shown is None else shown.page_ids
            pairs = _driving(read_pairs(self.run.folder / PAIRS, self.run.catalog, log.user_ids, pages), arm.reward)
            since = known_since(log, shown, self.run.catalog)
            duels = duels_of(self.run, pairs, since, self.stand.desk, config.ppo, self.seed)
            return dpo(learner, duels, config.ppo, self.seed)
        learn = rejection_sampling if arm.method == "rejection" else ppo
        reward = learning_reward(rewards, self.stand.facts, config)

        def contexts_of(iteration: int) -> Asked:
            return self.stand.asked.drawn(config.ppo.contexts, self.seed, iteration)

        return learn(learner, contexts_of, reward, config.ppo, self.stand.desk, self.seed)

    def _rewards(self, arm: Arm, config: RunConfig) -> MultiGrainedReward:
        """The rewards of an arm: its weights of the families, whitened anew; relearned where its pairs are noisy."""
        model = self.stand.rewards.model
        if arm.noise:
            folder = self.folder.with_name(f"{self.folder.name}-noise{arm.noise:g}")
            noisy = stage_config("reward", self.profile, (*self.settings, f"reward.noise={arm.noise}"), self.seed)
            if not finished(folder):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(
                    self.folder, folder, ignore=shutil.ignore_patterns(MANIFEST, PAIRS, REWARD, REWARD_FACTS, PPO, PPO_FACTS)
                )
            model = load_rewards(_trained(self.data, folder, noisy, self.tell))[0].model
        model = replace(model, config=config.reward)
        return MultiGrainedReward(model, Whitening(), Whitening(), config.ppo.caution, config.ppo.stepwise)

    def _best_pages(self, rewards: MultiGrainedReward, config: RunConfig) -> dict[str, PageBatch]:
        rng, reward = np.random.default_rng((self.seed, 14)), learning_reward(rewards, self.stand.facts, config)
        return {
            part: best_of_n(self.run.net, judged.asked, self.stand.desk, reward, BEST_OF, config.ppo.temperature, rng)
            for part, judged in self.bases[START].items()
        }

    def _kept(self, name: str, make: Callable[[Run], PolicyNet]) -> PolicyNet:
        """A network that is made once and then read from its file beside the run."""
        path = self.folder.with_name(f"{self.folder.name}.{name}.safetensors")
        if not path.exists():
            self.tell(f"{self.folder.name}: fitting the supervised control {name}")
            write_tensors(path, dict(make(self.run).state_dict()))
        net = copy.deepcopy(self.run.net)
        net.load_state_dict(read_tensors(path)[0])
        return net.eval()


def within_budget(steps: Iterable[Any], net: PolicyNet, farthest: float) -> list[Any]:
    """Learns to the end and leaves in `net` the last policy that was not found to be farther than so many nats a page; returns the
    statistics up to there. What has no distance is left as it is learned.

    The distance of step i is that of the pages which the policy before that step wrote, so the policy after the last step is taken where
    the one before it was near enough.
    """
    done: list[Any] = []
    before, kept, count = _weights(net), _weights(net), 0
    for step in steps:
        done.append(step)
        if getattr(step, "kl", 0.0) <= farthest:
            kept, count = before, len(done)
        before = _weights(net)
    if getattr(done[-1], "kl", 0.0) > farthest:
        net.load_state_dict(kept, strict=False)
        return done[:count]
    return done


def _weights(net: PolicyNet) -> dict[str, Tensor]:
    """Copies of what is trained."""
    return {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}


def _trained(data: Path, folder: Path, config: RunConfig, tell: Tell) -> Run:
    if not finished(folder):
        tell(f"{folder.name}: training up to the rewards")
        for _ in train_run(data, folder, config, resume=folder.exists(), tell=tell, until="reward"):
            pass
    return load_run(folder)


def _driving(pairs: Pairs, reward: str) -> Pairs:
    """The pairs that stand behind a reward: those of whole pages, the swaps, or all."""
    swap = pairs.family == Family.SWAP
    return pairs.take(np.flatnonzero({"joint": swap | ~swap, "page": ~swap, "item": swap}[reward]))


def _named(base: str, figures: Arrays) -> Arrays:
    return {f"{base}/{name}": values for name, values in figures.items()}


def _notes(method: str, reward: str, setting: str) -> dict[str, Any]:
    return {"method": method, "reward": reward, "setting": setting}
