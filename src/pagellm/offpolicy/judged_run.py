"""A run's policy on logged pages: its chances for each slot, what a reward model expects, and every estimator's figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pagellm.data.contexts import contexts_at
from pagellm.data.log import Log
from pagellm.data.readers import read_log
from pagellm.data.slot_log import slot_file
from pagellm.errors import DataError, UsageError
from pagellm.evaluation.ope.diagnostics import log_refusal
from pagellm.evaluation.ope.estimators import logging_alone
from pagellm.evaluation.ope.judging import judge
from pagellm.evaluation.ope.records import Logged, Predicted, free_shares
from pagellm.evaluation.ope.reward_model import RewardModel, fit_reward_model
from pagellm.layout.compiled import compile_layout
from pagellm.layout.spec import Layout
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.page_chances import PageChances, page_chances
from pagellm.models.run import Run, load_run
from pagellm.models.threads import set_threads
from pagellm.offpolicy.logged_pages import REWARDS, JudgedPages, estimated_propensities, judged_pages, layout_of
from pagellm.offpolicy.verdict import OffPolicy
from pagellm.pipeline import Tell
from pagellm.training.pair_sources import known_since
from pagellm.types import F64, I64

MOST_PAGES = 20_000
"""Logged pages that are judged unless asked otherwise."""

OWN_PAGES = 8
"""Pages of the policy itself that are drawn a logged page, for the chance of an item whatever stands before it."""

_CHUNK = 32  # contexts whose distributions are held at once: [context, page, slot, candidate]


@dataclass(frozen=True)
class Asked:
    """What is to be judged, and how."""

    policy: str | None = None  # sft or ppo; None is the run's last
    temperature: float = 1.0  # at which the policy draws
    reward: str = "clicks"
    slots: int | None = None  # leading slots that are judged; None judges the whole page
    logged_by: str | None = None  # logging policy whose pages are read; None reads all
    layout: Layout | None = None
    estimate: bool = False  # whether unknown propensities are estimated
    pages: int = MOST_PAGES
    seed: int = 0


def judge_run(folder: Path, data: Path, asked: Asked, tell: Tell = print) -> OffPolicy:
    """What the run's policy would have earned on the pages that DATA logged. Raises UsageError, RunError or DataError that say why not."""
    if asked.reward not in REWARDS:
        raise UsageError(f"The reward must be one of {', '.join(REWARDS)}. Got {asked.reward!r}.")
    if asked.temperature <= 0:
        raise UsageError(
            "The temperature must be above 0: a policy that always writes the same page meets next to no logged one."
        )
    if data.exists() and slot_file(data) is not None:
        raise DataError(
            f"{data.name} holds single slots and no pages, so no run can be judged on it. Leave RUN out: see --target-by."
        )
    run = load_run(folder)
    set_threads(run.config)
    return judge_pages(run, read_log(data, tell=tell), asked, tell)


def judge_pages(run: Run, log: Log, asked: Asked, tell: Tell = print) -> OffPolicy:
    """`judge_run` on what is loaded already."""
    stage = asked.policy or run.stage
    net = run.named(stage)
    if log.impressions is None:
        raise DataError(
            f"{log.name} holds interactions and no pages. Off-policy evaluation needs impressions.* with a propensity for each slot, and "
            "events.* (docs/data.md)."
        )
    layout = layout_of(run, log.impressions, asked.layout)
    rules = compile_layout(layout, run.catalog, int(log.impressions.time.max(initial=0)))
    if asked.slots is not None and asked.slots > rules.places:
        raise UsageError(
            f"The layout {layout.id!r} has {rules.places} slots, so its first {asked.slots} cannot be judged. Lower --slots."
        )
    pages = judged_pages(run, log, rules, asked.reward, asked.logged_by)
    unknown = bool(np.isnan(pages.propensity).any())
    if asked.estimate:
        pages = estimated_propensities(pages)
    pages = pages.drawn(asked.pages, asked.seed)
    tell(
        f"Judging {stage} at temperature {asked.temperature:g} on {len(pages):,} logged pages of {len(np.unique(pages.user)):,} users"
    )
    policy = LanguagePolicy(run, layout, Writing(asked.temperature), int(pages.time.min()), net)
    since = pages.since
    if run.impressions is not None:
        since = np.minimum(since, known_since(run.split.log, run.impressions, run.catalog))
    logged = records(run, policy, pages, since, asked.seed, unknown and asked.estimate, tell)
    if asked.slots is not None:
        logged = logged.first(asked.slots)
    facts: dict[str, object] = {
        "run": run.folder.name,
        "policy": stage,
        "temperature": asked.temperature,
        "log": log.name,
        "reward": f"{asked.reward} a page" + (f", first {asked.slots} slots" if asked.slots else ""),
        "seed": asked.seed,
    }
    return OffPolicy(facts, judge(logged, asked.seed), logged.estimated, pages.left_out)


