"""Page logs: feedback joined to slots, baskets behind pages, rules for whole pages, and what the checks tell of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_shops import ITEMS, T0, Rows, long_rows, page_events, page_rows, write

from pagellm.data.contexts import contexts_at
from pagellm.data.readers import Checked, check_log, read_log
from pagellm.errors import DataError
from pagellm.types import Event


def checked(folder: Path, pages: Rows, events: Rows, form: str = "ndjson", **options: object) -> Checked:
    write(folder, form, items=ITEMS, impressions=pages, events=events)
    return check_log(folder, max_reject_share=1.0, **options)  # type: ignore[arg-type]


def reasons(result: Checked, file: str) -> dict[str, int]:
    return next((dict(f.reasons) for f in result.files if f.file.startswith(file)), {})


def codes(result: Checked) -> set[str]:
    return {finding.code for finding in result.findings}


def test_feedback_joins_its_slot(tmp_path: Path):
    log = checked(tmp_path, page_rows(), page_events()).log
    pages = log.impressions
    assert pages is not None
    assert (len(pages), len(pages.item)) == (20, 120)
    assert pages.page_ids.tolist() == [f"p{n}" for n in range(20)]
    assert np.flatnonzero(pages.clicked).tolist() == [6 * p + 1 for p in range(20)]
    bought = [6 * p + 1 for p in range(0, 20, 2)]
    assert np.flatnonzero(pages.carted).tolist() == bought
    assert np.flatnonzero(pages.purchased).tolist() == bought
    assert pages.value[bought].tolist() == [20.0 + p for p in range(0, 20, 2)]
    assert pages.item[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert pages.row[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert pages.col[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert pages.viewed[:6].tolist() == [1, 1, 1, 0, 0, 0]
    assert np.isnan(pages.propensity[:6]).all()
    assert (pages.propensity[6:18] == 0.25).all()
    assert pages.policy[:3].tolist() == ["classic", "explore", "explore"]
    users = log.interactions.user_ids
    assert users[pages.user].tolist() == [f"u{p % 4}" for p in range(20)]


def test_engagements_stand_in_baskets_of_one_page(tmp_path: Path):
    log = checked(tmp_path, page_rows(), page_events()).log.interactions
    assert len(log) == 20 + 2 * 10 + 1  # page views are no engagement
    mine = log.user == log.user_ids.tolist().index("u0")
    assert log.basket[mine].tolist() == [b for b in range(5) for _ in range(3)]  # pages 0, 4, 8, 12, 16
    assert log.event[mine][:3].tolist() == [Event.SELECT_ITEM, Event.ADD_TO_CART, Event.PURCHASE]


def test_a_basket_never_mixes_pages_and_a_page_knows_only_what_came_before(tmp_path: Path):
    """A click on the first page after the second was shown: two baskets of it, and the second page's moment knows neither."""
    pages = [dict(page, user_id="u", ts=T0 + 100 * n) for n, page in enumerate(page_rows(2))]
    click = {"event": "select_item", "user_id": "u"}
    events: Rows = [
        {**click, "timestamp": T0 + 50, "page_id": "p0", "item_id": "SKU/0"},
        {**click, "timestamp": T0 + 150, "page_id": "p1", "item_id": "SKU/1"},
        {**click, "timestamp": T0 + 160, "page_id": "p0", "item_id": "SKU/2"},
        {**click, "timestamp": T0 + 170, "item_id": "SKU/11"},
        {**click, "timestamp": T0 + 180, "page_id": "p1", "item_id": "SKU/3"},
    ]
    log = checked(tmp_path, pages, events).log
    assert log.interactions.item.tolist() == [0, 1, 2, 11, 3]
    assert log.interactions.basket.tolist() == [0, 1, 2, 3, 4]
    assert log.impressions is not None
    assert (log.impressions.settled - T0).tolist() == [160, 180], "the click without a page belongs to none"
    contexts = contexts_at(log.interactions, log.impressions.user, log.impressions.time)
    assert [contexts.history(c).tolist() for c in range(2)] == [[], [0]]


def test_refunds_and_slot_views_reach_the_slot(tmp_path: Path):
    more: Rows = [
        {"event": "refund", "timestamp": T0 + 9000, "page_id": "p0", "item_id": "SKU/1", "value": 5.0, "currency": "EUR"},
        {"event": "slot_view", "timestamp": T0 + 3, "page_id": "p0", "slot_id": "r1c0"},
        {"event": "dismiss", "timestamp": T0 + 3, "page_id": "p0", "item_id": "SKU/5"},
    ]
    log = checked(tmp_path, page_rows(), [*page_events(), *more]).log
    assert log.impressions is not None
    assert log.impressions.value[1] == 15.0
    assert log.impressions.viewed[:6].tolist() == [1, 1, 1, 1, 0, 0]
    assert len(log.interactions) == 41


@pytest.mark.parametrize("form", ["ndjson", "csv", "parquet"])
def test_copies_of_events_count_once(form, tmp_path: Path):
    events = page_events()
    other = {**events[1], "timestamp": T0 + 6}
    again = {**next(e for e in events if e["event_id"] == "b0"), "event_id": "new"}
    result = checked(tmp_path, long_rows(page_rows()), [*events, events[1], events[3], other, again], form)
    assert reasons(result, "events") == {"repeated_event": 2, "duplicate_event": 1, "repeated_order_line": 1}
    assert len(result.log.interactions) == 41
    file = next(f for f in result.files if f.file.startswith("events"))
    assert file.rows == file.accepted + file.quarantined == len(events) + 4


