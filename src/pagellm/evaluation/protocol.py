"""One protocol for every method: the same contexts, candidates, cut-offs and draws of users. Takes rankers, gives a comparison.

Headline figures are those of warm users (with history) over the candidates of the split, the items seen before its cut. A target
that is no candidate stays in every denominator: it counts as a miss, also against the ideal. Cold users and cold items stand
apart, each in a table of its own, and are never mixed in. Knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pagellm.errors import DataError, PagellmError
from pagellm.evaluation.metrics import CUTS, accuracy
from pagellm.evaluation.page_metrics import ItemFacts, page_measures
from pagellm.evaluation.pages.judge import PageComparison
from pagellm.evaluation.results import Results, Tables, means, plain, tables
from pagellm.evaluation.significance import RESAMPLES
from pagellm.types import I32, NO_ITEM, Bool, Contexts

DEPTH = CUTS[-1]


class Ranker(Protocol):
    """A method that is judged: orders items for contexts, each as of its own time."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    def rank(self, contexts: Contexts, k: int) -> I32:
        """Catalog indexes, best first, [context, k]: candidates only, none twice, NO_ITEM where there are no more.

        The same contexts always give the same ranking; equal scores are ordered by a fixed rule that ends with the lower index.
        """
        ...


class Method(Ranker, Protocol):
    """A ranker that can be asked the same over other candidates."""

    def among(self, candidates: Bool) -> Method:
        """The same method over these candidates [item]."""
        ...


@dataclass(frozen=True)
class Comparison(Tables):
    """Methods beside each other, with intervals."""

    split: str
    subject: str  # the method that `paired` and `ratio` compare with the others
    results: Results  # warm users, per user
    cold_users: dict[str, object] | None  # the same table over users without history
    cold_items: dict[str, object] | None  # the same table over targets and candidates unseen before the cut
    card: dict[str, object] = field(default_factory=dict)  # what was done, for whoever repeats it
    pages: PageComparison | None = None  # the methods' pages under a layout

    def best(self, metric: str, among: Sequence[str] | None = None) -> str:
        """The strongest method beside the subject on this metric."""
        names = [n for n in self.methods if n != self.subject and (among is None or n in among)]
        return max(names, key=lambda n: self.methods[n][metric].value)

    def as_json(self) -> dict[str, object]:
        """Plain values in the documented form; every interval is of 95 %."""
        others = [n for n in self.methods if n != self.subject]
        return {
            "split": self.split,
            "users": len(self.results.users),
            **super().as_json(),
            "best": {m: self.best(m) for m in self.results.metrics} if others else {},
            "cold_users": self.cold_users,
            "cold_items": self.cold_items,
            "pages": None if self.pages is None else self.pages.as_json(),
            "card": self.card,
        }


def evaluate(
    methods: Sequence[Ranker], contexts: Contexts, candidates: Bool, facts: ItemFacts, cuts: tuple[int, ...] = CUTS
) -> Results:
    """Every metric of every method for each context, in the order of the contexts.

    Raises DataError without contexts or where a user has two, PagellmError where a method breaks the contract of `Ranker`.
    """
    if not len(contexts):
        raise DataError(
            "There is nothing to evaluate: the split has no context with a target. Use a log with more users or time."
        )
    if len(np.unique(contexts.user)) < len(contexts):
        raise DataError("Each user must have one context, or intervals over users mean nothing. Keep the first context of each.")
    values = {}
    metrics: tuple[str, ...] = ()
    for method in methods:
        ranked = method.rank(contexts, cuts[-1])
        check_ranked(method.name, ranked, len(contexts), candidates)
        columns = accuracy(ranked, contexts, cuts) | page_measures(ranked, facts, candidates)
        metrics = tuple(columns)
        values[method.name] = np.stack(list(columns.values()), axis=1)
    return Results(contexts.user, metrics, values)


