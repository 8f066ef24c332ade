"""One logging policy judged on single slots that another policy logged, and both read from slot logs. No run, no pages.

What the evaluation policy would put into a slot is read from its own log, whatever the context: its share of rows with the item at the
position. Where a position's propensities never change (a fixed policy), they are taken instead, which is the same without sampling error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pagellm.data.slot_log import SlotLog, read_slot_log
from pagellm.errors import DataError
from pagellm.evaluation.ope.estimators import iips, ips
from pagellm.evaluation.ope.intervals import bootstrap, bootstrap_interval
from pagellm.evaluation.ope.judging import judge
from pagellm.evaluation.ope.records import Logged, Predicted
from pagellm.evaluation.ope.reward_model import fit_reward_model
from pagellm.offpolicy.verdict import OffPolicy
from pagellm.types import F64, I32, I64


def judge_slots(
    log: Path,
    target: Path,
    logged_by: str | None,
    target_by: str | None,
    only: Mapping[str, str],
    seed: int = 0,
    estimate: bool = False,
) -> OffPolicy:
    """What the policy that logged `target` would have earned on the slots of `log`. Raises DataError for logs without the columns.

    With `estimate` unknown propensities are taken to be the share of the log's rows with the item at the position, and the result says so.
    """
    rows, others = read_slot_log(log, logged_by, only), read_slot_log(target, target_by, only)
    ids, codes = np.unique(np.concatenate([rows.item, others.item]), return_inverse=True)
    ours, theirs = codes[: len(rows)].astype(np.int32), codes[len(rows) :].astype(np.int32)
    positions = np.unique(rows.position)
    if not np.isin(others.position, positions).all():
        strange = np.setdiff1d(others.position, positions).tolist()
        raise DataError(f"The target log has positions {strange}, which {rows.name} does not have ({positions.tolist()}).")
    table, fixed = item_chances(others, theirs, np.searchsorted(positions, others.position), (len(positions), len(ids)))
    place = np.searchsorted(positions, rows.position)
    unknown = estimate and bool(np.isnan(rows.propensity).any())
    if unknown:
        shares = _shares(ours, place, table.shape)[place, ours]
        rows = replace(rows, propensity=np.where(np.isnan(rows.propensity), shares, rows.propensity))
    logged = slot_records(rows, ours, place, table)
    facts = {
        "log": rows.name,
        "target": others.name,
        "reward": "clicks a row (ips, snips, dr), clicks a page of all positions (iips, sniips)",
        "positions": positions.tolist(),
        "seed": seed,
    }
    reading = "fixed propensities" if fixed else f"how often each item stands at each position in {len(others):,} rows"
    users = "" if rows.named_users else "; the log names no users, so each row counts as one"
    return OffPolicy(
        facts,
        judge(logged, seed),
        unknown,
        (f"the evaluation policy is read as {reading}{users}",),
        _own(others, positions, seed),
    )


def item_chances(log: SlotLog, item: I32, slot: I64, shape: tuple[int, int]) -> tuple[F64, bool]:
    """(chance of each item at each position, [position, item]; whether these are the log's propensities, which never change).

    A share of rows has the mean of the propensities over the log's time as its expectation, whatever the policy learned meanwhile. A
    mean of the propensities of the rows that show the item has not: an item is shown most while its chance is high. That shares are of a
    sample adds less than 1 % to the variance of an estimate from as many rows.
    """
    low, high = np.full(shape, np.inf), np.zeros(shape)
    np.minimum.at(low, (slot, item), log.propensity)
    np.maximum.at(high, (slot, item), log.propensity)
    seen = high > 0
    if (
        not np.isnan(log.propensity).any()
        and np.allclose(low[seen], high[seen], rtol=1e-9)
        and np.allclose(high.sum(1), 1, rtol=1e-3)
    ):
        return high, True
    return _shares(item, slot, shape), False


def _shares(item: I32, slot: I64, shape: tuple[int, int]) -> F64:
    """[position, item] share of a position's rows with the item."""
    counts = np.zeros(shape)
    np.add.at(counts, (slot, item), 1.0)
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def slot_records(rows: SlotLog, item: I32, slot: I64, table: F64) -> Logged:
    """The rows as pages of one slot each, by position; `table` is [position, item]."""
    shape, at = (len(rows), len(table)), np.arange(len(rows))
    real, items = np.zeros(shape, bool), np.full(shape, -1, np.int32)
    logging, target, rewards = np.ones(shape), np.ones(shape), np.zeros(shape)
    real[at, slot], items[at, slot], logging[at, slot] = True, item, rows.propensity
    target[at, slot], rewards[at, slot] = table[slot, item], rows.clicked
    model = fit_reward_model(rewards, items, real, rows.unit, table.shape[1])
    chosen, expected = np.zeros(shape), np.zeros(shape)
    chosen[at, slot] = model.rate[model.fold, slot] * model.factor[model.fold, item]
    expected[at, slot] = model.rate[model.fold, slot] * np.einsum("ri,ri->r", table[slot], model.factor[model.fold])
    return Logged(
        rewards, logging, target, target, logging, np.ones(shape), real, rows.unit, False, Predicted(chosen, expected, expected)
    )


def _own(log: SlotLog, positions: I64, seed: int) -> dict[str, object]:
    """What the evaluation policy really earned in its own log: a row, and a page of all positions."""
    real = log.position[:, None] == positions
    rewards, ones = real * log.clicked[:, None].astype(np.float64), np.ones(real.shape)
    both = (ips(rewards.sum(1), ones[:, 0]), iips(rewards, ones, real, False))
    draws = bootstrap(both, log.unit, seed=seed)
    ends = [bootstrap_interval(draws[:, column]).as_json() for column in (0, 1)]
    return {
        "rows": len(log),
        "a_row": {"value": both[0].value, "bootstrap95": ends[0]},
        "a_page": {"value": both[1].value, "bootstrap95": ends[1]},
    }
