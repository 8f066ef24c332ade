"""The supervised stages of one run, in order, resumable at any moment: language model, evidence head, refreshed language model.

Time decides who learns from what: the language model reads what precedes the validation cut, the head learns on contexts between the
cuts, where the language model's opinion is as out-of-sample as it will be in service; then the language model is fitted again on all
that precedes the test. Where rewards were learned in between, `renewal` goes on once they are. Writes into the run folder; yields a
`Step` a gradient step.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pagellm.config import RunConfig
from pagellm.data.evidence import Evidence
from pagellm.data.splits import Split
from pagellm.data.whole_files import remove
from pagellm.models.codec import reading_spans
from pagellm.models.policy import PolicyNet
from pagellm.models.run import METRICS, RENEWED, Run, Schedule, renewal_schedule, save_renewed
from pagellm.models.storage import read_tensors, write_tensors
from pagellm.training.checkpoint import Mark, load_fit, read_mark, save_fit
from pagellm.training.metrics_log import MetricsLog, cut, drop_stages, length_of
from pagellm.training.sft import Step, fit_head, fit_language_model, head_examples, language_model_state
from pagellm.types import Bool, Contexts

CHECKPOINT = "checkpoint.safetensors"
STAGES = ("lm", "head", "refresh")
_RENEWED = "renewed "  # before the names of the stages that are gone through once more


@dataclass(frozen=True)
class Job:
    """What the stages share."""

    folder: Path
    config: RunConfig
    split: Split
    schedule: Schedule
    evidence: Evidence
    prefix: str = ""  # of the stages' names in what is told


def supervised_stages(job: Job, net: PolicyNet) -> Iterator[Step]:
    """Runs the stages that are not yet done and leaves the finished policy in `net`.

    A stage that is done has left its weights in the folder; `clear_stages` removes them once the policy is saved.
    """
    refreshed = job.config.sft.refresh != "off"
    if refreshed and _load_stage(job, net, "refresh"):  # the last first: an earlier one would cut off the later one's metrics
        return
    if not _load_stage(job, net, "head"):
        if job.schedule.first is None:
            drop_stages(job.folder / METRICS, job.prefix)
        elif not _load_stage(job, net, "lm"):
            yield from _language_model(job, net, "lm", job.schedule.first)
            _save_stage(job, net, "lm")
        yield from _head(job, net)
        _save_stage(job, net, "head")
    if refreshed:
        net.reset(job.config.seed)  # the evidence head stays: no gradient reaches it here
        yield from _language_model(job, net, "refresh", job.schedule.refresh)
        _save_stage(job, net, "refresh")


def renewal(run: Run) -> Iterator[Step]:
    """Fits the run's supervised policy on to what rewards and pages were learned from, and saves it.

    The policy stopped where rewards begin, because they need feedback that it has not seen; whoever serves it would miss what came
    since. The evidence head goes on from its weights, then the language model is fitted anew. What reinforcement learning changed is left.
    """
    config, net = run.config, copy.deepcopy(run.net)
    config = config.model_copy(update={"sft": config.sft.model_copy(update={"refresh": config.sft.renew})})
    yield from supervised_stages(
        Job(run.folder, config, run.split, renewal_schedule(run.split, config), run.evidence, _RENEWED), net
    )
    save_renewed(run.folder, net)


def clear_stages(folder: Path) -> None:
    """Removes what only resuming needs."""
    for path in (folder / CHECKPOINT, *(stage_file(folder, stage) for stage in STAGES)):
        remove(path)


def drop_renewal(folder: Path) -> None:
    """Removes what a renewal left that did not end, its lines in the metrics file first."""
    if not (folder / RENEWED).exists():
        drop_stages(folder / METRICS, _RENEWED)
    clear_stages(folder)


def newest_contexts(contexts: Contexts, most: int) -> Contexts:
    """The newest of these contexts, in their order."""
    newest = np.sort(np.argsort(contexts.time, kind="stable")[-most:])
    return contexts.take(newest)


def _language_model(job: Job, net: PolicyNet, stage: str, known: Bool) -> Iterator[Step]:
    config, path = job.config, job.folder / CHECKPOINT
    state = language_model_state(net, config.sft)
    if read_stage(path) == stage:
        mark = load_fit(path, net, state)
        cut(job.folder / METRICS, mark.metrics_bytes)
    elif stage == STAGES[0]:
        cut(job.folder / METRICS, 0)  # lines of an attempt that ended before its first checkpoint
    spans = reading_spans(job.split.log, known, config.model.max_history)
    saved_at = time.monotonic()
    with MetricsLog(job.folder / METRICS) as metrics:
        for step in fit_language_model(net, spans, config.sft, config.model.max_history, config.seed, state, job.prefix + stage):
            metrics.write(step)
            if step.step < step.steps and time.monotonic() - saved_at >= config.sft.checkpoint_s:
                save_fit(path, net, state, Mark(stage, state.step, metrics.saved()))
                saved_at = time.monotonic()
            yield step


def fit_evidence_head(net: PolicyNet, config: RunConfig, contexts: Contexts, evidence: Evidence) -> Iterator[Step]:
    """Fits the head on the newest of these contexts, under the language model that `net` holds."""
    contexts = newest_contexts(contexts, config.sft.head_contexts)
    every = np.ones(len(evidence.vectors), bool)  # new items too: a head that never saw one could not rank it
    examples = head_examples(net, evidence, contexts, config.candidates, every, config.model.max_history, config.split.repeats)
    yield from fit_head(net, examples, config.sft, config.seed)


def _head(job: Job, net: PolicyNet) -> Iterator[Step]:
    with MetricsLog(job.folder / METRICS) as metrics:
        for fitted in fit_evidence_head(net, job.config, job.schedule.head, job.evidence):
            step = replace(fitted, stage=job.prefix + fitted.stage)
            metrics.write(step)
            yield step


def _save_stage(job: Job, net: PolicyNet, stage: str) -> None:
    notes = {"metrics_bytes": str(length_of(job.folder / METRICS))}
    write_tensors(stage_file(job.folder, stage), dict(net.state_dict()), notes)
    remove(job.folder / CHECKPOINT)


def _load_stage(job: Job, net: PolicyNet, stage: str) -> bool:
    """Puts back the weights of a stage that is done, and cuts off what the metrics file has beyond it."""
    path = stage_file(job.folder, stage)
    if not path.exists():
        return False
    weights, notes = read_tensors(path)
    net.load_state_dict(weights)
    later = STAGES[STAGES.index(stage) + 1 :]
    if read_stage(job.folder / CHECKPOINT) not in later:  # else that fit goes on and knows the length
        cut(job.folder / METRICS, int(notes["metrics_bytes"]))
    return True


def read_stage(checkpoint: Path) -> str | None:
    """The stage whose unfinished fit a checkpoint holds."""
    return read_mark(checkpoint).stage if checkpoint.exists() else None


def stage_file(folder: Path, stage: str) -> Path:
    """Where the weights of a stage that is done lie until the run is finished."""
    return folder / f"stage-{stage}.safetensors"
