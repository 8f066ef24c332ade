"""The page of an ablation: claims in words, the frontier of accuracy against repetition, every arm. Takes plain values, returns HTML.

Reads no file, computes no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from pagellm.reporting.figures import Points, line_chart
from pagellm.reporting.render import render


@dataclass(frozen=True)
class Frontier:
    """Accuracy against repetition or variety of several methods, each over its dial."""

    title: str
    reading: str  # one sentence
    series: Mapping[str, Points]  # (repetition or variety, accuracy)
    across: str  # name of the figure on the x axis
    accuracy: str

    @property
    def drawing(self) -> Markup:
        """As SVG."""
        return line_chart(self.series, self.across, self.accuracy, (520, 320))


@dataclass(frozen=True)
class AblationPage:
    """Everything that the page shows."""

    title: str
    claims: Sequence[Mapping[str, Any]]  # as `Finding.as_json`
    frontiers: Sequence[Frontier]
    arms: Sequence[Mapping[str, Any]]  # pooled rows of the long table
    facts: Mapping[str, object] = field(default_factory=dict)  # command, versions, fingerprints


def ablation_html(page: AblationPage) -> str:
    """The whole document."""
    return render("ablation.html", page_of=page, title=page.title)
