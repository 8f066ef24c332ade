"""From logged pages and their feedback to the records: `Impressions` with joined feedback, `Interactions` behind them.

Comes in: `Pages` and `Feedback`. Goes out: the two records on one list of users. Knows no file.
"""

from __future__ import annotations

import numpy as np

from pagellm.data.assemble import Loose, assemble, day_keys
from pagellm.data.feedback import Feedback
from pagellm.data.ids import Ids
from pagellm.data.impressions import Pages
from pagellm.data.interactions import ENGAGEMENTS
from pagellm.types import F32, I32, I64, Bool, Event, Impressions, Interactions


def page_records(pages: Pages, feedback: Feedback, users: Ids) -> tuple[Interactions, Impressions]:
    """Both records. An engagement's basket is its page (as far as no other page comes between), else its UTC day."""
    history = np.isin(feedback.event, ENGAGEMENTS)
    loose = Loose(
        feedback.user[history],
        feedback.item[history],
        feedback.time[history],
        basket_keys(feedback.page, feedback.time)[history],
        feedback.event[history],
        feedback.rating[history],
        feedback.value[history],
    )
    interactions, place = assemble(loose, users)
    return interactions, shown_pages(pages, feedback, place[pages.user] if len(pages.user) else pages.user)


def basket_keys(page: I32, time: I64) -> I64:
    """[event] the place of an event's page, below all pages its UTC day where it has none (-1)."""
    return np.where(page >= 0, page, day_keys(time)).astype(np.int64)


def shown_pages(pages: Pages, feedback: Feedback, user: I32) -> Impressions:
    """The pages with the feedback on their slots. `user` [page] are indexes of the record's users."""
    viewed = pages.viewed.copy()
    viewed[_slots(feedback, Event.SLOT_VIEW)] = 1
    return Impressions(
        pages.page_ids,
        user,
        pages.time,
        pages.policy,
        pages.offsets,
        pages.item,
        pages.row,
        pages.col,
        pages.propensity,
        viewed,
        _marked(feedback, Event.SELECT_ITEM, len(pages.item)),
        _marked(feedback, Event.ADD_TO_CART, len(pages.item)),
        _marked(feedback, Event.PURCHASE, len(pages.item)),
        _money(feedback, len(pages.item)),
        _settled(pages, feedback),
    )


def _settled(pages: Pages, feedback: Feedback) -> I64:
    """[page] time of the last view or engagement on each page, on one of its slots or not."""
    settled = pages.time.copy()
    told = (feedback.page >= 0) & np.isin(feedback.event, (Event.SLOT_VIEW, *ENGAGEMENTS))
    np.maximum.at(settled, feedback.page[told], feedback.time[told])
    return settled


def _slots(feedback: Feedback, kind: Event) -> I64:
    chosen = (feedback.event == kind) & (feedback.slot >= 0)
    places: I64 = feedback.slot[chosen]
    return places


def _marked(feedback: Feedback, kind: Event, slots: int) -> Bool:
    """[slot] whether an event of this kind came from the slot."""
    marked = np.zeros(slots, bool)
    marked[_slots(feedback, kind)] = True
    return marked


def _money(feedback: Feedback, slots: int) -> F32:
    """[slot] money of purchases made from the slot, less refunds."""
    sign = np.where(feedback.event == Event.PURCHASE, 1.0, np.where(feedback.event == Event.REFUND, -1.0, 0.0))
    weight = sign * np.nan_to_num(feedback.value.astype(np.float64))
    on = feedback.slot >= 0
    return np.bincount(feedback.slot[on], weight[on], minlength=slots).astype(np.float32)
