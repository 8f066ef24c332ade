"""The stages in order: the table of contents of the project.

    read log → split → item vectors and evidence → policy (language model, evidence head) → preference pairs → page and item reward
    → reinforcement learning → policy fitted on to today → pages

Each function is one stage or one sequence of stages as a command runs it; the command line only shows what they yield.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pagellm.config import RunConfig, resolve
from pagellm.errors import DataError, PagellmError, RunError, UsageError

if TYPE_CHECKING:
    from pagellm.training.ppo import Stats
    from pagellm.training.sft import Step

Tell = Callable[[str], None]
"""Takes one line for people to read while something runs."""


def set_threads(config: RunConfig) -> int:
    """Limits torch and numba to the configured CPU threads, and torch to operations that give the same bits every time.

    Without a configured number: OMP_NUM_THREADS where it is set, else all cores of this process. Returns the number.
    """
    import os

    import numba
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(config.threads or (int(asked) if asked.isdecimal() else cores), cores)
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, int(numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)  # several threads otherwise add up gradients of repeated indexes in any order
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a guard against bugs that would cost a pass over each tensor
    return threads


STAGES = ("sft", "reward", "ppo", "renew")
"""What `train_run` may go until, in order."""


def stage_config(until: str, profile: str, settings: Sequence[str], seed: int) -> RunConfig:
    """The configuration of a training that goes until a stage: beyond sft the policy stops earlier, so that later feedback is left."""
    config = resolve(profile, settings, seed=seed)
    if until == "sft" or config.split.reward_at:
        return config
    return resolve(profile, [*settings, f"split.reward_at={config.split.valid_at * 7 / 8:g}"], seed=seed)


def train_run(
    data: Path, folder: Path, config: RunConfig, resume: bool = False, tell: Tell = print, until: str = "sft"
) -> Iterator[Step | Stats]:
    """Trains a policy on a data folder into a run folder. Yields a `Step` a gradient step, `Stats` an iteration of ppo; ends with a
    finished run.

    Raises UsageError where the folder already holds something and `resume` is not asked for, RunError where what it holds was made
    from other data or with another configuration.
    """
    from pagellm.data.content import content_vectors
    from pagellm.data.readers import read_log
    from pagellm.data.whole_files import remove, remove_asides
    from pagellm.models.run import (
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
    from pagellm.models.storage import MANIFEST, write_json
    from pagellm.training.cost import counted
    from pagellm.training.ppo_checkpoint import CHECKPOINT
    from pagellm.training.run_ppo import learn_pages
    from pagellm.training.run_rewards import check_feedback, drop_rewards, learn_rewards
    from pagellm.training.run_sft import Job, clear_stages, drop_renewal, renewal, supervised_stages

    if until != "sft" and not config.split.reward_at:
        raise UsageError(
            "Rewards learn from feedback that the policy has not seen. Say where it stops: --set split.reward_at=0.7"
        )
    if until == "renew" and config.ppo.learn in ("page", "all"):
        raise UsageError(
            f"With ppo.learn={config.ppo.learn} pages are learned in terms of the language model, which the stage renew fits anew. "
            "Train until ppo, or take ppo.learn=repetition or evidence."
        )
    done = finished(folder)
    if done and not resume:
        raise UsageError(f"The folder {folder} already holds a finished run. Name another with --run, or go on with it: --resume")
    last = {"sft": POLICY, "reward": REWARD, "ppo": PPO, "renew": RENEWED}[until]
    otherwise = until == "renew" and _renewed_otherwise(folder, config)
    if done and (folder / last).exists() and not otherwise:
        clear_stages(folder)  # all that may be missing of an end
        tell(f"{folder} is already finished: nothing to do.")
        return
    begun = resume and (folder / "data.json").exists()
    if not begun and folder.exists() and not (resume and only_begun(folder)) and any(folder.iterdir()):
        raise UsageError(f"The folder {folder} is not empty. Add --resume to go on with the run in it, or name another folder.")
    log = read_log(data, tell=tell)
    tell(f"Data: {log.name}: {len(log.catalog):,} items, {log.interactions.users:,} users, {len(log.interactions):,} events")
    if begun:
        check_same(folder, config, data_facts(log))
    split = make_run_split(log.interactions, len(log.catalog), config)
    if until != "sft" and not (folder / REWARD).exists():
        for line in check_feedback(log, split, config):  # before anything is trained, and before a finished run is touched
            tell(line)
    set_threads(config)
    remove_asides(folder)
    if done:  # it goes on, so until its end it is none that can be loaded
        remove(folder / MANIFEST)
    if otherwise:
        remove(folder / RENEWED)
    if begun:
        write_json(folder / "config.json", config.model_dump(mode="json"))  # what is to come may have other settings
    if not (folder / POLICY).exists():
        schedule = make_schedule(split, config)
        content = content_vectors(log.catalog, config.candidates.content_dims)
        save_inputs(folder, config, log, split, content)
        shown = log.impressions if config.candidates.impressions else None
        evidence = make_evidence(log.catalog, split, content, config, shown)
        net = make_net(config, content, log.catalog, len(evidence.names))
        with counted(folder, "sft"):
            yield from supervised_stages(Job(folder, config, split, schedule, evidence), net)
        save_policy(folder, net)
    if until != "renew" or not (folder / PPO).exists():
        drop_renewal(folder)
    if until != "sft" and not (folder / REWARD).exists():
        try:
            with counted(folder, "reward"):
                yield from learn_rewards(open_run(folder), tell)
        except PagellmError:
            drop_rewards(folder)
            finish(folder)  # the policy is whole whatever its feedback brings
            raise
    if until in ("ppo", "renew") and (not (folder / PPO).exists() or (folder / CHECKPOINT).exists()):
        run = open_run(folder)
        with _finished_before(folder), counted(folder, "ppo"):
            yield from learn_pages(run, run_layout(run, config.pairs.slots), tell)
        remove(folder / CHECKPOINT)
    if until == "renew" and not (folder / RENEWED).exists():
        with _finished_before(folder), counted(folder, "renew"):
            yield from renewal(open_run(folder))
    finish(folder)
    clear_stages(folder)


@contextmanager
def _finished_before(folder: Path) -> Iterator[None]:
    """What the stages before made is a finished run where the data bring too little for the one inside."""
    from pagellm.models.run import finish

    try:
        yield
    except DataError:
        finish(folder)
        raise


def _renewed_otherwise(folder: Path, config: RunConfig) -> bool:
    """Whether the policy in the folder was fitted on to another moment than the configuration asks for."""
    from pagellm.models.run import RENEWED
    from pagellm.models.storage import read_json

    return (folder / RENEWED).exists() and read_json(folder / "config.json")["sft"].get("renew") != config.sft.renew


def finished(folder: Path) -> bool:
    """Whether the folder holds a run that was trained to its end."""
    from pagellm.models.storage import MANIFEST

    return (folder / MANIFEST).exists()


def check_same(folder: Path, config: RunConfig, facts: dict[str, object]) -> None:
    """Raises RunError where a run that is to go on was made from other data or with another configuration.

    Settings of stages that have not begun may differ.
    """
    from pagellm.models.run import PAIRS, PPO
    from pagellm.models.storage import read_json
    from pagellm.training.ppo_checkpoint import CHECKPOINT

    saved, old = read_json(folder / "data.json"), RunConfig.model_validate(read_json(folder / "config.json"))
    if saved["fingerprint"] != facts["fingerprint"]:
        raise RunError(
            f"The run {folder} was begun on data with fingerprint {saved['fingerprint'][:12]}…, and {facts['name']} has "
            f"{str(facts['fingerprint'])[:12]}…. Resume with the data it was begun on, or start a new run in another folder."
        )
    ours, theirs = (one.model_dump() | {"sft": one.sft.model_dump(exclude={"renew"})} for one in (config, old))
    to_come = set() if (folder / PPO).exists() or (folder / CHECKPOINT).exists() else {"ppo"}
    to_come |= set() if (folder / PAIRS).exists() else {"reward", "pairs"}
    differing = [k for k in ours if ours[k] != theirs[k] and k not in to_come]
    if differing:
        raise RunError(
            f"The run {folder} was begun with other settings in: {', '.join(differing)}. Resume with the same --profile, --seed and "
            "--set, or start a new run in another folder."
        )
