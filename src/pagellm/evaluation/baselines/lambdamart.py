"""LambdaMART on the evidence: boosted trees for NDCG, by the library LightGBM. Takes evidence and a split, gives a ranker; knows no model.

Burges 2010. It sees each candidate's evidence as of the context's time, all that the policy sees but the language model, from the same
channels of candidates. Where time parts a split, the trees learn from baskets before the valid part, for the test from those up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pagellm.config import CandidateConfig
from pagellm.data.candidates import draw_pool
from pagellm.data.contexts import contexts_between, cut_time
from pagellm.data.evidence import Evidence
from pagellm.data.splits import Split
from pagellm.errors import DataError
from pagellm.evaluation.baselines.extra import library, threads
from pagellm.evaluation.baselines.tuning import Search, Settings, climb, spread, tuning_contexts
from pagellm.evaluation.metrics import accuracy
from pagellm.types import F32, I32, I64, NO_ITEM, Bool, Contexts

_GRID = {
    "num_leaves": (4.0, 8.0, 16.0, 32.0),
    "learning_rate": (0.03, 0.06, 0.12, 0.25),
    "min_data_in_leaf": (20.0, 100.0, 500.0),
    "rounds": (25.0, 50.0, 100.0, 200.0),
}
_BINS = {"max_bin": 63, "feature_pre_filter": False, "verbosity": -1}  # no feature is dropped for one setting's leaves
_MOST_ROUNDS = int(_GRID["rounds"][-1])
_NEWEST = 20_000  # contexts that are learned from: ten minutes of one core; five times as many as 4,000 brought 3 % of NDCG
_CHUNK = 512  # contexts whose evidence is held at once


@dataclass(frozen=True)
class Examples:
    """Candidates of contexts one after the other: groups of rows."""

    features: F32  # [row, feature]
    label: I32  # [row] 1 where the item is in the context's target, else 0
    sizes: I64  # [context] rows of each

    @cached_property
    def binned(self) -> Any:
        """A LightGBM data set: binned once, whatever is fitted on it. Raises NotApplicableError where LightGBM is not installed."""
        lightgbm = library("lightgbm", "lambdamart")
        return lightgbm.Dataset(self.features, self.label, group=self.sizes, params=_BINS, free_raw_data=False).construct()


@dataclass(frozen=True)
class LambdaMART:
    """Order of a context's candidates by the trees; where its channels bring fewer than are asked for, the rest stays empty."""

    booster: Any  # lightgbm.Booster
    rounds: int  # trees that count
    evidence: Evidence
    channels: CandidateConfig
    candidates: Bool  # [item]
    repeats: bool = False  # whether items of the context's own history may be ranked
    name: str = "lambdamart"

    def among(self, candidates: Bool) -> LambdaMART:
        """The same trees over other candidates."""
        return replace(self, candidates=candidates)

    def rank(self, contexts: Contexts, k: int) -> I32:
        """The k best of each context's candidates, the lower index first of equals. Shape [context, k]."""
        out = np.full((len(contexts), k), NO_ITEM, np.int32)
        done = 0
        for pool, features, _ in _pools(self.evidence, contexts, self.channels, self.candidates, self.repeats):
            ranked = _ordered(pool, self.scores(features, pool), k)
            out[done : done + len(pool), : ranked.shape[1]] = ranked
            done += len(pool)
        return out

    def scores(self, features: F32, pool: I32) -> F32:
        """The sum of the trees for evidence [context, candidate, feature]; -inf where the pool [context, candidate] is empty."""
        return _predicted(self.booster, features, pool, self.rounds)


def examples(evidence: Evidence, contexts: Contexts, channels: CandidateConfig, allowed: Bool, repeats: bool = False) -> Examples:
    """The candidates of those contexts that have a target among theirs, of the newest 20,000. Raises DataError where none has."""
    newest = contexts.take(np.sort(np.argsort(-contexts.time, kind="stable")[:_NEWEST]))
    features, labels, sizes = [], [], []
    for pool, evidence_of, some in _pools(evidence, newest, channels, allowed, repeats):
        hit = np.stack([np.isin(row, some.target(c)) for c, row in enumerate(pool)])
        kept = (pool != NO_ITEM) & hit.any(1, keepdims=True)
        features.append(evidence_of[kept])
        labels.append(hit[kept].astype(np.int32))
        sizes.append(kept.sum(1)[kept.any(1)])
    if not sum(len(s) for s in sizes):
        raise DataError("LambdaMART finds no context with a target among its candidates. Use a log with more users or more time.")
    return Examples(np.concatenate(features), np.concatenate(labels), np.concatenate(sizes).astype(np.int64))


def fit_trees(known: Examples, settings: Settings, rounds: int = _MOST_ROUNDS, seed: int = 0) -> Any:
    """A LightGBM booster of so many trees. Raises NotApplicableError where LightGBM is not installed."""
    lightgbm = library("lightgbm", "lambdamart")
    return lightgbm.train(parameters(settings, seed), known.binned, rounds)


