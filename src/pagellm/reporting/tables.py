"""The tables of a report: figures with their intervals, drawn and written. Takes the JSON of evaluation, rewards and off-policy judging.

Computes no metric, reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pagellm.reporting.figures import interval_bar
from pagellm.reporting.paper import ONLINE, STATED
from pagellm.reporting.verdict import Estimate, metric_of, number, read_estimate
from pagellm.reporting.words import plain

ABLATION_METRICS = ("ndcg@10", "near_duplicates@10", "true_clicks")
"""Of an ablation's long table: what its table in a report shows."""

CUSTOMER_METRICS = (
    *("near_duplicates", "row_overlap", "category_entropy", "brand_entropy"),
    *("price_level", "new_share", "tail_share", "ad_share", "filled"),
)
"""Measures of a page that say what a customer sees, whatever they take."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of a table with its drawing."""

    text: str
    ends: str
    bar: Markup


@dataclass(frozen=True, slots=True)
class Table:
    """Methods by columns; a missing figure is None."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    heading: str = "Method"  # of the first column


def headline_table(evaluation: Mapping[str, Any], metric: str) -> Table:
    """All methods on one metric, best first."""
    methods = evaluation["methods"]
    good = metric_of(metric).good or 1
    order = sorted((n for n in methods if metric in methods[n]), key=lambda n: -good * methods[n][metric]["mean"])
    rows = _rows(evaluation, order, (metric,), "methods", "mean", width=220)
    return Table(metric, metric_of(metric).meaning, (metric,), rows)


def paired_table(evaluation: Mapping[str, Any], subject: str, metric: str) -> Table | None:
    """The subject minus each other method, over the same users; None without paired figures."""
    methods = [name for name in evaluation.get("paired", {}) if metric in evaluation["paired"][name]]
    if not methods:
        return None
    rows = _rows(evaluation, methods, (metric,), "paired", "diff", width=220, zero=0.0)
    p = {plain(name, 60): row.get(metric) for name, row in evaluation.get("p_holm", {}).items()}
    told = tuple((f"{name} (p {p[name]:.3f})" if p.get(name) is not None else name, cells) for name, cells in rows)
    note = (
        "Right of the line: better than that method, for the same customers. A bar that touches the line is no proven difference"
    )
    corrected = "; p of a randomization test after Holm's correction over all methods and metrics" if p else ""
    return Table(f"{subject} minus the other", note + corrected, (metric,), told)


def metric_tables(evaluation: Mapping[str, Any]) -> tuple[Table, ...]:
    """One table a metric, its cut-offs as columns."""
    names: dict[str, list[str]] = {}
    for figures in evaluation["methods"].values():
        for name in figures:
            known = names.setdefault(name.partition("@")[0], [])
            if name not in known:
                known.append(name)
    methods = list(evaluation["methods"])
    return tuple(
        Table(
            metric_of(base).label, metric_of(base).meaning, tuple(columns), _rows(evaluation, methods, columns, "methods", "mean")
        )
        for base, columns in names.items()
    )


def customer_table(evaluation: Mapping[str, Any], subject: str, before: str) -> Table | None:
    """What customers would see that is different: measures of whole pages of `before` and of the subject; None without either."""
    pages = evaluation.get("pages") or {}
    if not {subject, before} <= set(pages.get("methods", {})) or before not in pages.get("paired", {}):
        return None
    rows = []
    for name in (metric for metric in CUSTOMER_METRICS if metric in pages["methods"][subject]):
        sides = [read_estimate(pages["methods"], method, name, "mean") for method in (before, subject)]
        change = read_estimate(pages["paired"], before, name, "diff")
        span = _span(sides, None)
        cells = (_cell(change, _span([change], 0.0), 110, 0.0), *(_cell(side, span, 110, None) for side in sides))
        rows.append((metric_of(name).label, cells))
    note = (
        f"Pages of {subject} beside those of {before} for the same {pages['users']:,} customers; a change whose bar touches the line is no "
        "proven change. What each measure is stands below, under whole pages"
    )
    columns = ("change", f"before ({before})", f"after ({subject})")
    return Table("What changes for customers", note, columns, tuple(rows), "On a page") if rows else None


def page_tables(evaluation: Mapping[str, Any]) -> tuple[Table, ...]:
    """Measures of whole pages under the layout, and of their rules, where the evaluation has them."""
    pages = evaluation.get("pages")
    if not pages:
        return ()
    rules = pages.get("rules")
    return metric_tables(pages) + (metric_tables(rules) if rules else ())


def apart_tables(evaluation: Mapping[str, Any], metric: str) -> tuple[Table, ...]:
    """Cold users and cold items on the headline metric, where the evaluation has them."""
    found = []
    for key, label in (("cold_users", "Customers without history"), ("cold_items", "Items unseen before the cut")):
        part = evaluation.get(key)
        if isinstance(part, Mapping) and any(metric in figures for figures in part.get("methods", {}).values()):
            rows = _rows(part, list(part["methods"]), (metric,), "methods", "mean", width=220)
            found.append(Table(label, f"{part.get('users', '?')} customers, never mixed into the tables above", (metric,), rows))
    return tuple(found)


def slice_table(slices: Sequence[Mapping[str, Any]], subject: str, reference: str) -> Table | None:
    """Ratios by group of users, worst first; None without any."""
    known = [s for s in slices if s["ratio"] is not None]
    if not known:
        return None
    cells = {f"{s['kind']}: {s['name']} ({s['users']:,})": Estimate(s["ratio"]["ratio"], *s["ratio"]["ci95"]) for s in known}
    span = (min(0.8, *(e.low for e in cells.values())), max(1.2, *(e.high for e in cells.values())))
    rows = tuple((plain(name, 120), (_cell(e, span, 220, 1.0, signed=False),)) for name, e in cells.items())
    note = (
        f"{subject} over {reference}, worst first: right of the line the group gains. Intervals over the customers of the group"
    )
    return Table("Who gains, who loses", note, ("ratio",), rows, "Group (customers)")


def reward_tables(check: Mapping[str, Any]) -> tuple[Table, ...]:
    """Laws, and how often the rewards tell the better page, beside what the policy's own log-probability would say."""
    if not check:
        return ()
    laws = {law["says"]: (_rate_cell(law),) for law in check["laws"].values()}
    kinds: dict[str, tuple[Cell | None, ...]] = {}
    for family, columns in check["pair_accuracy"].items():
        for name, probe, words in (
            ("held_out_users", "reference_logprob_probe", "held-out customers"),
            ("unseen_operators", "reference_logprob_probe_unseen", "unseen defects"),
        ):
            if columns.get(name):
                kinds[f"{family}, {words}"] = (_rate_cell(columns[name]), _rate_cell(columns.get(probe)))
    return (
        Table("Laws", "Share of pages on which the law holds, of held-out customers", ("holds",), tuple(laws.items()), "Law"),
        Table(
            "Which of two pages is better?",
            "Share of pairs that are told apart rightly; a coin has .5. Beside it what the supervised policy's own log-probability says",
            ("reward", "policy alone"),
            tuple(kinds.items()),
            "Family and pairs",
        ),
    )


