"""The stand that arms are tested on: one run, the policies that arms start from or are put on, and the users that they are judged by.

Every arm ranks the same candidates of the same contexts: the favorites of a supervised policy. Its page comes first, then the rest in its
own order before anything stands on the page. Figures are those of `pagellm evaluate`, one context a user. Where the shop is simulated, its
truth is a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pagellm.data.content import content_vectors, title_vectors
from pagellm.data.likeness import Likeness
from pagellm.evaluation.methods import CONTENT_DIMS
from pagellm.evaluation.metrics import accuracy
from pagellm.evaluation.page_metrics import PLACES, ItemFacts, item_facts, page_measures
from pagellm.layout.compiled import compile_layout
from pagellm.models.device import tensor_for
from pagellm.models.multi_grained import MultiGrainedReward
from pagellm.models.page_scorer import context_logits
from pagellm.models.policy import PolicyNet
from pagellm.models.pools import read_contexts
from pagellm.models.reward_files import RewardFacts, load_rewards
from pagellm.models.run import Run, run_layout
from pagellm.simulation.disk import load_world
from pagellm.simulation.world import World
from pagellm.training.pair_sources import known_since
from pagellm.training.rollouts import Asked, Desk, ask, likeliest_pages
from pagellm.training.run_ppo import asked_contexts, windows
from pagellm.types import F32, F64, I32, NO_ITEM, Bool, Contexts, PageBatch

PARTS = ("choices", "test")
"""Users of the window of choices, on whom settings are chosen; users after it, who are looked at once."""

CUTS = (10, 100)
_CHUNK = 256  # contexts whose logits are read at once


@dataclass(frozen=True)
class Judged:
    """The users of one part, with the candidates that pages are written from."""

    asked: Asked
    h: Float[Tensor, "context dim"]  # the contexts' vectors, of the policy whose favorites the candidates are
    logits: F32  # [context, candidate] of the same, -inf for padding
    candidates: Bool  # [item]
    facts: ItemFacts
    truth: Callable[[PageBatch], dict[str, F64]] | None  # of a simulated shop: figures [page]

    def figures(self, pages: PageBatch, logits: F32 | None = None) -> dict[str, F64]:
        """Every figure, [context] each. `logits` order what is not on the page, where they are not those of the base."""
        ranked = _page_first(pages.items, self.asked.pool, self.logits if logits is None else logits)
        found = accuracy(ranked, self.asked.contexts, CUTS) | page_measures(ranked, self.facts, self.candidates)
        return found | (self.truth(pages) if self.truth else {})


Base = dict[str, Judged]
"""The users of each part, judged with the favorites of one supervised policy: what arms learn from, or what they are put on in the end."""


@dataclass(frozen=True)
class Stand:
    """What the arms of one run share."""

    run: Run
    rewards: MultiGrainedReward
    facts: RewardFacts
    desk: Desk
    likeness: Likeness
    asked: Asked  # contexts that pages are learned from
    world: World | None

    @classmethod
    def of(cls, run: Run, data: Path) -> Stand:
        """Of a run with rewards; `data` is the folder that it was made from."""
        rewards, facts = load_rewards(run)
        layout = run_layout(run, run.config.pairs.slots)
        desk = Desk(compile_layout(layout, run.catalog, windows(run)[0][1]), run.config.model.max_history)
        since = known_since(run.split.log, run.impressions, run.catalog)
        asked = ask(run, asked_contexts(run)[0], since, desk.rules, run.config.ppo.candidates)
        world = load_world(data) if (data / "truth").is_dir() else None
        return cls(run, rewards, facts, desk, run.likeness, asked, world)

    def base(self, net: PolicyNet) -> Base:
        """A policy with the users that it is judged by. One context a user: warm, with a next basket."""
        split, base = self.run.split, {}
        for part, contexts, candidates, known in (
            ("choices", split.valid, split.candidates_valid, split.fit_until_valid),
            ("test", split.test, split.candidates_test, split.fit_until_test),
        ):
            contexts = contexts.take(contexts.warm & (contexts.target_stop > contexts.stop))
            facts = item_facts(self.run.catalog, *self._vectors, split.log, known)
            asked = ask(replace(self.run, net=net), contexts, None, self.desk.rules, CUTS[-1], candidates)
            h = read_contexts(net, contexts, self.desk.max_history)
            base[part] = Judged(asked, h, self._logits(net, asked, h), candidates, facts, self._truth(contexts))
        return base

    def figures(self, base: Base, net: PolicyNet, learned: str) -> dict[str, F64]:
        """Figures of the likeliest pages of a policy that is put on a base: PART/FIGURE -> [context].

        `learned` is the part in which it differs from the base's policy, as `ppo.learn` names parts, "nothing" for none: what it shares
        with the base is not read again.
        """
        pages, logits = {}, {}
        for part, judged in base.items():
            h = judged.h if learned != "all" else read_contexts(net, judged.asked.contexts, self.desk.max_history)
            pages[part] = likeliest_pages(net, judged.asked, self.desk, h)
            logits[part] = judged.logits if learned in ("nothing", "repetition") else self._logits(net, judged.asked, h)
        return of_pages(base, pages, logits)

    @cached_property
    def _vectors(self) -> tuple[F32, F32]:
        """What pages are measured by: the items' content and title vectors."""
        return content_vectors(self.run.catalog, CONTENT_DIMS), title_vectors(self.run.catalog)

    def _logits(self, net: PolicyNet, asked: Asked, h: Tensor) -> F32:
        pool, chunks = asked.pool.astype(np.int64), np.split(np.arange(len(asked)), range(_CHUNK, len(asked), _CHUNK))
        with torch.no_grad():
            parts = [
                context_logits(net, h[some], *(tensor_for(net, a[some]) for a in (pool, asked.evidence))).cpu() for some in chunks
            ]
        return torch.cat(parts).numpy()

    def _truth(self, contexts: Contexts) -> Callable[[PageBatch], dict[str, F64]] | None:
        if self.world is None:
            return None
        world, ids = self.world, self.run.split.log.user_ids
        user = np.array([int(str(ids[u])[1:]) for u in contexts.user], np.int32)

        def found(pages: PageBatch) -> dict[str, F64]:
            worth = world.expected(pages.items, user[pages.place], contexts.time[pages.place])
            return {"true_clicks": worth.clicks, "true_gmv": worth.gmv}

        return found


