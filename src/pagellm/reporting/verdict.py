"""What an evaluation means, in words. Takes the evaluation as plain values, returns sentences; draws nothing.

A difference counts only where its whole 95 % interval lies on one side of zero; no figure is told without its interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pagellm.errors import PagellmError


@dataclass(frozen=True, slots=True)
class Metric:
    """How people call a metric, what it says, and which way is good: 1 up, -1 down, 0 neither."""

    label: str
    meaning: str
    good: int


SUPERVISED = "sft"
"""Name of a run's own supervised policy, where reinforcement learning changed it."""

NO_RIVALS = (SUPERVISED, "logging")
"""What a verdict does not rest on: the run's own start, and the pages of the log, which were taken from because they were shown."""

METRICS = {
    "ndcg": Metric("NDCG", "how high on the page the items stand that the customer took next; 1 is perfect", 1),
    "recall": Metric("Recall", "share of the items taken next that the page holds", 1),
    "hit": Metric("Hit rate", "share of customers whose page holds at least one item that they took next", 1),
    "mrr": Metric("MRR", "one over the place of the first right item, on average", 1),
    "map": Metric("MAP", "average precision over the right items", 1),
    "ild": Metric("Diversity within the page", "mean distance between the titles of two items on the page", 1),
    "near_duplicates": Metric("Near-duplicates on the page", "items that nearly repeat another item of the same page", -1),
    "category_coverage": Metric("Categories on the page", "how much of the category range one page shows", 1),
    "catalog_coverage": Metric("Catalog shown to anyone", "share of the catalog that appears on at least one page", 1),
    "novelty": Metric("Novelty", "how rarely the items are taken by everybody else; high is unusual, not better", 0),
    "page_dcg": Metric("DCG of the page", "what the customer took next, by how much its place is looked at", 1),
    "page_ndcg": Metric("NDCG of the page", "the same over the best page that the layout allows", 1),
    "expected_clicks": Metric("Expected clicks", "clicks that a log of pages lets one expect of this page", 1),
    "filled": Metric("Filled", "share of the slots that a page must fill that hold an item", 1),
    "repeats": Metric("Repeats", "items that stand twice on a page", -1),
    "group_repeats": Metric("Variants", "items of which a variant stands on the same page", -1),
    "category_entropy": Metric("Variety of categories", "entropy of the categories on a page", 1),
    "brand_entropy": Metric("Variety of brands", "entropy of the brands on a page", 1),
    "row_overlap": Metric("Rows that repeat each other", "how far two rows of a page hold the same categories", -1),
    "price_level": Metric("Price level", "geometric mean of the prices on a page", 0),
    "tail_share": Metric("Long tail", "share of the slots with items outside the most taken, which hold 80 % of all events", 0),
    "new_share": Metric("New items", "share of the slots with items that were first taken in the 30 days before", 0),
    "ad_share": Metric("Ads", "share of the slots with sponsored items", 0),
    "price_spread": Metric("Spread of prices", "how far prices on a page lie apart", 0),
    "coverage": Metric("Catalog on any page", "share of the catalog that appears on at least one page", 1),
    "gini": Metric("Concentration", "Gini coefficient of what is shown: 0 shows all items alike, 1 shows one to everybody", -1),
    "violations_raw": Metric("Rules broken, raw", "rules that a page would break if none were kept", -1),
    "violations_served": Metric("Rules broken, served", "rules that served pages break: must be 0", -1),
    "order_sensitivity": Metric(
        "Order of candidates", "share of slots that change with the order of the candidates: must be 0", -1
    ),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 if surely above zero, -1 if surely below, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def text(self, signed: bool = False) -> str:
        """`0.0547 [0.0512, 0.0581]`."""
        value, low, high = (number(x, signed) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The summary in words."""

    level: str  # "good", "bad" or "open"
    headline: str
    sentences: tuple[str, ...]


def read_estimate(table: Mapping[str, Any], method: str, metric: str, key: str) -> Estimate | None:
    """One cell of the evaluation; None where the method has no such metric. Raises PagellmError for a figure without interval."""
    cell = table.get(method, {}).get(metric)
    if cell is None:
        return None
    ends = cell.get("ci95")
    if not ends or len(ends) != 2:
        raise PagellmError(
            f"{metric} of {method} has no 95 % interval, and a report shows no figure without one. "
            "Evaluate the run again with `pagellm evaluate RUN --json FILE`."
        )
    return Estimate(float(cell[key]), float(ends[0]), float(ends[1]))


def metric_of(name: str) -> Metric:
    """The description of `ndcg@10` and its like; an unknown metric describes itself."""
    return METRICS.get(name.partition("@")[0], Metric(name.partition("@")[0], "", 0))


_OUTCOMES = {
    1: ("good", "foresees what customers take next better than"),
    -1: ("bad", "foresees what customers take next worse than"),
    0: ("open", "cannot be told apart, with this many customers, from"),
}


def judge(evaluation: Mapping[str, Any], subject: str, headline: str) -> Verdict:
    """The run against the best of the others on the headline metric, by the paired difference over users.

    Its own supervised policy is none of the others: what reinforcement learning changed is told apart.
    """
    own = read_estimate(evaluation["methods"], subject, headline, "mean")
    if own is None:
        raise PagellmError(f"The evaluation has no {headline} of {subject}. It has: {', '.join(evaluation['methods'])}.")
    users = f"{evaluation['users']:,} customers"
    rival = strongest(evaluation, subject, headline)
    if rival is None:
        return Verdict("open", f"{subject} was judged alone: nothing to compare with.", (f"{headline} {own.text()}, {users}.",))
    other = read_estimate(evaluation["methods"], rival, headline, "mean")
    difference = read_estimate(evaluation.get("paired", {}), rival, headline, "diff")
    if other is None or difference is None:
        return Verdict(
            "open", f"{subject} cannot be compared with {rival}: no paired difference.", (f"{headline} {own.text()}.",)
        )
    several = len([name for name in evaluation["methods"] if name not in (subject, *NO_RIVALS)]) or 1
    against = f"the best of the {several} other methods, {rival}" if several > 1 else f"the only other method, {rival}"
    good = metric_of(headline).good or 1
    level, words = _OUTCOMES[difference.side * good]
    ratio = read_estimate(evaluation.get("ratio", {}), rival, headline, "ratio")
    size = f"That is {ratio.text()} times as much." if ratio else ""
    evidence = f"{headline}: {own.text()} against {other.text()}; difference {difference.text(signed=True)} over {users}. {size}"
    return Verdict(
        level,
        f"{subject} {words} {against}.",
        (evidence.strip(), *_page_sentences(evaluation, subject, rival), *_learned(evaluation, subject, headline)),
    )


def strongest(evaluation: Mapping[str, Any], subject: str, metric: str) -> str | None:
    """The best method beside the subject on this metric, None if there is none; one of NO_RIVALS only where nothing else is."""
    good = metric_of(metric).good or 1
    every = {n: v[metric]["mean"] * good for n, v in evaluation["methods"].items() if n != subject and metric in v}
    others = {n: value for n, value in every.items() if n not in NO_RIVALS} or every
    return max(others, key=others.__getitem__) if others else None


def _learned(evaluation: Mapping[str, Any], subject: str, headline: str) -> tuple[str, ...]:
    """What learning from its own pages changed, against the run's supervised policy."""
    told = []
    for name in (headline, *(n for n in evaluation["methods"][subject] if n.startswith("near_duplicates"))):
        difference = read_estimate(evaluation.get("paired", {}), SUPERVISED, name, "diff")
        if difference is not None:
            told.append(f"{name} {difference.text(signed=True)}")
    return (f"Learning from its own pages changed: {', '.join(told)}.",) if told else ()


def _page_sentences(evaluation: Mapping[str, Any], subject: str, rival: str) -> tuple[str, ...]:
    """What else changes for customers against the same rival: metrics of the whole page."""
    found = []
    for name in evaluation["methods"][subject]:
        base = name.partition("@")[0]
        if base not in ("near_duplicates", "category_coverage", "ild", "catalog_coverage"):
            continue
        own = read_estimate(evaluation["methods"], subject, name, "mean")
        other = read_estimate(evaluation["methods"], rival, name, "mean")
        difference = read_estimate(evaluation.get("paired", {}), rival, name, "diff")
        if own and other and difference:
            found.append(f"{_side_words(name, difference)}: {own.text()} against {other.text()} ({name}).")
    return tuple(found)


def _side_words(name: str, difference: Estimate) -> str:
    metric = metric_of(name)
    if difference.side == 0:
        return f"{metric.label}: no difference that this test can see"
    direction = "more" if difference.side > 0 else "fewer" if name.startswith("near_") else "less"
    return f"{metric.label}: {direction}, which is {'better' if difference.side * metric.good > 0 else 'worse'}"


def number(value: float, signed: bool = False) -> str:
    """A figure with four digits that matter, for tables and sentences."""
    sign = "+" if signed else ""
    if value != value:
        return "n/a"
    if abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.4f}" if abs(value) < 1 else f"{value:{sign}.2f}"
