"""Methods by name: which there are, and the classical ones fitted on a split. Takes a split and content vectors, gives rankers.

Classical means from who took what and from text, without torch and without evidence. `lineup.py` has the others.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from pagellm.data.splits import Split
from pagellm.errors import UsageError
from pagellm.evaluation.baselines.als import ALS, fit_als, tune_als
from pagellm.evaluation.baselines.bpr import BPR, fit_bpr, tune_bpr
from pagellm.evaluation.baselines.ease import Ease, fit_ease, tune_ease
from pagellm.evaluation.baselines.itemknn import ItemKNN, fit_itemknn, tune_itemknn
from pagellm.evaluation.baselines.popularity import Popularity, fit_popularity
from pagellm.evaluation.baselines.text import TextSimilarity, fit_text, tune_text
from pagellm.evaluation.baselines.tuning import Search, Settings, tuning_contexts
from pagellm.evaluation.protocol import Method, Ranker
from pagellm.types import F32, Bool

SUBJECT = "pagellm"
QUICK = ("popularity", "popularity-7d", "popularity-30d", "popularity-90d", "itemknn", "text")
"""Baselines that are fitted in seconds: what `evaluate` compares with unless told otherwise."""

CLASSICAL = (*QUICK, "ease", "als", "bpr")
CONTROL = "sasrec+recency"
RERANKED = ("mmr", "dpp")
"""Re-rankers of the best of the other baselines."""

ALL = (*CLASSICAL, "lambdamart", "sasrec", CONTROL, "gru4rec", "item-lm", *RERANKED, "logging", "sft")
NAMES = (SUBJECT, *ALL)

CONTENT_DIMS = 512
"""Dimensions of the content vectors for `text`: with 128 it loses a tenth to a quarter of its NDCG@10 on the Amazon sets."""

_TUNED = ("itemknn", "ease", "text", "als", "bpr")


class Fits(Protocol):
    """A method on one split, searched once, each fit made when it is first asked for."""

    @property
    def search(self) -> Search | None:
        """What was tried on the valid contexts, None where there is nothing to search."""
        ...

    @property
    def early(self) -> Method:
        """Fitted on what precedes the valid part, with the settings that the search found best."""
        ...

    @property
    def final(self) -> Method:
        """Fitted on what precedes the test, with the same settings."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A method ready to be judged, and how its settings were found."""

    ranker: Ranker
    cold_items: Ranker  # the same method over the items that are no candidates
    search: Search | None  # None where there was nothing to search, or the settings were given


@dataclass(frozen=True)
class ClassicalFits:
    """A classical method as `Fits`; `content` [item, dim] are the items' text vectors."""

    name: str
    split: Split
    content: F32
    repeats: bool
    seed: int
    known: Search | None = None  # of another seed, whose settings are taken

    @cached_property
    def search(self) -> Search | None:
        """On the valid contexts, by fits of what precedes them."""
        return self.known or (self._search() if self.name in _TUNED else None)

    @cached_property
    def early(self) -> Method:
        """See `Fits.early`."""
        return self.fit(self._best, self.split.fit_until_valid, self.split.candidates_valid)

    @cached_property
    def final(self) -> Method:
        """See `Fits.final`."""
        return self.fit(self._best, self.split.fit_until_test, self.split.candidates_test)

    @property
    def _best(self) -> Settings:
        return {} if self.search is None else self.search.best.settings

    def fit(self, s: Settings, known: Bool, candidates: Bool) -> Popularity | ItemKNN | Ease | TextSimilarity | ALS | BPR:
        """One fit of the `known` [event] events with these settings."""
        log, repeats, seed = self.split.log, self.repeats, self.seed
        match self.name:
            case "itemknn":
                return fit_itemknn(log, known, candidates, s["shrink"], int(s["neighbors"]), s["decay"], repeats)
            case "ease":
                return fit_ease(log, known, candidates, s["l2"], s["decay"], repeats)
            case "text":
                return fit_text(log, known, candidates, self.content, s["decay"], repeats)
            case "als":
                sizes = int(s["factors"]), s["alpha"], s["regularization"]
                return fit_als(log, known, candidates, *sizes, s["decay"], repeats, seed)
            case "bpr":
                rates = int(s["factors"]), s["learning_rate"], s["regularization"]
                return fit_bpr(log, known, candidates, *rates, int(s["iterations"]), repeats, seed)
        days = float(self.name.removeprefix("popularity-").removesuffix("d")) if "-" in self.name else None
        counted = (
            np.ones(len(log), bool) if self.split.point_in_time else known
        )  # without a time that parts, only the fit mask does
        return fit_popularity(log, counted, candidates, days, repeats)

    def _search(self) -> Search:
        split, repeats = self.split, self.repeats
        past = split.log, split.fit_until_valid, split.candidates_valid
        contexts = tuning_contexts(split)
        match self.name:
            case "itemknn":
                return tune_itemknn(*past, contexts, repeats)
            case "ease":
                return tune_ease(*past, contexts, repeats)
            case "als":
                return tune_als(*past, contexts, repeats, self.seed)
            case "bpr":
                return tune_bpr(*past, contexts, repeats, self.seed)
        return tune_text(*past, self.content, contexts, repeats)


def resolve(against: str | None) -> tuple[str, ...]:
    """Names behind an `--against` option: a comma list, `all`, or None for the quick ones. Never holds the subject itself.

    Raises UsageError for an unknown name and names the nearest.
    """
    if against is None:
        return QUICK
    asked = [name.strip().lower() for name in against.split(",") if name.strip()]
    if "all" in asked:
        return ALL
    for name in asked:
        if name not in NAMES:
            raise UsageError(_unknown(name))
    if not asked:
        raise UsageError(f"The option --against must name at least one method, or be left out. Methods: {', '.join(ALL)}.")
    return tuple(dict.fromkeys(name for name in asked if name != SUBJECT))


def fit_classical(
    name: str, split: Split, content: F32, settings: Settings | None = None, repeats: bool = False, seed: int = 0
) -> Fitted:
    """Fits one classical method for the test contexts of a split, tuned on its valid contexts unless `settings` are given.

    `content` [item, dim] are the items' text vectors. The search fits on `fit_until_valid`, the method on `fit_until_test`.
    """
    if name not in CLASSICAL:
        raise UsageError(_unknown(name, CLASSICAL))
    fits = ClassicalFits(name, split, content, repeats, seed)
    final = fits.final if settings is None else fits.fit(settings, split.fit_until_test, split.candidates_test)
    return Fitted(final, final.among(~split.candidates_test), fits.search if settings is None else None)


def _unknown(name: str, known: tuple[str, ...] = NAMES) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"Method {name!r} is not known. Did you mean {near!r}? Methods: {', '.join(known)}, or all."
