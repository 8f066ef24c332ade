"""Which items answer a search text. Takes item texts once, gives matches; knows no user and no model."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from pagellm.catalog import Catalog, clean_text
from pagellm.data.content import item_texts
from pagellm.types import F32, I32, NO_ITEM, Bool

NEAR = 0.5
"""A match counts if it is at least this share of the best match: what answers half as well is another wish."""


class TextIndex:
    """TF-IDF over words and letter triples of the items' text, so that a typing error still finds its item."""

    def __init__(self, catalog: Catalog) -> None:
        """Keeps the catalog; the index is made at the first search."""
        self._catalog = catalog

    def scores(self, query: str) -> F32:
        """Cosine of the query's text with each item's. Shape [item]; zeros for a query without a letter or digit."""
        from sklearn.preprocessing import normalize

        if not self._vectorizers:
            return np.zeros(len(self._catalog), np.float32)
        asked = normalize(sparse.hstack([v.transform([clean_text(query)]) for v in self._vectorizers]).tocsr())
        return np.asarray((self._matrix @ asked.T).todense(), np.float32).ravel()

    def matches(self, query: str, k: int, allowed: Bool) -> I32:
        """At most k allowed items that match at least `NEAR` times as well as the best, best first; NO_ITEM alone if none does."""
        scores = np.where(allowed, self.scores(query), 0)
        best = np.argsort(-scores, kind="stable")[:k]
        good = best[scores[best] >= max(NEAR * float(scores.max(initial=0)), 1e-6)]
        return good.astype(np.int32) if len(good) else np.array([NO_ITEM], np.int32)

    @cached_property
    def _vectorizers(self) -> list[Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not any(character.isalnum() for text in self._texts for character in text):
            return []  # a catalog without words answers no search
        words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
        triples = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True, dtype=np.float32)
        return [words.fit(self._texts), triples.fit(self._texts)]

    @cached_property
    def _texts(self) -> list[str]:
        return [text or "-" for text in item_texts(self._catalog)]

    @cached_property
    def _matrix(self) -> sparse.csr_matrix:
        from sklearn.preprocessing import normalize

        return normalize(sparse.hstack([v.transform(self._texts) for v in self._vectorizers]).tocsr())
