"""The main experiment: the policy beside every baseline, on any data sets, under one protocol, with several seeds.

    for each data set and seed: a run trained to its end → its policies → baselines, each tuned, fitted and judged
    → re-rankers of the baseline that is best by validation

Every step leaves a file, and what has one is not done again. Settings are searched with the first seed, and the others take them. A method
whose fit draws nothing is fitted once for all seeds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pagellm.comparing import Arena
from pagellm.data.log import Log
from pagellm.data.readers import read_log
from pagellm.errors import DataError, NotApplicableError, UsageError
from pagellm.evaluation.baselines.tuning import Search, Trial
from pagellm.evaluation.methods import ALL, QUICK, RERANKED, SUBJECT, Fits
from pagellm.evaluation.protocol import Ranker, evaluate
from pagellm.pipeline import finished, stage_config, train_run
from pagellm.reproduction.jobs import Arrays, Job, Matrix, Outcome, plain_names

Tell = Callable[[str], None]

OWN = (SUBJECT, "sft")
SEEDED = frozenset(("als", "bpr", "lambdamart", "sasrec", "sasrec+recency", "gru4rec", "item-lm", *RERANKED, *OWN))
"""Methods whose fit depends on the seed, or on the run of that seed."""

PAGES_SEED = 0  # of the users whose pages are judged: the same for all methods and seeds


@dataclass(frozen=True)
class Size:
    """How much is done."""

    profile: str  # of the runs
    users: int | None  # of each data set, drawn; None for all
    methods: tuple[str, ...]


SIZES = {"smoke": Size("tiny", 1_500, (*OWN, *QUICK, "ease")), "full": Size("small", None, (SUBJECT, *ALL))}


@dataclass(frozen=True)
class Plan:
    """What is asked of the contest."""

    data: tuple[Path, ...]
    out: Path
    protocol: str
    seeds: int
    size: str  # key of SIZES
    methods: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def made_with(self) -> dict[str, Any]:
        """What a matrix that goes on must agree in; data sets, seeds and methods may be added."""
        size = SIZES[self.size]
        facts = {"protocol": self.protocol, "size": self.size, "profile": size.profile, "users": size.users}
        return facts | {"settings": list(self.settings)}


def run_contest(plan: Plan, tell: Tell) -> Matrix:
    """Does what is missing of the matrix; a set that cannot be judged is told and left out.

    Raises UsageError for an unknown size, or where `out` was begun otherwise, DataError where no set could be judged.
    """
    if plan.size not in SIZES:
        raise UsageError(f"The size {plan.size!r} is not known. Sizes: {', '.join(SIZES)}.")
    names = plain_names(plan.data)
    logs = {name: read_log(folder) for name, folder in zip(names, plan.data, strict=True)}
    matrix = Matrix.open(plan.out, plan.made_with | {f"data {name}": log.fingerprint for name, log in logs.items()})
    for (name, log), folder in zip(logs.items(), plan.data, strict=True):
        data = _smaller(log, folder, plan.out / "data" / name, SIZES[plan.size].users)
        for seed in range(plan.seeds):
            try:
                matrix.run(jobs_of(Entrant(name, data, plan, seed, matrix, tell)), tell)
            except DataError as reason:  # the other sets have no part in it
                tell(f"{name}, seed {seed}, cannot be judged: {reason}")
    if not matrix.finished():
        raise DataError(f"None of {', '.join(names)} could be judged. The lines above say why.")
    return matrix


def jobs_of(entrant: Entrant) -> Iterator[Job]:
    """The jobs of one data set and seed, re-rankers last."""
    for method in sorted(entrant.plan.methods, key=lambda m: m in RERANKED):
        if entrant.seed == 0 or method in SEEDED:
            yield Job(f"{entrant.name}/{entrant.seed}/{method}", partial(entrant.judged, method))


@dataclass(frozen=True)
class Entrant:
    """One data set and seed."""

    name: str
    data: Path
    plan: Plan
    seed: int
    matrix: Matrix
    tell: Tell
    fits: dict[str, Fits] = field(default_factory=dict)  # what is fitted already, for methods that build on others

    @cached_property
    def arena(self) -> Arena:
        """The test part of the run of this seed, which is trained where it is not there.

        Where a data set is too small to learn rewards or pages from, the run stops before that stage, says so, and is judged as it is.
        """
        folder = self.plan.out / "runs" / f"{self.name}-{self.seed}"
        until = "renew" if self.plan.protocol == "temporal" else "sft"
        settings = (f"split.protocol={self.plan.protocol}", *self.plan.settings)
        config = stage_config(until, SIZES[self.plan.size].profile, settings, self.seed)
        if not finished(folder):
            self.tell(f"{folder.name}: training until {until}")
            try:
                for _ in train_run(self.data, folder, config, resume=folder.exists(), tell=self.tell, until=until):
                    pass
            except DataError as reason:
                if not finished(folder):
                    raise
                self.tell(f"{folder.name} is judged without its last stages: {reason}")
        return Arena.of(folder)

    def judged(self, method: str) -> Outcome:
        """A method's figures, [user] each; none where it does not apply here, with the reason."""
        try:
            ranker, notes = self._ranker(method)
        except NotApplicableError as reason:
            self.tell(f"left out {method}: {reason}")
            return Outcome({}, {"method": method, "left_out": str(reason)})
        run = self.arena.run
        stage = run.stage if run.renewed is None else "renew"
        return Outcome(self._figures(ranker), notes | {"method": method, "stage": stage, "split": run.split.card})

    def _ranker(self, method: str) -> tuple[Ranker, dict[str, Any]]:
        if method in OWN:
            own = {policy.name: policy for policy in self.arena.own}
            if method not in own:
                raise NotApplicableError("The run has learned no pages, so its policy is the supervised one.")
            return own[method], {}
        base = self._base() if method in RERANKED else None
        names = [method] if base is None else [base, method]
        found = self.arena.lineup(names, self.tell, self.fits, self._searched(names)).fitted[method]
        search = None if found.search is None else asdict(found.search)
        score = None if found.search is None else float(found.search.best.score)
        return found.ranker, {"search": search, "validation": score, "base": base}

    def _searched(self, names: Sequence[str]) -> dict[str, Search]:
        """The finished searches of these methods with the first seed, whose settings all take that come after."""
        found = {}
        for method in (*names, "sasrec"):  # which its sibling with popularity stands on
            key = f"{self.name}/0/{method}"
            if self.matrix.done(key) and (search := self.matrix.read(key).notes.get("search")):
                found[method] = Search(tuple(Trial(trial["settings"], trial["score"]) for trial in search["trials"]))
        return found

    def _base(self) -> str:
        """The finished baseline with the best score on validation data, by its own search."""
        scores: dict[str, float] = {}
        for method in self.plan.methods:
            key = f"{self.name}/{self.seed if method in SEEDED else 0}/{method}"
            if method not in (*OWN, *RERANKED) and self.matrix.done(key):
                score = self.matrix.read(key).notes.get("validation")
                scores |= {} if score is None else {method: score}
        if not scores:
            raise NotApplicableError("No baseline with a score on validation data was fitted, so there is nothing to re-rank.")
        return max(scores, key=lambda name: scores[name])

    def _figures(self, ranker: Ranker) -> Arrays:
        arena = self.arena
        ranked = evaluate([ranker], arena.contexts, arena.run.split.candidates_test, arena.facts)
        pages = arena.pages([ranker], ranker.name, PAGES_SEED).results
        out = {f"ranking/{m}": ranked.column(ranker.name, m) for m in ranked.metrics}
        out |= {f"page/{m}": pages.column(ranker.name, m) for m in pages.metrics}
        return out | {"users/ranking": ranked.users.astype(np.float64), "users/page": pages.users.astype(np.float64)}


def _smaller(log: Log, folder: Path, to: Path, users: int | None) -> Path:
    """The folder itself, or one beside it with the events of so many drawn users."""
    if users is None or log.interactions.users <= users:
        return folder
    if log.impressions is not None:
        raise UsageError(f"{folder} has logged pages, which are not cut to a few users. Use --size full, or a smaller shop.")
    if not (to / "interactions.parquet").exists():
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(parents=True)
        kept = np.zeros(log.interactions.users, bool)
        kept[np.random.default_rng(0).choice(len(kept), users, replace=False)] = True
        mine, events = kept[log.interactions.user], log.interactions
        log.catalog.frame.write_parquet(to / "items.parquet")
        pl.DataFrame(
            {
                "user_id": events.user_ids[events.user[mine]],
                "item_id": log.catalog.item_ids[events.item[mine]],
                "timestamp": events.time[mine],
                "basket_index": events.basket[mine],
            }
        ).write_parquet(to / "interactions.parquet")
    return to