def parameters(settings: Settings, seed: int) -> dict[str, object]:
    """What LightGBM is told. The same seed gives the same trees for any number of threads."""
    return {
        "objective": "lambdarank",
        "metric": "None",
        "lambdarank_truncation_level": 100,  # the longest cut-off that is judged
        "num_leaves": int(settings["num_leaves"]),
        "learning_rate": settings["learning_rate"],
        "min_data_in_leaf": int(settings["min_data_in_leaf"]),
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads(),
        "seed": seed,
        **_BINS,
    }


@dataclass(frozen=True)
class LambdaMARTFits:
    """LambdaMART on one split: searched once, fitted for choices and for the test when asked for."""

    split: Split
    evidence: Evidence
    channels: CandidateConfig
    seed: int
    repeats: bool
    tell: Callable[[str], None]
    known: Search | None = None  # of another seed, whose settings are taken

    @property
    def search(self) -> Search:
        """What was tried on the valid contexts."""
        return self.known or self._searched[1]

    @cached_property
    def early(self) -> LambdaMART:
        """Fitted on what precedes the valid part, with the best settings."""
        best, allowed = self.search.best.settings, self.split.candidates_valid
        if self.known is None:
            return self._ranker(self._searched[0], best, allowed)
        known = self._examples(learned_and_judged(self.split)[0], allowed)
        return self._ranker(fit_trees(known, best, int(best["rounds"]), self.seed), best, allowed)

    @cached_property
    def final(self) -> LambdaMART:
        """Fitted on the last part before the test, with the settings that the search found best."""
        best = self.search.best.settings
        known = self._examples(self.split.between_cuts(), self.split.candidates_test)
        return self._ranker(fit_trees(known, best, int(best["rounds"]), self.seed), best, self.split.candidates_test)

    @cached_property
    def _searched(self) -> tuple[Any, Search]:
        learned, judged = learned_and_judged(self.split)
        allowed = self.split.candidates_valid
        known = self._examples(learned, allowed)
        asked = list(_pools(self.evidence, judged, self.channels, allowed, self.repeats))
        boosters: dict[tuple[float, ...], Any] = {}

        def booster(s: Settings) -> Any:
            key = tuple(value for name, value in s.items() if name != "rounds")
            if key not in boosters:
                boosters[key] = fit_trees(known, s, seed=self.seed)
            return boosters[key]

        def score(s: Settings) -> float:
            rounds = int(s["rounds"])
            ranked = [_ordered(pool, _predicted(booster(s), features, pool, rounds), 100) for pool, features, _ in asked]
            values = [accuracy(some, part, (10, 100)) for some, (_, _, part) in zip(ranked, asked, strict=True)]
            found = float(np.concatenate([(v["ndcg@10"] + v["ndcg@100"]) / 2 for v in values]).mean())
            self.tell(f"lambdamart {s}: valid ndcg {found:.4f}")
            return found

        search = climb(_GRID, score)
        return booster(search.best.settings), search

    def _examples(self, contexts: Contexts, allowed: Bool) -> Examples:
        return examples(self.evidence, contexts, self.channels, allowed, self.repeats)

    def _ranker(self, booster: Any, settings: Settings, candidates: Bool) -> LambdaMART:
        return LambdaMART(booster, int(settings["rounds"]), self.evidence, self.channels, candidates, self.repeats)


def learned_and_judged(split: Split) -> tuple[Contexts, Contexts]:
    """The contexts that a search learns from, at most 4,000 spread evenly over the users, and those that it is judged on.

    Under a split in time the first are the warm baskets of a window before the valid part, as long in events as that part. Elsewhere no
    feedback is both known and later, so every other valid context is learned from and the rest judged.
    """
    judged = tuning_contexts(split)
    if not split.point_in_time:
        return judged.take(np.arange(0, len(judged), 2)), judged.take(np.arange(1, len(judged), 2))
    valid_at, test_at = float(str(split.card["valid_at"])), float(str(split.card["test_at"]))
    begin = cut_time(split.log, max(2 * valid_at - test_at, 0.0))
    learned = contexts_between(split.log, begin, int(str(split.card["valid_cut"])))
    return spread(learned, learned.warm), judged


def _pools(
    evidence: Evidence, contexts: Contexts, channels: CandidateConfig, allowed: Bool, repeats: bool
) -> Iterator[tuple[I32, F32, Contexts]]:
    """Candidates [context, candidate] and their evidence [context, candidate, feature], some contexts at a time."""
    for begin in range(0, len(contexts), _CHUNK):
        some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
        pool = draw_pool(evidence, some, channels, allowed, repeats=repeats)
        yield pool, evidence.features(some, pool), some


def _predicted(booster: Any, features: F32, pool: I32, rounds: int) -> F32:
    scores = np.full(pool.shape, -np.inf, np.float32)
    real = pool != NO_ITEM
    if real.any():
        scores[real] = booster.predict(features[real], num_iteration=rounds, num_threads=threads())
    return scores


def _ordered(pool: I32, scores: F32, k: int) -> I32:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # a pool rises, so the lower index is first of equals
    return np.take_along_axis(pool, order, 1)
