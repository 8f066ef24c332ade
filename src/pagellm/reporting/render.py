"""The one place where templates become HTML. Takes a template's name and values, returns a document; escapes every value.

Knows no page and no metric. Values are escaped unless they are `Markup`, which only `figures` makes.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from pagellm.reporting.picture import picture
from pagellm.reporting.view import PageView
from pagellm.reporting.words import chance_text, cut


def render(template: str, **values: object) -> str:
    """One self-contained document: style and pictures inside, no script, nothing fetched."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pagellm.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"picture": picture, "chance": chance_text, "because": because_text, "cut": cut}
    return environment


def because_text(view: PageView) -> str:
    """The heading of the history strip: the customer's own action where all shown events are of one kind."""
    verbs = {past.verb for past in view.history}
    return f"Because you {verbs.pop()}" if len(verbs) == 1 else "Because of what you did lately"
