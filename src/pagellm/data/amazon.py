"""Amazon Reviews 2023 and 2018 as plain files: finds them in a folder and reads them as a review-type log.

2023 (McAuley Lab): `X.jsonl.gz` with `meta_X.jsonl.gz`; items are parent_asin. 2018 (Ni et al.): `X_5.json.gz` (5-core) or
`X.json.gz` with `meta_X.json.gz`; items are asin. The catalog keeps the items that were reviewed. Fetches nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pagellm.catalog import Catalog
from pagellm.data.ids import Ids
from pagellm.data.interactions import read_interactions
from pagellm.data.items import read_catalog
from pagellm.data.lines import line_blocks
from pagellm.data.quarantine import Quarantine
from pagellm.errors import DataError
from pagellm.types import Interactions

_ENDS = (".jsonl.gz", ".jsonl", ".json.gz", ".json")
_REVIEWS = {
    2018: {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
    2023: {"user_id": "user_id", "item_id": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
}
_META = {
    2018: {
        "item_id": "asin",
        "title": "title",
        "brand": "brand",
        "categories": "category",
        "main_category": "main_cat",
        "price": "price",
        "description": "description",
    },
    2023: {
        "item_id": "parent_asin",
        "title": "title",
        "brand": "store",
        "categories": "categories",
        "main_category": "main_category",
        "price": "price",
        "description": "description",
    },
}


@dataclass(frozen=True)
class Release:
    """The files of one category of one release."""

    year: int
    core: bool  # whether the 5-core file is read
    category: str
    reviews: Path
    meta: Path

    @property
    def name(self) -> str:
        """As it is named in all output."""
        return f"Amazon Reviews {self.year}{' (5-core)' if self.core else ''}, {self.category.replace('_', ' ')}"


def detect(folder: Path) -> Release | None:
    """The release in the folder, or None if it holds no `meta_*` file. Raises DataError where it is not one category."""
    metas = {_stem(p): p for p in sorted(folder.glob("meta_*")) if p.is_file() and _stem(p)}
    if not metas or any(folder.glob("items.*")):
        return None
    if len(metas) > 1:
        raise DataError(
            f"{folder.name} holds {len(metas)} Amazon categories ({', '.join(m.removeprefix('meta_') for m in metas)}). "
            "Put the two files of each category into a folder of its own."
        )
    stem, meta = next(iter(metas.items()))
    category = stem.removeprefix("meta_")
    for name in (f"{category}_5", category):
        reviews = next((p for p in (folder / f"{name}{end}" for end in _ENDS) if p.is_file()), None)
        if reviews is not None:
            return Release(_year(reviews), name.endswith("_5"), category, reviews, meta)
    raise DataError(
        f"{folder.name} holds {meta.name} but no reviews of {category}: put {category}_5.json.gz (2018) or "
        f"{category}.jsonl.gz (2023) beside it."
    )


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(end) for end in _ENDS if path.name.endswith(end)), "")


def _year(reviews: Path) -> int:
    """2018 or 2023, by the fields of the first review that can be read."""
    for _, lines, _ in line_blocks(reviews):
        for line in lines:
            try:
                first = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(first, dict) and {"reviewerID", "asin"} <= first.keys():
                return 2018
            if isinstance(first, dict) and {"user_id", "parent_asin"} <= first.keys():
                return 2023
    raise DataError(
        f"{reviews.name} holds no review of a known release: 2018 has reviewerID and asin, 2023 has user_id and parent_asin. "
        "Use the plain files of one of these releases."
    )


def read(release: Release, quarantine: Quarantine) -> tuple[Catalog, Interactions, Counter[str], str]:
    """(catalog of the reviewed items, reviews, damaged optional fields, name of the data)."""
    whole, damaged = read_catalog(release.meta, quarantine, _META[release.year])
    if len(whole) == 0:
        raise DataError(
            f"{release.meta.name} holds no item that can be read. The metadata of 2018 and 2023 are JSON lines; "
            "those of 2014 are Python literals and cannot be read."
        )
    items = Ids([str(i) for i in whole.item_ids])
    reviews, _ = read_interactions(release.reviews, items, quarantine, _REVIEWS[release.year])
    catalog, kept = _reviewed(whole, reviews)
    return catalog, kept, damaged, release.category


def _reviewed(whole: Catalog, reviews: Interactions) -> tuple[Catalog, Interactions]:
    """The items that have a review, with their indexes closed up; their order stays."""
    used = np.unique(reviews.item)
    place = np.full(len(whole), -1, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    frame = whole.frame[used.astype(np.int64)]
    frame = frame.select([c for c in frame.columns if c in ("item_id", "title") or frame[c].null_count() < frame.height])
    moved = Interactions(
        reviews.user,
        place[reviews.item],
        *(reviews.time, reviews.basket, reviews.event, reviews.rating, reviews.value, reviews.user_ids),
    )
    return Catalog(frame), moved