def of_pages(base: Base, pages: Mapping[str, PageBatch], logits: Mapping[str, F32] | None = None) -> dict[str, F64]:
    """Figures of one page a context: PART/FIGURE -> [context]. `logits` as in `Judged.figures`."""
    return {
        f"{part}/{name}": values
        for part, judged in base.items()
        for name, values in judged.figures(pages[part], logits[part] if logits else None).items()
    }


def single_row(asked: Asked, items: I32) -> PageBatch:
    """Pages [context, slot] in one row, one a context."""
    col = np.tile(np.arange(items.shape[1], dtype=np.int16), (len(items), 1))
    return PageBatch(asked.contexts, np.arange(len(items)), items, np.zeros_like(col), col)


def _page_first(page: I32, pool: I32, logits: F32) -> I32:
    """[context, rank] the page, then the candidates that are not on it, best first."""
    order = np.argsort(-logits, axis=1, kind="stable")
    rest = np.take_along_axis(np.where(np.isneginf(logits), NO_ITEM, pool), order, 1)
    on_page = (rest[:, :, None] == page[:, None, :]).any(2)
    rest = np.where(on_page, NO_ITEM, rest)
    every = np.concatenate([page, rest], 1)
    packed = np.argsort(every == NO_ITEM, axis=1, kind="stable")
    return np.ascontiguousarray(np.take_along_axis(every, packed, 1)[:, : max(CUTS[-1], PLACES)])
