"""Pages of several methods under one layout, beside each other. Takes methods that make pages, gives a comparison with intervals.

Every page is made for a test context that has a target, as of its own time, under the same compiled rules; the methods share users and
draws. Rules are checked on fewer pages, because the validator asks of every slot what else might have stood there. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from pagellm.data.shown import askers
from pagellm.errors import DataError
from pagellm.evaluation.pages.accuracy import dcg, expected_clicks, ideal_dcg, ndcg, relevance, worth
from pagellm.evaluation.pages.reach import catalog_coverage, gini, novelty, share_of
from pagellm.evaluation.pages.rules import order_sensitivity, violations
from pagellm.evaluation.pages.stand import PageStand
from pagellm.evaluation.pages.variety import (
    category_entropy,
    group_repeats,
    intra_list_distance,
    near_duplicates,
    price_level,
    price_spread,
    repeats,
    row_overlap,
)
from pagellm.evaluation.results import Results, Tables, means, plain, tables
from pagellm.evaluation.significance import RESAMPLES
from pagellm.layout.validator import Validator
from pagellm.types import DAY, F64, I32, NO_ITEM, Context, Contexts, Page, PageBatch

MOST_USERS = 2_000
"""Test users whose pages are judged; of more, so many are drawn."""

MOST_CHECKED = 200
"""Of these, users whose pages are held against the rules and written once more from reordered candidates."""

NEW_DAYS = 30
"""An item is new for so many days after its first event."""

_PAIRS = 4_000_000  # pairs of slots that are compared at once


class PageMaker(Protocol):
    """A method whose pages are judged."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    def pages(self, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        """(a page a context, [context, candidate] what it was made from). `asked` are the contexts as records for rules."""
        ...

    def unruled(self, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        """The same where no rule is masked."""
        ...


@runtime_checkable
class Reorders(Protocol):
    """A method that chooses from a list of candidates, whose order should not matter."""

    def reordered(self, contexts: Contexts, asked: Sequence[Context], seed: int) -> tuple[list[Page], I32]:
        """The pages once more, each context's candidates in a drawn order."""
        ...


@dataclass(frozen=True)
class PageComparison:
    """Pages beside each other, with intervals."""

    results: Results
    figures: Tables
    checked: Results  # on fewer users: violations_raw, violations_served, order_sensitivity
    rates: dict[str, dict[str, dict[str, object]]]  # means of `checked`, as plain values
    broken: dict[str, dict[str, int]]  # method -> rule -> breaches of pages that no rule was masked for
    card: dict[str, object]

    def as_json(self) -> dict[str, object]:
        """Plain values; every interval is of 95 %."""
        checked = {"users": len(self.checked.users), "methods": self.rates, "broken_raw": self.broken}
        return {"users": len(self.results.users), **self.figures.as_json(), "rules": checked, "card": self.card}


def judge_pages(
    makers: Sequence[PageMaker], contexts: Contexts, stand: PageStand, subject: str, resamples: int = RESAMPLES, seed: int = 0
) -> PageComparison:
    """Judges every maker on the same contexts, which are warm and have a target: at most MOST_USERS of them, drawn by the seed.

    Raises DataError without contexts.
    """
    if not len(contexts):
        raise DataError("There are no pages to judge: the split has no warm test context with a target.")
    some = draw_users(contexts, MOST_USERS, seed)
    asked = list(askers(some, stand.impressions, stand.rules.frequency.days if stand.rules.frequency else 0))
    ideal, exact = ideal_dcg(some, stand.rules, stand.look)
    few = np.linspace(0, len(some) - 1, min(len(some), MOST_CHECKED)).astype(np.int64)
    validator = Validator(stand.rules.layout, stand.catalog, stand.rules.now)
    values, checked, broken = {}, {}, {}
    metrics: tuple[str, ...] = ()
    for maker in makers:
        pages, pool = maker.pages(some, asked)
        columns = page_columns(PageBatch.of(pages, some, np.arange(len(some))), stand, ideal)
        metrics, values[maker.name] = tuple(columns), np.stack(list(columns.values()), axis=1)
        checked[maker.name], broken[maker.name] = _checked(maker, pages, pool, few, some, asked, validator, seed)
    results = Results(some.user, metrics, values)
    rules = Results(some.user[few], ("violations_raw", "violations_served", "order_sensitivity"), checked)
    return PageComparison(
        results, tables(results, subject, resamples, seed), rules, rates_of(rules, resamples, seed), broken,
        _card(some, contexts, ideal, exact, stand, seed),
    )  # fmt: skip


