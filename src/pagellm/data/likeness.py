"""How alike the catalog's items are: by text, by title, by group, category and brand. Takes a catalog and vectors; knows no log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagellm.catalog import Catalog
from pagellm.data.content import lookalikes, near_duplicates, title_vectors
from pagellm.data.evidence import field_codes
from pagellm.types import F32, I32, NO_ITEM, Bool

_THEMES = 50  # clusters of a catalog that names no category


@dataclass(frozen=True)
class Twins:
    """What might be taken for each item. Shape [item, any], nearest first, NO_ITEM at the end."""

    near: I32  # its near-duplicates, those of its group before all
    alike: I32  # what is most like it and no near-duplicate


@dataclass(frozen=True)
class Likeness:
    """What pages are compared within. Two items are near-duplicates if of one group, or with a title cosine above `alike`."""

    vectors: F32  # [item, dim] of unit length, from all text
    titles: F32  # [item, dim] of unit length, from titles
    groups: I32  # [item] code of the group of variants, -1 for none
    themes: I32  # [item] code of the category, a cluster of the text where the catalog has none
    brands: I32  # [item] code of the brand, -1 where unknown
    alike: float

    def twins(self, most: int, shown: Bool) -> Twins:
        """Up to `most` twins of each item, among the items that may be shown."""
        every = np.arange(len(self.titles), dtype=np.int32)
        found = (kind(self.titles, every, self.groups, self.alike, most) for kind in (near_duplicates, lookalikes))
        return Twins(*(_packed(np.where((items >= 0) & shown[items], items, NO_ITEM)) for items in found))


def likeness_of(catalog: Catalog, vectors: F32, alike: float) -> Likeness:
    """The likeness of a catalog whose items have these content vectors."""
    groups = catalog.codes("group_id")[0] if catalog.has("group_id") else np.full(len(catalog), -1, np.int32)
    brands = field_codes(catalog, ("brand", "seller_id"))
    return Likeness(vectors, title_vectors(catalog), groups, themes(catalog, vectors), brands, alike)


def theme_column(catalog: Catalog) -> str | None:
    """The column that names the themes, as `Catalog.codes` takes it; None where they are clusters."""
    name = next((name for name in ("main_category", "categories") if catalog.has(name)), None)
    return f"{name}[0]" if name and catalog.frame[name].dtype.is_nested() else name


def themes(catalog: Catalog, content: F32) -> I32:
    """[item] the main category; else the first category; else, in a catalog of titles alone, a cluster of the content vectors."""
    column = theme_column(catalog)
    if column is not None:
        return catalog.codes(column)[0]
    from sklearn.cluster import MiniBatchKMeans

    clusters = min(_THEMES, len(np.unique(content, axis=0)))
    found: I32 = MiniBatchKMeans(clusters, random_state=0, n_init=3).fit_predict(content).astype(np.int32)
    return found


def _packed(items: I32) -> I32:
    """Each row's items in their order, NO_ITEM behind them."""
    return np.take_along_axis(items, np.argsort(items == NO_ITEM, axis=1, kind="stable"), 1)
