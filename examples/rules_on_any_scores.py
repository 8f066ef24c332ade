"""A page from scores of your own that keeps every rule of a layout. No model is needed: the masks say which items may follow.

A small grocery wants its own brand first, at most two items of a brand, no two sizes of one thing, and nothing that is sold out.
Run: `python examples/rules_on_any_scores.py`
"""

from __future__ import annotations

import numpy as np
import polars as pl
from rich.console import Console

from pagellm.catalog import Catalog
from pagellm.layout.compiled import compile_layout
from pagellm.layout.masks import PageMasks
from pagellm.layout.reading import parse_layout
from pagellm.layout.validator import validate_page
from pagellm.reporting.terminal import page_grid
from pagellm.reporting.view import page_view
from pagellm.types import NO_ITEM, Context, Page

NOW = 1_700_000_000

LAYOUT = """
id = "grocery"

[[rows]]
id = "top"
title = "For you"
capacity = 3

[[rows]]
id = "drinks"
title = "Drinks"
capacity = 3
source = { filter = "main_category == 'Drinks'" }

[[rules.exclude]]
where = "stock == 0"

[[rules.pin]]
item = "oats-own"
slot = "top.c0"

[[rules.max_per]]
field = "brand"
limit = 2

[[rules.dedup]]
unit = "group_id"
"""

ITEMS = [  # item_id, title, brand, main_category, group_id, stock, score
    ("tea-20", "Green tea, 20 bags", "Leaf", "Drinks", "tea", 9, 0.99),
    ("tea-80", "Green tea, 80 bags", "Leaf", "Drinks", "tea", 9, 0.97),
    ("mate", "Mate, loose", "Leaf", "Drinks", "mate", 9, 0.95),
    ("chai", "Chai, 20 bags", "Leaf", "Drinks", "chai", 9, 0.90),
    ("bread", "Rye bread", "Crust", "Bakery", "bread", 9, 0.80),
    ("rolls", "Seeded rolls", "Crust", "Bakery", "rolls", 0, 0.79),
    ("juice", "Apple juice", "Orchard", "Drinks", "juice", 9, 0.50),
    ("water", "Sparkling water", "Well", "Drinks", "water", 9, 0.40),
    ("oats-own", "Rolled oats, our own", "House", "Pantry", "oats", 9, 0.10),
]


def write_page(catalog: Catalog, layout_text: str, scores: np.ndarray) -> Page:
    """The page that takes the best allowed item in each slot; `scores` is [item]."""
    rules = compile_layout(parse_layout(layout_text), catalog, NOW)
    masks = PageMasks(rules, np.arange(len(catalog), dtype=np.int32)[None])
    while not masks.done.all():
        allowed = masks.allowed()  # [page, candidate]
        best = np.where(allowed, scores, -np.inf).argmax(axis=1)
        masks.place(np.where(allowed.any(axis=1), best, NO_ITEM))
    return masks.pages()[0]


def main() -> list[str]:
    """Writes the page, proves it with the independent validator, prints it; returns the item ids in reading order."""
    columns = ["item_id", "title", "brand", "main_category", "group_id", "stock", "score"]
    frame = pl.DataFrame(ITEMS, schema=columns, orient="row")
    catalog = Catalog(frame.drop("score"))
    page = write_page(catalog, LAYOUT, frame["score"].to_numpy())
    layout, none = parse_layout(LAYOUT), np.empty(0, np.int64)
    nobody = Context(time=NOW, items=none.astype(np.int32), events=none.astype(np.int8), times=none)
    assert validate_page(page, layout, catalog, nobody, NOW) == []
    titles = {row.id: row.titles[0] for row in layout.rows}
    console = Console(markup=False, highlight=False)
    console.print(page_grid(page_view(page, catalog, row_titles=titles, shop="The grocery"), console.width))
    return [str(catalog.item_ids[item]) for item in page.items]


if __name__ == "__main__":
    main()
