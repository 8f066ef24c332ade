"""Whether pages keep their layout, and whether they depend on what they should not. Takes pages, gives one value a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pagellm.layout.validator import Validator
from pagellm.types import F64, I32, Context, Page


def violations(pages: Sequence[Page], asked: Sequence[Context], pools: I32, validator: Validator) -> tuple[F64, dict[str, int]]:
    """([page] number of breaches, rule -> breaches on all pages), by the validator that shares no code with the masks.

    A breach is one rule at one slot, or one rule at the page as a whole. `pools` [page, candidate] are what pages were written from: an
    empty slot is a breach where one of them may stand. Of served pages every value must be 0.
    """
    found = [validator.check(page, who, pool.tolist()) for page, who, pool in zip(pages, asked, pools, strict=True)]
    rules = Counter(breach.rule for page in found for breach in page)
    return np.array([len(page) for page in found], np.float64), dict(rules.most_common())


def order_sensitivity(pages: Sequence[Page], reordered: Sequence[Page]) -> F64:
    """[page] share of slots that hold another item once the same candidates come in another order; 0 where order means nothing.

    Language models that read candidates as text are known to lean on their order (Hou et al. 2024, "Large language models are zero-shot
    rankers for recommender systems"); a policy that scores candidates one by one may not, but for ties and rounding.
    """
    changed = [
        sum(a.item != b.item for a, b in zip(one.slots, two.slots, strict=True)) / max(len(one.slots), 1)
        if one.rows == two.rows
        else 1.0
        for one, two in zip(pages, reordered, strict=True)
    ]
    return np.array(changed, np.float64)
