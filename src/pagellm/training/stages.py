"""All stages of a training in order, from a data folder to a finished run folder: what `pagellm train` does.

    check → supervised policy → rewards → pages → policy fitted on → manifest

A stage that is done has left its file, so a training that was killed anywhere, or that is to go further, does what is missing and ends
with the same bits. Each stage is one function in its own module; this one says which run, and what a failure leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagellm.config import STAGES, RunConfig
from pagellm.data.content import content_vectors
from pagellm.data.log import Log
from pagellm.data.readers import read_log
from pagellm.data.splits import Split
from pagellm.data.whole_files import remove, remove_asides
from pagellm.errors import DataError, PagellmError, RunError, UsageError
from pagellm.models.run import (
    PAIRS,
    POLICY,
    PPO,
    RENEWED,
    REWARD,
    data_facts,
    finish,
    make_evidence,
    make_net,
    make_run_split,
    make_schedule,
    only_begun,
    open_run,
    run_layout,
    save_inputs,
    save_policy,
)
from pagellm.models.storage import MANIFEST, read_json, write_json
from pagellm.models.threads import set_threads
from pagellm.training.cost import counted
from pagellm.training.ppo import Stats
from pagellm.training.ppo_checkpoint import CHECKPOINT
from pagellm.training.run_ppo import learn_pages
from pagellm.training.run_rewards import check_feedback, drop_rewards, learn_rewards
from pagellm.training.run_sft import Job, clear_stages, drop_renewal, renewal, supervised_stages
from pagellm.training.sft import Step

_LEFT = dict(zip(STAGES, (POLICY, REWARD, PPO, RENEWED), strict=True))  # by what file a stage is known to be done


@dataclass(frozen=True)
class Training:
    """One training of one run folder."""

    data: Path
    folder: Path
    config: RunConfig
    until: str  # of STAGES
    resume: bool
    tell: Callable[[str], None]

    def run(self) -> Iterator[Step | Stats]:
        """Does what is missing. Yields a `Step` a gradient step, `Stats` an iteration of ppo; ends with a finished run.

        Raises UsageError where the folder already holds something and `resume` is not asked for, RunError where what it holds was made
        from other data or with another configuration, DataError where the data bring too little for a stage; those before it are kept.
        """
        if self._nothing_to_do():
            self.tell(f"{self.folder} is already finished: nothing to do.")
            return
        log, split = self._opened()
        if self._missing("sft"):
            yield from self._supervised(log, split)
        if self.until != "renew" or self._missing("ppo"):
            drop_renewal(self.folder)
        if self._missing("reward"):
            yield from self._rewards()
        if self._missing("ppo"):
            yield from self._pages()
        if self._missing("renew"):
            with self._finished_before(), counted(self.folder, "renew"):
                yield from renewal(open_run(self.folder))
        finish(self.folder)
        clear_stages(self.folder)

    def _missing(self, stage: str) -> bool:
        """Whether a stage is asked for and not done."""
        if STAGES.index(stage) > STAGES.index(self.until):
            return False
        unfinished = stage == "ppo" and (self.folder / CHECKPOINT).exists()
        return unfinished or not (self.folder / _LEFT[stage]).exists()

    def _nothing_to_do(self) -> bool:
        """Whether the folder holds what is asked for. Raises UsageError for what cannot be asked, RunError for other settings."""
        folder, config = self.folder, self.config
        if self.until != "sft" and not config.split.reward_at:
            raise UsageError(
                "Rewards learn from feedback that the policy has not seen. Say where it stops: --set split.reward_at=0.7"
            )
        if self.until == "renew" and config.ppo.learn in ("page", "all"):
            raise UsageError(
                f"With ppo.learn={config.ppo.learn} pages are learned in terms of the language model, which the stage renew fits anew. "
                "Train until ppo, or take ppo.learn=repetition or evidence."
            )
        done = (folder / MANIFEST).exists()
        if done and not self.resume:
            raise UsageError(
                f"The folder {folder} already holds a finished run. Name another with --run, or go on with it: --resume"
            )
        if not done or not (folder / _LEFT[self.until]).exists() or self._renewed_otherwise:
            return False
        check_settings(folder, config)
        clear_stages(folder)  # all that may be missing of an end
        return True

    @property
    def _renewed_otherwise(self) -> bool:
        """Whether the policy in the folder was fitted on to another moment than is asked for."""
        if self.until != "renew" or not (self.folder / RENEWED).exists():
            return False
        return bool(read_json(self.folder / "config.json")["sft"].get("renew") != self.config.sft.renew)

    def _opened(self) -> tuple[Log, Split]:
        """The data, with a folder that is ready to go on in; until its end it is no run that can be loaded."""
        folder, config = self.folder, self.config
        begun = self.resume and (folder / "data.json").exists()
        if not begun and folder.exists() and not (self.resume and only_begun(folder)) and any(folder.iterdir()):
            raise UsageError(
                f"The folder {folder} is not empty. Add --resume to go on with the run in it, or name another folder."
            )
        log = read_log(self.data, tell=self.tell)
        events, users, items = len(log.interactions), log.interactions.users, len(log.catalog)
        self.tell(f"Data: {log.name}: {items:,} items, {users:,} users, {events:,} events")
        if begun:
            check_same(folder, config, data_facts(log))
        split = make_run_split(log.interactions, len(log.catalog), config)
        if self._missing("reward"):
            for line in check_feedback(log, split, config):  # before anything is trained, and before a finished run is touched
                self.tell(line)
        set_threads(config)
        remove_asides(folder)
        remove(folder / MANIFEST)
        if self._renewed_otherwise:
            remove(folder / RENEWED)
        if begun:
            write_json(folder / "config.json", config.model_dump(mode="json"))  # what is to come may have other settings
        return log, split

    def _supervised(self, log: Log, split: Split) -> Iterator[Step]:
        """The policy, from the data to its file."""
        folder, config = self.folder, self.config
        schedule = make_schedule(split, config)
        content = content_vectors(log.catalog, config.candidates.content_dims)
        save_inputs(folder, config, log, split, content)
        shown = log.impressions if config.candidates.impressions else None
        evidence = make_evidence(log.catalog, split, content, config, shown)
        net = make_net(config, content, log.catalog, len(evidence.names))
        with counted(folder, "sft"):
            yield from supervised_stages(Job(folder, config, split, schedule, evidence), net)
        save_policy(folder, net)

    def _rewards(self) -> Iterator[Step]:
        """Pairs and both rewards."""
        try:
            with counted(self.folder, "reward"):
                yield from learn_rewards(open_run(self.folder), self.tell)
        except PagellmError:
            drop_rewards(self.folder)
            finish(self.folder)  # the policy is whole whatever its feedback brings
            raise

    def _pages(self) -> Iterator[Stats]:
        """Reinforcement learning on both rewards."""
        run = open_run(self.folder)
        with self._finished_before(), counted(self.folder, "ppo"):
            yield from learn_pages(run, run_layout(run, self.config.pairs.slots), self.tell)
        remove(self.folder / CHECKPOINT)

    @contextmanager
    def _finished_before(self) -> Iterator[None]:
        """What the stages before made is a finished run where the data bring too little for the one inside."""
        try:
            yield
        except DataError:
            finish(self.folder)
            raise


def check_same(folder: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """Raises RunError where a run that is to go on was made from other data or with another configuration."""
    saved = read_json(folder / "data.json")
    if saved["fingerprint"] != facts["fingerprint"]:
        raise RunError(
            f"The run {folder} was begun on data with fingerprint {saved['fingerprint'][:12]}…, and {facts['name']} has "
            f"{str(facts['fingerprint'])[:12]}…. Resume with the data it was begun on, or start a new run in another folder."
        )
    check_settings(folder, config)


def check_settings(folder: Path, config: RunConfig) -> None:
    """Raises RunError where a run was made with another configuration. Settings of stages that have not begun may differ."""
    old = RunConfig.model_validate(read_json(folder / "config.json"))
    ours, theirs = (one.model_dump() | {"sft": one.sft.model_dump(exclude={"renew"})} for one in (config, old))
    to_come = set() if (folder / PPO).exists() or (folder / CHECKPOINT).exists() else {"ppo"}
    to_come |= set() if (folder / PAIRS).exists() else {"reward", "pairs"}
    differing = [k for k in ours if ours[k] != theirs[k] and k not in to_come]
    if differing:
        raise RunError(
            f"The run {folder} was begun with other settings in: {', '.join(differing)}. Resume with the same --profile, --seed and "
            "--set, or start a new run in another folder."
        )
