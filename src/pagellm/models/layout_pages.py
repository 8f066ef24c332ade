"""The language policy as a method whose pages are judged: its likeliest page under a layout for each context of a log.

Takes a loaded run, a layout with its compiled rules, and contexts; gives pages and the candidates that they were written from. Beside them
stand pages as they would be without rules, and pages from the same candidates in another order. Knows no metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pagellm.layout.compiled import CompiledLayout
from pagellm.models.composer import Drawn, LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.policy import PolicyNet
from pagellm.models.run import Run
from pagellm.types import I32, Context, Contexts, Page

_CHUNK = 256  # contexts whose evidence is held at once


@dataclass(frozen=True)
class LayoutPages:
    """A run's policy under compiled rules. `rules.eligible` says what may stand on a page, the candidates of a split for instance."""

    run: Run
    rules: CompiledLayout
    net: PolicyNet | None = None  # the run's last policy where None
    name: str = "pagellm"

    def pages(self, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        """(a page a context, [context, candidate] what it was written from). `asked` are the same contexts as records for rules."""
        return self._write(contexts, asked, None)

    def unruled(self, contexts: Contexts, asked: Sequence[Context]) -> tuple[list[Page], I32]:
        """What the policy writes when no rule is masked: any item of the catalog in any slot, none twice."""
        free = replace(self, rules=self.rules.without_rules())
        return free.pages(contexts, asked)

    def reordered(self, contexts: Contexts, asked: Sequence[Context], seed: int) -> tuple[list[Page], I32]:
        """The pages once more, each context's candidates in a drawn order."""
        return self._write(contexts, asked, np.random.default_rng(seed))

    def _write(self, contexts: Contexts, asked: Sequence[Context], shuffle: np.random.Generator | None) -> tuple[list[Page], I32]:
        policy = LanguagePolicy(self.run, self.rules.layout, Writing(logprobs=False), self.rules.now, self.net, self.rules)
        pages: list[Page] = []
        pools: list[I32] = []
        for begin in range(0, len(contexts), _CHUNK):
            drawn = policy.draw_for(contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts)))))
            drawn = drawn if shuffle is None else _shuffled(drawn, shuffle)
            pages += [group[0] for group in policy.write(drawn, asked[begin : begin + _CHUNK], np.random.default_rng(0))]
            pools.append(drawn.pool)
        return pages, _stacked(pools)


def _shuffled(drawn: Drawn, rng: np.random.Generator) -> Drawn:
    order = np.argsort(rng.random(drawn.pool.shape), axis=1)
    pool = np.take_along_axis(drawn.pool, order, 1)
    return replace(drawn, pool=pool, evidence=np.take_along_axis(drawn.evidence, order[:, :, None], 1))


def _stacked(pools: Sequence[I32]) -> I32:
    """Pools one under the other, the narrower ones padded."""
    width = max((pool.shape[1] for pool in pools), default=0)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=-1) for p in pools])
