"""One shop's data after the border checks. Every reader returns it, every stage takes it; knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pagellm.catalog import Catalog
from pagellm.types import Impressions, Interactions


@dataclass(frozen=True)
class Log:
    """A catalog with the feedback on it, all ids resolved to indexes."""

    name: str  # of the data, for tables and reports
    catalog: Catalog
    interactions: Interactions  # of a page log: the engagements behind its impressions
    impressions: Impressions | None  # None for review-type logs
    users: pl.DataFrame | None  # user_id and any columns of the users file
    fingerprint: str  # SHA-256 over the accepted records: equal data, equal fingerprint, whatever the file format
    release: str | None = None  # of a public data set, for instance "Amazon Reviews 2018 (5-core)"
    layout: Path | None = None  # the layout.toml beside the data