def spoil_slot(**change: object) -> Callable[[Rows], None]:
    def spoil(pages: Rows) -> None:
        pages[3]["slots"][4].update(change)  # type: ignore[index]

    return spoil


PAGE_FAULTS = {
    "unknown_item": spoil_slot(item_id="SKU/99"),
    "propensity_out_of_range": spoil_slot(propensity=1.5),
    "position_below_base": spoil_slot(col=-1),
    "bad_position": spoil_slot(row=0.5),
    "two_items_in_one_slot": spoil_slot(col=0),
    "bad_viewed": spoil_slot(viewed="perhaps"),
    "missing_item_id": spoil_slot(item_id=None),
}


@pytest.mark.parametrize("reason", PAGE_FAULTS)
@pytest.mark.parametrize("long", [False, True])
def test_a_page_is_accepted_whole_or_not_at_all(reason, long, tmp_path: Path):
    pages = page_rows()
    PAGE_FAULTS[reason](pages)
    store = tmp_path / "bad.ndjson"
    result = checked(tmp_path / "data", long_rows(pages) if long else pages, page_events(), quarantine=store)
    assert result.log.impressions is not None
    assert "p3" not in result.log.impressions.page_ids
    assert len(result.log.impressions) == 19
    told = reasons(result, "impressions")
    if reason == "two_items_in_one_slot":
        assert told == ({reason: 6} if long else {reason: 1})
    else:
        assert told == ({reason: 1, "page_incomplete": 5} if long else {reason: 1})
    assert "unknown_page" in codes(result)
    assert len(store.read_text().splitlines()) == sum(f.quarantined for f in result.files)


def test_rules_over_rows_of_a_page(tmp_path: Path):
    rows = long_rows(page_rows())
    rows[8] = {**rows[8], "user_id": "someone else"}
    assert reasons(checked(tmp_path / "a", rows, page_events()), "impressions") == {"page_rows_disagree": 6}
    pages = page_rows()
    assert reasons(checked(tmp_path / "b", [*pages, pages[2]], page_events()), "impressions") == {"duplicate_page": 1}
    pages[2] = {**pages[2], "slots": []}
    assert reasons(checked(tmp_path / "c", pages, page_events()), "impressions") == {"page_without_slots": 1}


def test_events_that_cannot_be(tmp_path: Path):
    click = {"event": "select_item", "user_id": "u1", "timestamp": T0 + 4000}
    events: Rows = [
        *page_events(),
        {**click, "page_id": "p1", "item_id": "SKU/2", "timestamp": T0},
        {**click, "page_id": "p1", "slot_id": "r9c9"},
        {**click, "page_id": "p1", "item_id": "nothing"},
        {**click},
        {**click, "item_id": "SKU/1", "event": "jump"},
        {**click, "item_id": "SKU/1", "user_id": None},
    ]
    found = reasons(checked(tmp_path, page_rows(), events), "events")
    expected = ("event_before_page", "unknown_slot", "unknown_item", "missing_item_id", "unknown_event", "missing_user_id")
    assert found == dict.fromkeys(expected, 1)


def test_the_base_of_positions(tmp_path: Path):
    pages, events = page_rows(base=1), page_events()
    for event in events:
        if "slot_id" in event:
            event["slot_id"] = "r1c2"
    wrong = checked(tmp_path / "a", pages, events)
    suspicion = next(f for f in wrong.findings if f.code == "position_base")
    assert "--position-base 1" in suspicion.change
    right = checked(tmp_path / "a", pages, events, position_base=1)
    assert "position_base" not in codes(right)
    assert right.log.fingerprint == checked(tmp_path / "b", page_rows(), page_events()).log.fingerprint
    write(tmp_path / "c", "ndjson", items=ITEMS, impressions=page_rows(), events=page_events())
    with pytest.raises(DataError, match="--position-base"):
        read_log(tmp_path / "c", position_base=1)


def test_warnings_about_pages(tmp_path: Path):
    pages = [{**p, "policy_id": None, "slots": [{**s, "propensity": 1.0} for s in p["slots"]]} for p in page_rows()]  # type: ignore[attr-defined]
    pages[0]["slots"][1]["item_id"] = "SKU/0"
    found = codes(checked(tmp_path / "a", pages, page_events()))
    assert {"no_exploration", "item_twice_on_page", "feedback_without_page", "item_not_on_page"} <= found
    assert "propensity_missing" in codes(checked(tmp_path / "b", page_rows(), page_events()))
    euros = [{**e, "currency": "USD"} if e.get("event_id") == "b2" else e for e in page_events()]
    result = checked(tmp_path / "c", page_rows(), euros)
    assert "several_currencies" in {f.code for f in result.errors}


def test_pages_without_feedback_are_an_error_that_names_the_line(tmp_path: Path):
    views = [e for e in page_events() if e["event"] == "page_view"]
    write(tmp_path, "ndjson", items=ITEMS, impressions=page_rows(), events=views)
    with pytest.raises(DataError, match=r"no_positive_feedback.*select_item"):
        read_log(tmp_path)
