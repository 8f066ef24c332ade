"""Methods by name: which there are, and the classical ones fitted on a split. Takes a split and content vectors, gives rankers.

Classical means without torch. The policy and the neural baselines are rankers too; whoever holds a run makes those.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from pagellm.data.splits import Split
from pagellm.errors import UsageError
from pagellm.evaluation.baselines.ease import Ease, fit_ease, tune_ease
from pagellm.evaluation.baselines.itemknn import ItemKNN, fit_itemknn, tune_itemknn
from pagellm.evaluation.baselines.popularity import Popularity, fit_popularity
from pagellm.evaluation.baselines.text import TextSimilarity, fit_text, tune_text
from pagellm.evaluation.baselines.tuning import Search, Settings
from pagellm.evaluation.protocol import Ranker
from pagellm.types import F32, Contexts

SUBJECT = "pagellm"
QUICK = ("popularity", "popularity-7d", "popularity-30d", "popularity-90d", "itemknn", "text")
"""Baselines that are fitted in seconds: what `evaluate` compares with unless told otherwise."""

CLASSICAL = (*QUICK, "ease")
NEURAL = ("sasrec", "sasrec+recency")
NAMES = (SUBJECT, *CLASSICAL, *NEURAL)

CONTENT_DIMS = 512
"""Dimensions of the content vectors for `text`: with 128 it loses a tenth to a quarter of its NDCG@10 on the Amazon sets."""

_TUNED = ("itemknn", "ease", "text")
_TUNING_CONTEXTS = 4000


@dataclass(frozen=True)
class Fitted:
    """A method ready to be judged, and how its settings were found."""

    ranker: Ranker
    cold_items: Ranker  # the same method over the items that are no candidates
    search: Search | None  # None where there was nothing to search, or the settings were given


def resolve(against: str | None) -> tuple[str, ...]:
    """Names behind an `--against` option: a comma list, `all`, or None for the quick ones. Never holds the subject itself.

    Raises UsageError for an unknown name and names the nearest.
    """
    if against is None:
        return QUICK
    asked = [name.strip().lower() for name in against.split(",") if name.strip()]
    if "all" in asked:
        return (*CLASSICAL, *NEURAL)
    for name in asked:
        if name not in NAMES:
            raise UsageError(_unknown(name))
    if not asked:
        raise UsageError(f"The option --against must name at least one method, or be left out. Methods: {', '.join(NAMES[1:])}.")
    return tuple(dict.fromkeys(name for name in asked if name != SUBJECT))


def fit_classical(name: str, split: Split, content: F32, settings: Settings | None = None, repeats: bool = False) -> Fitted:
    """Fits one classical method for the test contexts of a split, tuned on its valid contexts unless `settings` are given.

    `content` [item, dim] are the items' text vectors. The search fits on `fit_until_valid`, the method on `fit_until_test`.
    """
    if name not in CLASSICAL:
        raise UsageError(_unknown(name, CLASSICAL))
    search = None
    if settings is None and name in _TUNED:
        search = _search(name, split, content, repeats)
        settings = search.best.settings
    final = _fit(name, split, content, settings or {}, repeats)
    return Fitted(final, final.among(~split.candidates_test), search)


def _fit(name: str, split: Split, content: F32, s: Settings, repeats: bool) -> Popularity | ItemKNN | Ease | TextSimilarity:
    log, known, candidates = split.log, split.fit_until_test, split.candidates_test
    match name:
        case "itemknn":
            return fit_itemknn(log, known, candidates, s["shrink"], int(s["neighbors"]), s["decay"], repeats)
        case "ease":
            return fit_ease(log, known, candidates, s["l2"], s["decay"], repeats)
        case "text":
            return fit_text(log, known, candidates, content, s["decay"], repeats)
    days = float(name.removeprefix("popularity-").removesuffix("d")) if "-" in name else None
    counted = np.ones(len(log), bool) if split.point_in_time else known  # without a time that parts, only the fit mask does
    return fit_popularity(log, counted, candidates, days, repeats)


def _search(name: str, split: Split, content: F32, repeats: bool) -> Search:
    log, known, candidates, contexts = split.log, split.fit_until_valid, split.candidates_valid, _tuning_contexts(split)
    match name:
        case "itemknn":
            return tune_itemknn(log, known, candidates, contexts, repeats)
        case "ease":
            return tune_ease(log, known, candidates, contexts, repeats)
    return tune_text(log, known, candidates, content, contexts, repeats)


def _tuning_contexts(split: Split) -> Contexts:
    """The warm contexts of the valid part, at most 4,000 spread evenly over its users."""
    warm = np.flatnonzero(split.valid.warm & (split.valid.target_stop > split.valid.stop))
    if len(warm) == 0:
        raise UsageError("The split has no warm valid context to tune a baseline on. Give settings, or use a log with more time.")
    return split.valid.take(warm[np.linspace(0, len(warm) - 1, min(len(warm), _TUNING_CONTEXTS)).astype(np.int64)])


def _unknown(name: str, known: tuple[str, ...] = NAMES) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"Method {name!r} is not known. Did you mean {near!r}? Methods: {', '.join(known)}, or all."
