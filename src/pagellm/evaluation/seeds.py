"""Comparisons of one method trained with several seeds, put together as one. Takes comparisons; knows no run and no file.

The seed is a factor beside the user: figures are means over both, and intervals draw both (`significance.seeded_means`). Tests of no
difference flip users, for the mean over these seeds; they say nothing of seeds that were not trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pagellm.evaluation.pages.judge import PageComparison, rates_of
from pagellm.evaluation.protocol import Comparison
from pagellm.evaluation.results import over_seeds, tables
from pagellm.evaluation.significance import RESAMPLES


def put_together(
    comparisons: Sequence[Comparison], seeds: Sequence[int], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """One comparison of the seeds' mean. Baselines are those of the first; users without history and new items are left out.

    Raises UsageError where the comparisons are not of the same users and metrics.
    """
    first = comparisons[0]
    results = over_seeds([c.results for c in comparisons])
    told = tables(results, first.subject, resamples, seed)
    pages = [c.pages for c in comparisons if c.pages is not None]
    drawn = f"percentile bootstrap, {resamples} resamples, seed {seed}: users and {len(seeds)} training seeds are drawn"
    return replace(
        first,
        methods=told.methods,
        paired=told.paired,
        ratio=told.ratio,
        p=told.p,
        p_holm=told.p_holm,
        results=results,
        cold_users=None,
        cold_items=None,
        pages=_pages(pages, first.subject, resamples, seed) if pages else None,
        card=first.card | {"seeds": list(seeds), "interval": drawn, "cold": "judge each run alone for users without history"},
    )


def _pages(parts: Sequence[PageComparison], subject: str, resamples: int, seed: int) -> PageComparison:
    results, checked = over_seeds([p.results for p in parts]), over_seeds([p.checked for p in parts])
    broken: dict[str, Counter[str]] = {}
    for part in parts:
        for name, rules in part.broken.items():
            broken.setdefault(name, Counter()).update(rules)
    return PageComparison(
        results,
        tables(results, subject, resamples, seed),
        checked,
        rates_of(checked, resamples, seed),
        {name: dict(rules.most_common()) for name, rules in broken.items()},
        parts[0].card,
    )
