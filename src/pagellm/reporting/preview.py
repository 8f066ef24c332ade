"""One page as a self-contained HTML document that looks like a shop. Takes a `PageView`, returns text; fetches nothing."""

from __future__ import annotations

from pagellm.reporting.render import render
from pagellm.reporting.view import PageView


def page_html(view: PageView, beside: PageView | None = None) -> str:
    """The preview document: no script, no external request (its own policy forbids both), all text escaped.

    `beside` is another page for the same context, shown on the left of it: how pages were before something was learned. Items
    that stand on one of them alone are marked.
    """
    pages = [view] if beside is None else [beside, view]
    items = [{card.item_id for row in page.rows for card in row.cards if not card.empty} for page in pages]
    return render("preview.html", view=view, pages=pages, marked=items[0] ^ items[-1])
