"""A preference pair for the terminal: two pages beside each other and the feedback behind them. Text is plain: no markup is read."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from pagellm.catalog import Catalog, clean_text
from pagellm.data.preferences.pairs import Family, Operator, Pairs
from pagellm.types import NO_ITEM, Event

DEFECTS = {
    Operator.POLICY: "what was engaged with gave way to what the policy would show",
    Operator.MATCHED: "what was engaged with gave way to what the policy finds about as good",
    Operator.CHANNEL: "what was engaged with gave way to any candidate",
    Operator.FOREIGN: "what was engaged with gave way to what another user engaged with",
    Operator.DOWN: "what was engaged with stands in worse places",
    Operator.THEME: "the other slots are all of one theme",
    Operator.NEAR_DUPLICATE: "slots are filled with near-duplicates of others",
    Operator.REPEAT: "slots repeat the item of another slot",
    Operator.CONSUMED: "slots hold what the user already has",
    Operator.EXCHANGE: "two slots exchanged their items",
    Operator.ALIKE: "slots are filled with near-duplicates of others instead of what is merely alike",
}
"""What is wrong with a rejected page, in words."""


def pair_table(pairs: Pairs, place: int, catalog: Catalog, user_ids: np.ndarray) -> Table:
    """One pair. `★` marks the item that the feedback is on, `≠` slots that differ."""
    family, operator = Family(pairs.family[place]), Operator(pairs.operator[place])
    moment = datetime.fromtimestamp(int(pairs.time[place]), UTC).strftime("%Y-%m-%d %H:%M")
    head = (
        f"{family.name.lower()} · {DEFECTS[operator]} · severity {pairs.severity[place]:.2f} · weight {pairs.weight[place]:.2f}\n"
        f"{Event(pairs.event[place]).name.lower().replace('_', ' ')} of “{catalog.titles[pairs.item[place]][:60]}” "
        f"(gain {pairs.gain[place]:g}) by user {clean_text(str(user_ids[pairs.user[place]]), 40)}, page of {moment}"
    )
    table = Table(title=Text(head), title_justify="left", box=box.SIMPLE, expand=True)
    table.add_column("slot", no_wrap=True)
    for name in ("chosen", "rejected"):
        table.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
    for slot in np.flatnonzero(pairs.chosen[place] != NO_ITEM):
        one, other = int(pairs.chosen[place, slot]), int(pairs.rejected[place, slot])
        cells = [_cell(item, item == pairs.item[place], one != other, catalog) for item in (one, other)]
        table.add_row(Text(f"r{pairs.row[place, slot]}c{pairs.col[place, slot]}"), *cells)
    return table


def _cell(item: int, engaged: bool, differs: bool, catalog: Catalog) -> Text:
    mark = "★ " if engaged else "  "
    return Text(("≠ " if differs else "  ") + mark + catalog.titles[item], "bold" if engaged else "")