def compare(
    methods: Sequence[Ranker],
    contexts: Contexts,
    candidates: Bool,
    facts: ItemFacts,
    *,
    split: str = "temporal",
    subject: str = "pagellm",
    cold_item_methods: Sequence[Ranker] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    card: Mapping[str, object] | None = None,
) -> Comparison:
    """Judges the methods on the contexts with a target: warm users for the headline, cold users and cold items apart.

    `cold_item_methods` are the methods once more, made to rank the items that are no candidates; without them there is no such
    table. `subject` need not be among the methods: then nothing is paired.
    """
    contexts = contexts.take(contexts.target_stop > contexts.stop)
    warm, cold = contexts.take(contexts.warm), contexts.take(~contexts.warm)
    results = evaluate(methods, warm, candidates, facts)
    told = tables(results, subject, resamples, seed)
    return Comparison(
        methods=told.methods,
        paired=told.paired,
        ratio=told.ratio,
        p=told.p,
        p_holm=told.p_holm,
        split=split,
        subject=subject,
        results=results,
        cold_users=_apart(methods, cold, candidates, facts, resamples, seed),
        cold_items=_apart(cold_item_methods, cold_item_contexts(contexts, candidates), ~candidates, facts, resamples, seed),
        card=_card(warm, cold, candidates, told, resamples, seed) | dict(card or {}),
    )


def cold_item_contexts(contexts: Contexts, candidates: Bool) -> Contexts:
    """The contexts whose target holds an item that is no candidate, with the targets cut to such items.

    A basket's items are sorted, not grouped, so the contexts stand on a log of their own: histories, then cold targets.
    """
    log = contexts.log
    lengths = contexts.target_stop - contexts.stop
    is_target = np.zeros(len(log), bool)
    is_target[np.repeat(contexts.stop - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())] = True
    keep = ~is_target | ~candidates[log.item]
    before = np.concatenate(([0], np.cumsum(keep)))
    start, stop, target_stop = before[contexts.start], before[contexts.stop], before[contexts.target_stop]
    cut = Contexts(log.where(keep), start, stop, target_stop, contexts.user, contexts.time)
    return cut.take(target_stop > stop)


def check_ranked(name: str, ranked: I32, n_contexts: int, candidates: Bool) -> None:
    """Raises PagellmError where a ranking has the wrong shape, an item that may not stand there, or an item twice."""
    if ranked.ndim != 2 or len(ranked) != n_contexts:
        raise PagellmError(f"Method {name} must rank [context, k] for {n_contexts} contexts. Got shape {ranked.shape}.")
    filled = ranked != NO_ITEM
    known = (ranked >= 0) & (ranked < len(candidates))
    wrong = filled & ~(known & candidates[np.where(known, ranked, 0)])
    if wrong.any():
        context, place = np.argwhere(wrong)[0]
        raise PagellmError(f"Method {name} ranks item {ranked[context, place]} for context {context}, which is no candidate.")
    ordered = np.sort(ranked, axis=1)
    twice = ((np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] != NO_ITEM)).any(1)
    if twice.any():
        raise PagellmError(f"Method {name} ranks an item twice for context {int(np.argmax(twice))}.")


def _apart(
    methods: Sequence[Ranker], contexts: Contexts, candidates: Bool, facts: ItemFacts, resamples: int, seed: int
) -> dict[str, object] | None:
    if not methods or not len(contexts):
        return None
    results = evaluate(methods, contexts, candidates, facts)
    told = plain(means(results, resamples, seed), "mean")
    return {"users": len(contexts), "candidates": int(candidates.sum()), "methods": told}


def _card(warm: Contexts, cold: Contexts, candidates: Bool, told: Tables, resamples: int, seed: int) -> dict[str, object]:
    targets = np.concatenate([warm.target(c) for c in range(len(warm))]) if len(warm) else np.empty(0, np.int32)
    return {
        "warm_users": len(warm),
        "cold_users": len(cold),
        "candidates": int(candidates.sum()),
        "items": len(candidates),
        "targets": len(targets),
        "targets_outside_candidates": int((~candidates[targets]).sum()),
        "cuts": list(CUTS),
        "relevance": "binary; the target basket is a set; a target outside the candidates is a miss, also against the ideal",
        "interval": f"percentile bootstrap over users, {resamples} resamples, seed {seed}, the same draws for every method",
        "p": "randomization test over users by sign flips, two-sided, one by one",
        "p_holm": f"the same after Holm's correction over the {sum(len(row) for row in told.p.values())} tests of this comparison",
    }
