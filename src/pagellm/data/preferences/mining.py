"""Mining: all families of pairs of a log's situations, a chunk at a time, with caps and counts of what happened.

Takes a source of situations, gives pairs and a report. Knows no policy: its candidates and logits come in with the situations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pagellm.config import PairConfig
from pagellm.data.likeness import Likeness, Twins
from pagellm.data.lots import id_keys
from pagellm.data.preferences.families import diversity, ranking, redundancy, relevance, swaps
from pagellm.data.preferences.pairs import Family, Operator, Pairs, capped, effective_size, join_pairs, lots_of
from pagellm.data.preferences.situations import Engaged, Situations, keys_of
from pagellm.types import I64, U64


@dataclass
class MiningReport:
    """What was mined, for people and for the report page."""

    situations: int = 0  # pages looked at
    engaged: int = 0  # of them with an engaged slot: the others bring no pair
    found: int = 0  # pairs before caps
    over_cap: int = 0  # pairs that one user or item had too many of
    families: dict[str, int] = field(default_factory=dict)  # pairs kept
    operators: dict[str, int] = field(default_factory=dict)
    effective: dict[str, float] = field(default_factory=dict)  # effective sample size of the kept pairs' weights
    examination: str = ""  # where the weights come from, in words

    def count(self, kept: Pairs) -> None:
        """Tells of all pairs that were kept."""
        for family in Family:
            some = kept.of(family)
            self.families[family.name.lower()] = len(some)
            self.effective[family.name.lower()] = effective_size(some.weight)
        self.operators = {o.name.lower(): int((kept.operator == o).sum()) for o in Operator}


@dataclass(frozen=True)
class Recipe:
    """What pairs of any situations of a log are made with."""

    engaged: Engaged  # in all of the window: where items of other users come from
    likeness: Likeness
    twins: Twins  # that may be shown
    config: PairConfig
    seed: int
    repeats: bool = False  # whether users take things again
    since: I64 | None = None  # [item] unix seconds from when on each was known; from the start where None


def mine(situations: Iterable[Situations], recipe: Recipe, examination: str = "") -> tuple[Pairs, MiningReport]:
    """Pairs of all families.

    Equal situations and seed give equal pairs, however they are cut; all are of one log. Which of them the caps leave depends
    on all that was found.
    """
    report, config = MiningReport(examination=examination), recipe.config
    found, who = find_pairs(situations, recipe, report)
    kept = found.take(np.flatnonzero(capped(found, config.per_user, config.per_item, lots_of(found, who, recipe.seed))))
    report.found, report.over_cap = len(found), len(found) - len(kept)
    report.count(kept)
    return kept, report


def find_pairs(situations: Iterable[Situations], recipe: Recipe, report: MiningReport) -> tuple[Pairs, U64]:
    """(all pairs before caps, keys [user] of the ids of the log's users). The report counts the situations."""
    parts: list[Pairs] = []
    who: U64 = np.empty(0, np.uint64)
    for chunk in situations:
        report.situations += len(chunk)
        useful = chunk.take(np.flatnonzero((chunk.gain > 0).any(1)))
        report.engaged += len(useful)
        if len(useful):
            who = who if parts else id_keys(useful.contexts.log.user_ids)
            parts.append(mine_chunk(useful, recipe))
    return join_pairs(parts), who


def mine_chunk(s: Situations, recipe: Recipe) -> Pairs:
    """All pairs of these situations, before caps."""
    key, likeness, config = keys_of(s, recipe.seed), recipe.likeness, recipe.config
    families = (
        relevance(s, key, recipe.engaged),
        ranking(s, key),
        diversity(s, key, likeness.vectors, likeness.titles, likeness.groups, config.alike),
        redundancy(s, key, likeness, recipe.twins, recipe.repeats, recipe.since),
        swaps(s, key, config.swaps),
    )
    return join_pairs([part for part in families if len(part)])