def draw_users(contexts: Contexts, most: int, seed: int) -> Contexts:
    """At most so many of the contexts, drawn by the seed, in their order."""
    if len(contexts) <= most:
        return contexts
    return contexts.take(np.sort(np.random.default_rng(seed).choice(len(contexts), most, replace=False)))


def page_columns(pages: PageBatch, stand: PageStand, ideal: F64) -> dict[str, F64]:
    """Every measure of these pages, one array [page] each; `ideal` [page] is of `ideal_dcg`. What the catalog does not tell is left out."""
    items, facts, rules = pages.items, stand.facts, stand.rules
    worths, may = worth(pages, stand.look), rules.eligible & stand.candidates
    gained = dcg(relevance(pages), worths)
    columns = {"page_dcg": gained, "page_ndcg": ndcg(gained, ideal)}
    if stand.wanted is not None:
        columns["expected_clicks"] = expected_clicks(pages, stand.look, stand.wanted)
    columns |= {"filled": np.minimum((items != NO_ITEM).sum(1) / rules.layout.fewest_slots, 1.0), "repeats": repeats(items)}
    if facts.groups is not None:
        columns["group_repeats"] = group_repeats(items, facts.groups)
    columns |= {
        "near_duplicates": _in_parts(near_duplicates, items, facts.titles),
        "ild": _in_parts(intra_list_distance, items, facts.content),
        "category_entropy": _in_parts(category_entropy, items, facts.theme),
        "novelty": novelty(items, facts.information),
    }
    if facts.brands is not None:
        columns["brand_entropy"] = _in_parts(category_entropy, items, facts.brands)
    if len(rules.capacity) > 1:
        columns["row_overlap"] = row_overlap(items, pages.row, facts.theme)
    if facts.price is not None:
        columns |= {"price_level": price_level(items, facts.price), "price_spread": price_spread(items, facts.price)}
    if facts.tail is not None:
        columns["tail_share"] = share_of(items, facts.tail)
    if facts.since is not None:
        asked = pages.contexts.time[pages.place]
        columns["new_share"] = share_of(items, facts.since[items] > asked[:, None] - NEW_DAYS * DAY)
    if rules.sponsored.any():
        columns["ad_share"] = share_of(items, rules.sponsored)
    return columns | {
        "coverage": catalog_coverage(items, int(may.sum())),
        "gini": gini(items, worths, may),
    }


def _checked(
    maker: PageMaker,
    pages: Sequence[Page],
    pool: I32,
    few: np.ndarray,
    contexts: Contexts,
    asked: Sequence[Context],
    validator: Validator,
    seed: int,
) -> tuple[F64, dict[str, int]]:
    """([user, metric] breaches of unruled and of served pages and sensitivity to order, NaN without candidates; raw breaches by rule)."""
    some, who, served = contexts.take(few), [asked[p] for p in few], [pages[p] for p in few]
    free, wide = maker.unruled(some, who)
    raw, broken = violations(free, who, wide, validator)
    kept, _ = violations(served, who, pool[few], validator)
    moved = np.full(len(few), np.nan)
    if isinstance(maker, Reorders):
        moved = order_sensitivity(served, maker.reordered(some, who, seed)[0])
    return np.stack([raw, kept, moved], axis=1), broken


def rates_of(checked: Results, resamples: int, seed: int) -> dict[str, dict[str, dict[str, object]]]:
    """Means with intervals; what a method has no value of is left out."""
    told = plain(means(checked, resamples, seed), "mean")
    return {name: {m: cell for m, cell in row.items() if cell["mean"] == cell["mean"]} for name, row in told.items()}


def _in_parts(measure: Callable[..., F64], items: I32, fact: np.ndarray) -> F64:
    """A measure that compares slots pair by pair, some pages at a time."""
    step = max(1, _PAIRS // max(items.shape[1], 1) ** 2)
    return np.concatenate([measure(items[at : at + step], fact) for at in range(0, max(len(items), 1), step)])


def _card(some: Contexts, contexts: Contexts, ideal: F64, exact: bool, stand: PageStand, seed: int) -> dict[str, object]:
    layout = stand.rules.layout
    return {
        "layout": layout.id,
        "rows": [row.id for row in layout.rows],
        "slots": stand.rules.places,
        "ruled": not stand.rules.trivial,
        "users": f"{len(some):,} of {len(contexts):,} warm test users"
        + (f", drawn with seed {seed}" if len(some) < len(contexts) else ""),
        "look": stand.looked,
        "ideal": "the best page that the layout allows"
        + ("" if exact else ", an upper bound: the rows have too many orders to try each"),
        "users_without_ideal": int((ideal == 0).sum()),
        "checked": f"rules and order of candidates on {min(len(some), MOST_CHECKED):,} of them",
    }