def estimator_table(found: Mapping[str, Any]) -> Table | None:
    """What each off-policy estimator says, beside what the log's own policy earned; None where none could say anything."""
    told = {name: e for name, e in found.get("estimators", {}).items() if e["value"] is not None}
    if not told:
        return None
    value = {n: Estimate(e["value"], *e["bootstrap95"]) for n, e in told.items()}
    gain = {n: Estimate(e["value"] - e["logged"], *e["gain95"]) for n, e in told.items()}
    spans = _span(list(value.values()), None), _span(list(gain.values()), 0.0)
    rows = tuple(
        (
            f"{name}: {e['assumes']} (worth {e['ess']:,.0f} of {e['n']:,} pages{_weights(e)})",
            (_cell(value[name], spans[0], 110, None), _cell(gain[name], spans[1], 110, 0.0)),
        )
        for name, e in told.items()
    )
    note = (
        "Reward a page that the policy would have earned, and how much more than the policy of the log; 95 % bootstrap over users"
    )
    return Table(
        "What another policy's log says", note, ("reward a page", "more than the log's"), rows, "Estimator and what it assumes"
    )


def online_words(found: Mapping[str, Any]) -> str:
    """What may be expected online, in a sentence: the range of all estimators that a log of pages allows."""
    told = [e for e in found.get("estimators", {}).values() if e["value"] is not None]
    if not found:
        return "What an A/B test would show is not estimated: that takes a log of pages with the chances that they were shown with (--log)."
    if not told:
        return "What an A/B test would show cannot be estimated from the log of pages that was named; below is why."
    low, high = min(e["gain95"][0] for e in told), max(e["gain95"][1] for e in told)
    return (
        f"Expected online: between {number(low, signed=True)} and {number(high, signed=True)} reward a page beside the policy of the log, "
        f"over the 95 % intervals of all {len(told)} estimators that its log allows. That is an estimate from other pages, no promise."
    )


