"""Item text to vectors: TF-IDF and a truncated SVD, no download. Knows no log and no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from pagellm.catalog import Catalog, clean_text
from pagellm.types import F32, I32, NO_ITEM

_CHUNK = 512  # items whose likeness to the whole catalog is held at once

DESCRIPTION_CHARS = 400
"""A description's first sentences name the product; what follows is mostly marketing common to the whole shop."""


def item_texts(catalog: Catalog, fields: Sequence[str] = ("title", "brand", "categories")) -> list[str]:
    """[item] the named columns joined to one plain text; columns that the catalog lacks are left out."""
    parts = [_column_texts(catalog, name) for name in fields if name == "title" or catalog.has(name)]
    return [" ".join(p for p in texts if p) for texts in zip(*parts, strict=True)]


def content_vectors(
    catalog: Catalog, dims: int = 128, fields: Sequence[str] = ("title", "brand", "categories"), seed: int = 0
) -> F32:
    """Vectors of unit length from item text, all-zero where the text is empty. Shape [item, dim], dim at most `dims`.

    Sublinear TF-IDF over words and word pairs, then latent semantic analysis (Deerwester et al. 1990).
    """
    weights = _tfidf(item_texts(catalog, fields))
    if weights.shape[1] <= dims or weights.shape[0] <= dims:  # too small to factorize: the weights themselves are the vectors
        return _unit(_pad(weights.toarray(), dims))
    from sklearn.decomposition import TruncatedSVD

    return _unit(TruncatedSVD(dims, n_iter=4, random_state=seed).fit_transform(weights))


def title_vectors(catalog: Catalog, dims: int = 128) -> F32:
    """Vectors of unit length from titles alone: what near-duplicates are measured with. Shape [item, dim]."""
    return content_vectors(catalog, dims, fields=("title",))


def near_duplicates(vectors: F32, items: I32, groups: I32 | None, threshold: float, most: int) -> I32:
    """For each of these items those of its group, then others with a cosine above the threshold, each nearest first.

    Shape [catalog item, most], NO_ITEM at the end and for all other items. `groups` [catalog item] codes, -1 for none.
    """
    return _nearest(vectors, items, groups, (threshold, np.inf), most)


def lookalikes(vectors: F32, items: I32, groups: I32 | None, threshold: float, most: int) -> I32:
    """For each of these items those most like it that are no near-duplicates: of another group, with a positive cosine up to the threshold.

    Nearest first; shape and padding as in `near_duplicates`.
    """
    return _nearest(vectors, items, groups, (0.0, threshold), most)


def _nearest(vectors: F32, items: I32, groups: I32 | None, within: tuple[float, float], most: int) -> I32:
    """The nearest items with low < cosine <= high; a common group adds 2 to the cosine."""
    low, high = within
    out = np.full((len(vectors), most), NO_ITEM, np.int32)
    for begin in range(0, len(items), _CHUNK):
        some = items[begin : begin + _CHUNK]
        likeness = vectors[some] @ vectors.T
        if groups is not None:
            likeness[(groups[some][:, None] == groups) & (groups[some] >= 0)[:, None]] += 2.0  # kin come first
        likeness[np.arange(len(some)), some] = -np.inf
        likeness[likeness > high] = -np.inf
        k = min(most, likeness.shape[1])
        best = np.argpartition(-likeness, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(likeness, best, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        best, values = np.take_along_axis(best, order, 1), np.take_along_axis(values, order, 1)
        out[some, :k] = np.where(values > low, best, NO_ITEM)
    return out


def _column_texts(catalog: Catalog, name: str) -> list[str]:
    if name == "title":
        return catalog.titles
    column = catalog.frame[name]
    values = [" ".join(v) if v else "" for v in column.to_list()] if column.dtype.is_nested() else column.to_list()
    return [clean_text(None if v is None else str(v), DESCRIPTION_CHARS) for v in values]


def _tfidf(texts: list[str]) -> sparse.csr_matrix:
    from sklearn.feature_extraction.text import TfidfVectorizer

    seldom = 2 if len(texts) > 50 else 1  # a word of one item alone cannot relate two items
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), min_df=seldom, max_features=100_000, dtype=np.float32, token_pattern=r"(?u)\b\w+\b"
    )
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # no words at all
        return sparse.csr_matrix((len(texts), 1), dtype=np.float32)


def _pad(matrix: F32, dims: int) -> F32:
    if matrix.shape[1] >= dims:
        return matrix
    return np.pad(matrix, ((0, 0), (0, dims - matrix.shape[1])))


def _unit(matrix: F32) -> F32:
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return (matrix / np.where(length > 0, length, 1)).astype(np.float32)
