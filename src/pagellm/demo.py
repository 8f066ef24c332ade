"""The demo: every stage on a simulated shop whose truth is known, so that pages can be judged by what they are really worth.

Takes a folder and a seed, yields what each stage did. The policy never sees the truth; only the last table reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pagellm.comparing import evaluate_run
from pagellm.composition import Composed, compose_for, make_context
from pagellm.data.readers import check_log
from pagellm.evaluation.protocol import Comparison
from pagellm.evaluation.significance import interval, resampled_means
from pagellm.models.composer import LanguagePolicy
from pagellm.models.policy import PolicyNet
from pagellm.models.run import METRICS, PPO_FACTS, Run, load_run, run_layout
from pagellm.models.storage import read_json
from pagellm.pipeline import stage_config, train_run
from pagellm.reporting.preview import page_html
from pagellm.reporting.report import RunReport, report_html
from pagellm.rewarding.check import RewardCheck, check_rewards
from pagellm.simulation.disk import write_world
from pagellm.simulation.page_policies import LoggedBy
from pagellm.simulation.shop_log import simulate_log
from pagellm.simulation.world import World
from pagellm.types import F64, I32, Contexts

WORTH_CONTEXTS = 300
"""Test users whose pages are weighed with the truth."""

AGAINST = ("popularity", "popularity-7d", "popularity-30d", "itemknn", "text")
_CAUTION = "A simulated shop and a tiny model: this shows the machinery, not what a real shop would gain."


@dataclass(frozen=True, slots=True)
class Stage:
    """One finished stage of the demo."""

    name: str
    said: str
    took_s: float


@dataclass(frozen=True)
class Worth:
    """True expected value of pages of several policies in the same contexts: mean and 95 % interval over users."""

    clicks: dict[str, tuple[float, float, float]]
    gmv: dict[str, tuple[float, float, float]]


def run_demo(folder: Path, seed: int) -> Iterator[Stage]:
    """Simulates a shop, checks it, trains, composes, evaluates and reports. Files go to `folder`: shop/, run/, page.html, report.html."""
    clock = time.monotonic()

    def stage(name: str, said: str) -> Stage:
        nonlocal clock
        took, clock = time.monotonic() - clock, time.monotonic()
        return Stage(name, said, took)

    world = World.make("demo", seed)
    log = simulate_log(world, "mixed", threads=2)
    write_world(world, log, folder / "shop")
    spec = world.spec
    yield stage(
        "shop", f"{spec.items:,} items · {spec.users:,} users · {spec.pages:,} logged pages of {spec.rows} x {spec.cols} slots"
    )
    checked = check_log(folder / "shop", quarantine=folder / "quarantine.ndjson")
    yield stage("data check", f"{len(checked.findings)} findings · {len(checked.log.interactions):,} events")
    steps = 0
    config = stage_config("reward", "tiny", (), seed)
    for step in train_run(folder / "shop", folder / "run", config, tell=lambda line: None, until="reward"):
        steps, loss = steps + 1, step.loss
    yield stage("train", f"{steps:,} steps · language model, evidence head, rewards · last loss {loss:.2f}")
    for _ in train_run(folder / "shop", folder / "run", config, resume=True, tell=lambda line: None, until="ppo"):
        pass
    yield stage("ppo", _learning_verdict(folder / "run"))
    run = load_run(folder / "run")
    checked_rewards = check_rewards(folder / "run", seed=seed, tell=lambda line: None)
    yield stage("rewards", _rewards_verdict(checked_rewards))
    composed = page_of_a_regular(run, seed, "ppo")
    before = page_of_a_regular(run, seed, "sft")
    (folder / "page.html").write_text(page_html(composed.views[0], before.views[0]), encoding="utf-8")
    kept = len(np.intersect1d(composed.pages[0].items, before.pages[0].items))
    said = f"{len(composed.pages[0].items)} items in {len(composed.pages[0].rows)} rows for {composed.context.user}"
    yield stage("compose", f"{said} · {kept} of them also stand on the page before PPO, beside it in page.html")
    comparison = evaluate_run(folder / "run", AGAINST, tell=lambda line: None)
    yield stage("evaluate", _verdict(comparison))
    worth = true_worth(run, world, seed)
    yield stage(
        "true value", " · ".join(f"{name} {value[0]:.2f}" for name, value in worth.clicks.items()) + " expected clicks a page"
    )
    write_report(folder, run, comparison, worth, seed)
    yield stage("report", f"{folder / 'report.html'}")


def page_of_a_regular(run: Run, seed: int, policy: str) -> Composed:
    """A page, with its reasons, for a user with a long history, by the policy of this stage."""
    log = run.split.log
    busy = np.argsort(-np.bincount(log.user, minlength=log.users), kind="stable")[:50]
    user = str(log.user_ids[busy[seed % 50]])
    return compose_for(run, user=user, seed=seed, explain=True, stage=policy)


def true_worth(run: Run, world: World, seed: int) -> Worth:
    """What pages for test users are really worth: the policy's beside those of two logging policies and of live popularity order."""
    test = run.split.test.take(run.split.test.warm)
    rng = np.random.default_rng(seed)
    some = test.take(np.sort(rng.choice(len(test), min(WORTH_CONTEXTS, len(test)), replace=False)))
    user = np.array([int(str(run.split.log.user_ids[u])[1:]) for u in some.user], np.int32)
    visits = rng.integers(2**62, size=len(some))
    pages = {
        "random": LoggedBy.named(world, "uniform").draw(user, some.time, visits),
        "popularity": LoggedBy.named(world, "popularity").draw(user, some.time, visits),
        "logging policy": LoggedBy.named(world, "personal").draw(user, some.time, visits),
        "sft": policy_pages(run, some, run.supervised),
        "pagellm": policy_pages(run, some, run.policy),
    }
    expected = {name: world.expected(items, user, some.time) for name, items in pages.items()}
    return Worth(
        {name: _estimate(e.clicks, seed) for name, e in expected.items()},
        {name: _estimate(e.gmv, seed) for name, e in expected.items()},
    )