def _weights(estimator: Mapping[str, Any]) -> str:
    """How far its weights reach, where it has any."""
    if estimator.get("max_weight") is None:
        return ""
    return f", largest weight {estimator['max_weight']:,.1f}, support {estimator['support']:.0%}"


def refusals(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Estimators that refuse, each with its reason."""
    return [(name, plain(e["refused"]["verdict"], 300)) for name, e in found.get("estimators", {}).items() if e["value"] is None]


def ablation_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """The arms of an ablation of the same data, most accurate first; None without any. `rows` are pooled ones of its long table."""
    metrics = [m for m in ABLATION_METRICS if any(row["metric"] == m for row in rows)]
    found: dict[str, dict[str, Estimate]] = {}
    gains: dict[str, Estimate] = {}
    for row in rows:
        arm = f"{row['arm']} on {row['base']}"
        found.setdefault(arm, {})[row["metric"]] = Estimate(row["mean"], row["lo"], row["hi"])
        if row["metric"] == metrics[0] and row["paired_diff"] is not None:
            gains[arm] = Estimate(row["paired_diff"], row["paired_lo"], row["paired_hi"])
    if not found:
        return None
    spans = {m: _span([each.get(m) for each in found.values()], None) for m in metrics}
    zero = _span(list(gains.values()), 0.0)
    order = sorted(found, key=lambda arm: -found[arm][metrics[0]].value if metrics[0] in found[arm] else 0.0)
    cells = tuple(
        (
            plain(arm, 80),
            (*(_cell(found[arm].get(m), spans[m], 110, None) for m in metrics), _cell(gains.get(arm), zero, 110, 0.0)),
        )
        for arm in order
    )
    note = (
        "Every arm that was learned and every control, on the test part; 95 % bootstrap intervals over customers, all seeds. The last "
        f"column is {metrics[0]} minus that of the supervised policy of the same base"
    )
    return Table("Which part does what?", note, (*metrics, "minus supervised"), cells, "Arm and the policy it stands on")


def beside_paper(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(figure, as the paper states it, ours and where that is from) of each figure in the abstract. `found` are an ablation's findings."""
    ours = {f["what"].partition(":")[0]: f for f in found}
    rows = []
    for key, words, stated in STATED:
        here, source = "not measured", "it takes an experiment with customers"
        if key in ours:
            value, low, high = (f"{100 * (ours[key][end] - 1):+.1f}" for end in ("value", "low", "high"))
            here, source = f"{value} % [{low}, {high}]", f"{ours[key]['dataset']}: {ours[key]['what'].partition(': ')[2]}"
        elif key not in ONLINE:
            source = "pagellm reproduce ablation measures it"
        rows.append((words, plain(f"paper {stated}; here {here} ({source})", 300)))
    return rows


def _rate_cell(rate: Mapping[str, Any] | None) -> Cell | None:
    if rate is None or rate["rate"] is None:
        return None
    return _cell(Estimate(rate["rate"], *rate["ci95"]), (0.0, 1.0), 110, None)


def _rows(
    evaluation: Mapping[str, Any],
    methods: Sequence[str],
    columns: Sequence[str],
    table: str,
    key: str,
    width: int = 110,
    zero: float | None = None,
) -> tuple[tuple[str, tuple[Cell | None, ...]], ...]:
    estimates = {(m, c): read_estimate(evaluation[table], m, c, key) for m in methods for c in columns}
    spans = {c: _span([estimates[m, c] for m in methods], zero) for c in columns}
    return tuple((plain(m, 60), tuple(_cell(estimates[m, c], spans[c], width, zero) for c in columns)) for m in methods)


def _cell(
    estimate: Estimate | None, span: tuple[float, float], width: int, zero: float | None, signed: bool | None = None
) -> Cell | None:
    if estimate is None:
        return None
    signed = zero is not None if signed is None else signed
    ends = f"[{number(estimate.low, signed)}, {number(estimate.high, signed)}]"
    bar = interval_bar(estimate.value, estimate.low, estimate.high, span, zero, width)
    return Cell(number(estimate.value, signed), ends, bar)


def _span(estimates: Sequence[Estimate | None], zero: float | None) -> tuple[float, float]:
    """From 0, which keeps lengths honest, to the largest end; both sides of 0 where differences are shown."""
    known = [e for e in estimates if e is not None]
    low, high = min((e.low for e in known), default=0.0), max((e.high for e in known), default=1.0)
    return (min(low, 0.0), max(high, 0.0)) if zero is not None or low < 0 else (0.0, high or 1.0)