def records(
    run: Run, policy: LanguagePolicy, pages: JudgedPages, since: I64, seed: int, estimated: bool, tell: Callable[[str], None]
) -> Logged:
    """The logged pages with the chances of the run's policy. A log that forbids every estimate costs none."""
    unit = np.unique(pages.user, return_inverse=True)[1].astype(np.int64)
    blank: F64 = np.ones(pages.items.shape)
    bare = Logged(pages.rewards, pages.propensity, blank, blank, blank, blank, pages.real, unit, estimated=estimated)
    if log_refusal(bare) is not None:
        return bare
    known = pages.real & (pages.items >= 0)
    model = fit_reward_model(pages.rewards, pages.items, known, unit, len(run.catalog))
    free = free_shares(pages.items, pages.real, len(run.catalog))
    at = free[np.arange(len(free)), pages.items.clip(0)]
    given, alone, due = blank.copy(), blank.copy(), blank.copy()
    predicted = Predicted(np.zeros(blank.shape), np.zeros(blank.shape), np.zeros(blank.shape))
    rng = np.random.default_rng((seed, 22))
    for begin in range(0, len(pages), _CHUNK):
        some = np.arange(begin, min(begin + _CHUNK, len(pages)))
        contexts = contexts_at(pages.log, pages.user[some], pages.time[some])
        chances = page_chances(policy, contexts, pages.items[some], OWN_PAGES, rng, since)
        real = pages.real[some]
        given[some] = np.where(real, chances.of_logged(chances.given), 1.0)
        alone[some] = np.where(real, chances.of_logged(chances.alone), 1.0)
        due[some] = np.where(real, _due(chances, free), 1.0)
        for part, values in zip(
            (predicted.chosen, predicted.given, predicted.alone), _expected(model, chances, pages.items[some], some), strict=True
        ):
            part[some] = np.where(real, values, 0.0)
        if begin // _CHUNK % 50 == 49:
            tell(f"{begin + len(some):,} of {len(pages):,} pages")
    slot_wise = np.where(known, logging_alone(pages.propensity, at), 1.0)
    return Logged(pages.rewards, pages.propensity, given, alone, slot_wise, due, pages.real, unit, True, predicted, estimated)


def _due(chances: PageChances, free: F64) -> F64:
    """[page, slot] Σ over the items that do not stand before of π(item in slot) / P(item is free there)."""
    ratio = chances.alone / free.T[chances.pool.clip(0)].transpose(0, 2, 1).clip(1e-9)  # [page, slot, candidate]
    due = ratio.sum(2)
    for slot in range(1, ratio.shape[1]):
        before = chances.place[:, :slot]
        due[:, slot] -= np.where(before >= 0, np.take_along_axis(ratio[:, slot], before.clip(0), 1), 0.0).sum(1)
    return np.asarray(due, np.float64)


def _expected(model: RewardModel, chances: PageChances, items: np.ndarray, pages: np.ndarray) -> tuple[F64, F64, F64]:
    """(of the logged items, over the policy's choice after them, over its own pages), [page, slot] each, by the reward model."""
    fold = model.fold[pages]
    rate, factor = model.rate[fold], model.factor[fold[:, None], chances.pool.clip(0)] * (chances.pool >= 0)
    chosen = np.where(items >= 0, model.factor[fold[:, None], items.clip(0)], 1.0)
    given, alone = (np.einsum("psc,pc->ps", part, factor) for part in (chances.given, chances.alone))
    return rate * chosen, rate * given, rate * alone
