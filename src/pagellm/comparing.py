"""A run beside baselines, on the test part of its split: rankings for all test users, pages under its layout for some.

Takes run folders and names of baselines, gives comparisons. Several runs that differ in their seed alone are judged as one method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pagellm.config import RunConfig
from pagellm.data.content import content_vectors, title_vectors
from pagellm.errors import DataError, RunError, UsageError
from pagellm.evaluation.baselines.tuning import Search
from pagellm.evaluation.lineup import Given, Lineup, fit_lineup
from pagellm.evaluation.methods import CONTENT_DIMS, SUBJECT, Fits
from pagellm.evaluation.page_metrics import ItemFacts, item_facts
from pagellm.evaluation.pages.judge import PageComparison, PageMaker, judge_pages
from pagellm.evaluation.pages.pour import Poured
from pagellm.evaluation.pages.stand import PageStand, page_stand
from pagellm.evaluation.protocol import Comparison, Ranker, compare
from pagellm.evaluation.seeds import put_together
from pagellm.layout.compiled import CompiledLayout, compile_layout
from pagellm.models.composer import PolicyRanker
from pagellm.models.layout_pages import LayoutPages
from pagellm.models.run import FILES, OPTIONAL, Run, load_run, run_layout
from pagellm.models.storage import check_manifest, read_json
from pagellm.models.threads import set_threads
from pagellm.pipeline import Tell
from pagellm.types import F32, Contexts


@dataclass(frozen=True)
class Arena:
    """The test part of one run, with what every method there is judged by."""

    run: Run

    @classmethod
    def of(cls, folder: Path) -> Arena:
        """Of a finished run. Raises RunError where it has learned from its own test part, DataError where that part is empty."""
        run = load_run(folder)
        set_threads(run.config)
        if run.knows_all:
            raise RunError(
                f"The run {folder} was fitted to the end of its log, so it has learned from its own test part and cannot be judged "
                "on it. Train one with --set sft.refresh=test --set sft.renew=test, or judge this one on later data."
            )
        arena = cls(run)
        if not len(arena.contexts):
            raise DataError(
                f"The test part of {folder} has no user with a history and a next basket, so there is nothing to judge. Train on a "
                "longer log, or let the test begin earlier: --set split.test_at=0.8 --set split.valid_at=0.7"
            )
        return arena

    @cached_property
    def contexts(self) -> Contexts:
        """Users with a history and a next basket, one context each."""
        test = self.run.split.test
        return test.take(test.warm & (test.target_stop > test.stop))

    @cached_property
    def facts(self) -> ItemFacts:
        """What page measures know of items."""
        split = self.run.split
        return item_facts(self.run.catalog, self.content, self.titles, split.log, split.fit_until_test)

    @cached_property
    def content(self) -> F32:
        """[item, dim] text vectors that baselines and measures share."""
        return content_vectors(self.run.catalog, CONTENT_DIMS)

    @cached_property
    def titles(self) -> F32:
        """[item, dim] title vectors."""
        return title_vectors(self.run.catalog)

    @cached_property
    def own(self) -> list[PolicyRanker]:
        """The run's policy, and the supervised one where reinforcement learning changed it."""
        candidates = self.run.split.candidates_test
        before = [] if self.run.tuned is None else [PolicyRanker(self.run, candidates, "sft", net=self.run.supervised)]
        return [PolicyRanker(self.run, candidates, SUBJECT, net=self.run.policy), *before]

    def lineup(
        self, names: Sequence[str], tell: Tell, fits: dict[str, Fits] | None = None, searched: Mapping[str, Search] | None = None
    ) -> Lineup:
        """Baselines fitted on the past that the run had. The run's own supervised policy needs no fit and is left out of the names.

        What is in `fits` is not fitted again, and what is fitted is put there; methods of `searched` take these settings.
        """
        run = self.run
        given = Given(
            run.split, self.content, self.titles, run.evidence, run.config.candidates, run.impressions, run.config.split.repeats,
            run.config.seed, tell, searched or {},
        )  # fmt: skip
        found = fit_lineup([name for name in names if name != "sft"], given, fits)
        if "sft" in names and run.tuned is None:
            found.left_out["sft"] = "This run has learned no pages, so pagellm is its supervised policy."
        return found

    @cached_property
    def rules(self) -> CompiledLayout:
        """The run's layout as it stood when the test part began, over the items that may be ranked."""
        run = self.run
        return compile_layout(run_layout(run, run.config.pairs.slots), run.catalog, int(self.contexts.time.min()))

    @cached_property
    def stand(self) -> PageStand:
        """What pages are judged by."""
        run, split = self.run, self.run.split
        shown, before = (run.impressions, int(str(split.card["test_cut"]))) if split.point_in_time else (None, None)
        return page_stand(self.rules, split.candidates_test, run.catalog, self.facts, shown, before)

    def pages(self, rankers: Sequence[Ranker], subject: str, seed: int) -> PageComparison:
        """Pages of the rankers under the run's layout: policies write them, other rankings are poured into it."""
        among = replace(self.rules, eligible=self.rules.eligible & self.run.split.candidates_test)
        makers: list[PageMaker] = [
            LayoutPages(self.run, among, ranker.net or self.run.net, ranker.name)
            if isinstance(ranker, PolicyRanker)
            else Poured(ranker, among)
            for ranker in rankers
        ]
        return judge_pages(makers, self.contexts, self.stand, subject, seed=seed)

    def compare(self, others: Lineup, seed: int, tell: Tell) -> Comparison:
        """The run's policies beside fitted baselines."""
        split, fitted = self.run.split, list(others.fitted.values())
        every: list[Ranker] = [*self.own, *(f.ranker for f in fitted)]
        tell("ranking for the test contexts")
        found = compare(
            every,
            split.test,
            split.candidates_test,
            self.facts,
            split=split.protocol,
            cold_item_methods=[*(p.among(~split.candidates_test) for p in self.own), *(f.cold_items for f in fitted)],
            seed=seed,
            card={"split": split.card, **others.card(), "data": self.run.facts},
        )
        tell("composing pages for the test contexts")
        return replace(found, pages=self.pages(every, SUBJECT, seed))


