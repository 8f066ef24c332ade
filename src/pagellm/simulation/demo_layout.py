"""The layout of the demo shop's home page. Takes a spec, gives the text of a layout file; knows no rule's meaning.

No rule forbids near-duplicates on a page, though people click on them less: that is left for the rewards to learn.
"""

from __future__ import annotations

from pagellm.simulation.spec import WorldSpec

_ROWS = (
    ("picks", '["Picked for you", "Today for you"]'),
    ("more", '["More that you may like", "Take a second look"]'),
    ("discover", '["Something different", "Discover"]'),
    ("browse", '["Keep browsing", "Around the shop"]'),
)

_RULES = """
[rules]
exclude = [{ where = "availability != 'in_stock'" }]
ads = { max_share = 0.15 }
max_per = [
  { field = "brand", limit = 2, window = "row" },
  { field = "categories[1]", limit = 8, window = "page" },
]
"""


def row_ids(spec: WorldSpec) -> list[str]:
    """[row] id of each row of the page."""
    return [_ROWS[r][0] if r < len(_ROWS) else f"row-{r}" for r in range(spec.rows)]


def layout_toml(spec: WorldSpec) -> str:
    """The home page as a layout file."""
    rows = []
    for r, name in enumerate(row_ids(spec)):
        title = _ROWS[r][1] if r < len(_ROWS) else f'"Page on ({r + 1})"'
        rows.append(f'\n[[rows]]\nid = "{name}"\nkind = "carousel"\ncapacity = {spec.cols}\ntitle = {title}\n')
    return 'id = "home"\nversion = 1\n' + "".join(rows) + _RULES
