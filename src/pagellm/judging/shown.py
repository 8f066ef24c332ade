"""Pages of a run as customers would have seen them, before and after: composed, timed, proved, and turned into views.

Takes a run and contexts of its log, gives pages with what is wrong with them. Knows no metric.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from pagellm.composition import compose_for, make_context
from pagellm.evaluation.cases import Case
from pagellm.layout.validator import Validator
from pagellm.models.composer import LanguagePolicy
from pagellm.models.run import Run, run_layout
from pagellm.reporting.view import PageView
from pagellm.types import NO_ITEM, Context, Contexts, Page

TAKEN = "Taken next"
"""Badge of an item that its customer took in the next basket."""


@dataclass(frozen=True)
class Served:
    """What was found of pages that were composed one at a time, as a service would."""

    pages: tuple[Page, ...]
    milliseconds: tuple[float, ...]  # [page]
    violations: tuple[str, ...]  # in words, one for each
    foreign: int  # slots with an item that the catalog does not have
    short: int  # pages with an empty slot
    repeats: int  # slots with an item that stands earlier on the page


@dataclass(frozen=True)
class BeforeAfter:
    """One user's page before and after, with why this user."""

    case: Case
    before: PageView | None  # None where nothing came before
    after: PageView


def context_of(run: Run, contexts: Contexts, place: int) -> Context:
    """One context of the log as a request: all that is known of the user before its time."""
    user = str(run.split.log.user_ids[contexts.user[place]])
    return make_context(run, user, (), None, int(contexts.time[place]))[0]


def serve(run: Run, contexts: Contexts, places: np.ndarray, slots: int) -> Served:
    """Composes a page for each of these contexts with the run's last policy under its layout, and proves it."""
    layout = run_layout(run, slots)
    pages, took, wrong = [], [], []
    foreign = short = repeats = 0
    for place in places:
        context = context_of(run, contexts, int(place))
        policy = LanguagePolicy(run, layout, now=context.time, net=run.policy)
        began = time.perf_counter()
        page = policy.compose(context, np.random.default_rng(0))
        took.append(1000 * (time.perf_counter() - began))
        pages.append(page)
        wrong += [
            f"{v.rule} at {v.slot or 'the page'}: {v.text}"
            for v in Validator(layout, run.catalog, context.time).check(page, context)
        ]
        items = np.array([slot.item for slot in page.slots])
        filled = items[items != NO_ITEM]
        foreign += int(((filled < 0) | (filled >= len(run.catalog))).sum())
        short += int(len(filled) < len(items))
        repeats += len(filled) - len(np.unique(filled))
    return Served(tuple(pages), tuple(took[1:]), tuple(wrong), foreign, short, repeats)


def before_after(run: Run, contexts: Contexts, case: Case, slots: int) -> BeforeAfter:
    """The page of the supervised policy, where the run has another one, beside that of its last policy."""
    before = None if run.tuned is None else page_shown(run, contexts, case.place, slots, "sft")
    return BeforeAfter(case, before, page_shown(run, contexts, case.place, slots))


def page_shown(run: Run, contexts: Contexts, place: int, slots: int, stage: str | None = None) -> PageView:
    """One context's page by the policy of this stage, the run's last one where None; what was taken next carries a badge."""
    user = str(run.split.log.user_ids[contexts.user[place]])
    composed = compose_for(run, user=user, layout=run_layout(run, slots), at=int(contexts.time[place]), stage=stage)
    taken = {str(run.catalog.item_ids[item]) for item in contexts.target(place)}
    view = composed.views[0]
    rows = tuple(
        replace(row, cards=tuple(replace(card, badge=TAKEN) if card.item_id in taken else card for card in row.cards))
        for row in view.rows
    )
    return replace(view, rows=rows)