def evaluate_run(folder: Path, against: Sequence[str], tell: Tell = print, seed: int = 0) -> Comparison:
    """Judges a run's policy on the test part of its split beside baselines fitted on the same past.

    The supervised policy stands beside one that reinforcement learning changed, asked for or not.
    """
    arena = Arena.of(folder)
    return arena.compare(arena.lineup(against, tell), seed, tell)


def evaluate_runs(folders: Sequence[Path], against: Sequence[str], tell: Tell = print, seed: int = 0) -> Comparison:
    """Judges runs that differ in their seed alone as one method. Baselines are fitted once, with the first run's seed.

    Raises UsageError where two runs have one seed, RunError where they were made from other data or with other settings.
    """
    seeds = check_seeds(folders)
    if len(folders) == 1:
        return evaluate_run(folders[0], against, tell, seed)
    comparisons = []
    for place, folder in enumerate(folders):
        tell(f"run {folder}")
        comparisons.append(evaluate_run(folder, () if place else against, tell, seed))
    return put_together(comparisons, seeds, seed=seed)


def check_seeds(folders: Sequence[Path]) -> list[int]:
    """The seeds of runs that may be judged together: one configuration, one log, each seed once."""
    told = []
    for folder in folders:
        check_manifest(folder, FILES, OPTIONAL)
        told.append((RunConfig.model_validate(read_json(folder / "config.json")), read_json(folder / "data.json")))
    (config, facts), seeds = told[0], [config.seed for config, _ in told]
    for folder, (other, data) in zip(folders[1:], told[1:], strict=True):
        if data["fingerprint"] != facts["fingerprint"]:
            raise RunError(
                f"The runs {folders[0]} and {folder} were made from different data ({facts['name']}, fingerprint "
                f"{facts['fingerprint'][:12]}…; {data['name']}, {data['fingerprint'][:12]}…). Judge them one by one."
            )
        ours, theirs = config.model_dump(), other.model_dump()
        differing = [key for key in ours if ours[key] != theirs[key] and key not in ("seed", "threads", "device")]
        if differing:
            raise RunError(
                f"The runs {folders[0]} and {folder} were trained with other settings in: {', '.join(differing)}. Several runs are "
                "judged together as seeds of one configuration. Judge these one by one."
            )
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise UsageError(f"Two of the runs were trained with seed {twice}, so they are one. Name each seed's run once.")
    return seeds