def policy_pages(run: Run, contexts: Contexts, net: PolicyNet) -> I32:
    """A policy's pages under the shop's layout. Shape [context, slot], NO_ITEM where a slot stays empty."""
    policy, out = LanguagePolicy(run, run_layout(run, 20), now=int(contexts.time.min(initial=0)), net=net), []
    for place in range(len(contexts)):
        user = str(run.split.log.user_ids[contexts.user[place]])
        context, _ = make_context(run, user, (), None, int(contexts.time[place]))
        out.append([slot.item for slot in policy.compose(context, np.random.default_rng(0)).slots])
    return np.array(out, np.int32)


def write_report(folder: Path, run: Run, comparison: Comparison, worth: Worth, seed: int) -> None:
    """The first report page and its figures as JSON."""
    log = run.split.log
    users = np.random.default_rng(seed).choice(log.users, 6, replace=False)
    views = [compose_for(run, user=str(log.user_ids[u]), seed=seed).views[0] for u in users]
    rows = [json.loads(line) for line in (run.folder / METRICS).read_text(encoding="utf-8").splitlines()]
    evaluation = comparison.as_json() | {"true_value": {"clicks": worth.clicks, "gmv": worth.gmv}}
    (folder / "report.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    report = RunReport(
        "pagellm demo shop",
        evaluation,
        views,
        seed,
        rows,
        protocol=run.split.card,
        data=run.facts,
        appendix={"command": f"pagellm demo --seed {seed}", "profile": run.config.profile},
        caution=_CAUTION,
    )
    (folder / "report.html").write_text(report_html(report), encoding="utf-8")


def _rewards_verdict(found: RewardCheck) -> str:
    told = {accuracy.kind: accuracy.reward.value for accuracy in found.trained}
    laws = "all laws hold" if not found.broken else f"broken: {', '.join(law.name for law in found.broken)}"
    return f"{sum(found.facts.pairs.values()):,} pairs · swaps of held-out users told apart {told['exchange']:.2f} · {laws}"


def _learning_verdict(run: Path) -> str:
    facts = read_json(run / PPO_FACTS)
    return f"{facts['health']}: {facts['cause']}"


def _verdict(comparison: Comparison) -> str:
    best = comparison.best("ndcg@10", AGAINST)
    ratio = comparison.ratio[best]["ndcg@10"]
    ours = comparison.methods["pagellm"]["ndcg@10"].value
    return f"NDCG@10 {ours:.3f} · {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] times the best baseline ({best})"


def _estimate(values: F64, seed: int) -> tuple[float, float, float]:
    low, high = interval(resampled_means(values[:, None], 1_000, seed))[:, 0]
    return float(values.mean()), float(low), float(high)
