"""The language policy as a `PagePolicy`: from contexts to finished pages under a layout, with exact log-probabilities.

Takes a loaded run and contexts; draws candidates, reads evidence, writes within the masks. Knows no training, no HTTP, no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pagellm.data.candidates import unite
from pagellm.data.contexts import contexts_of
from pagellm.data.evidence import GROUPS
from pagellm.errors import UsageError
from pagellm.layout.compiled import CompiledLayout, compile_layout
from pagellm.layout.masks import PageMasks
from pagellm.layout.spec import Layout
from pagellm.models.choices import EMPTY
from pagellm.models.codec import Prompts, encode
from pagellm.models.decoding import Forced, Writing, Written, write_pages
from pagellm.models.device import tensor_for
from pagellm.models.page_scorer import PageScorer, context_logits
from pagellm.models.policy import PolicyNet
from pagellm.models.pools import policy_pool, pool_logprobs, read_contexts
from pagellm.models.run import Run
from pagellm.types import F32, F64, I32, I64, NO_ITEM, Bool, Context, Contexts, Page

_CHUNK = 512  # contexts whose evidence is held at once


@dataclass(frozen=True)
class Drawn:
    """What a batch of pages is written from."""

    contexts: Contexts
    pool: I32  # [context, candidate] NO_ITEM pads
    evidence: F32  # [context, candidate, feature]
    prompts: Prompts


class LanguagePolicy:
    """A run's policy over the pages of one layout. Satisfies `PagePolicy`; `compose_many` is the fast way for many contexts."""

    def __init__(
        self,
        run: Run,
        layout: Layout | None = None,
        writing: Writing | None = None,
        now: int | None = None,
        net: PolicyNet | None = None,
        rules: CompiledLayout | None = None,
    ) -> None:
        """Compiles the layout against the run's catalog; `now` (unix seconds) decides ages and pins, the end of the log if None.

        `net` is the run's last policy if None. `rules` are those of the layout where they are compiled already, or others to write under.
        """
        self.run = run
        self.net = net or run.policy
        self.layout = layout or Layout.single_row(10)
        self.writing = writing or Writing()
        self._now = int(run.split.log.time.max(initial=0)) + 1 if now is None else now
        self.rules: CompiledLayout = rules or compile_layout(self.layout, run.catalog, self._now)

    def compose(self, context: Context, rng: np.random.Generator) -> Page:
        """One page."""
        return self.compose_many([context], rng)[0][0]

    def compose_many(self, pages: Sequence[Context], rng: np.random.Generator, group: int = 1) -> list[list[Page]]:
        """`group` pages a context, which share its encoded prompt and its candidates."""
        if not pages:
            return []
        return self.write(self.draw(pages), pages, rng, group)

    def write(self, drawn: Drawn, pages: Sequence[Context], rng: np.random.Generator, group: int = 1) -> list[list[Page]]:
        """Pages from candidates that are already drawn."""
        masks, written = self._write(drawn, pages, rng, group, None)
        flat = masks.pages(written.sampled.reshape(len(pages) * group, -1), written.scores.reshape(len(pages) * group, -1))
        groups = [flat[c * group : (c + 1) * group] for c in range(len(pages))]
        for c in np.flatnonzero((drawn.pool == NO_ITEM).all(1)):
            groups[c] = [replace(page, notes=(self._why_none(drawn.contexts, int(c)), *page.notes)) for page in groups[c]]
        return groups

    def log_prob(self, context: Context, page: Page) -> F64:
        """Log-probability of each slot given the slots before it, under the mask of `compose`. Shape [slot].

        Of the softmax at the writing's temperature, at 1 where it is greedy; -inf for a slot that it could not have written so.
        Raises UsageError for a page of another layout.
        """
        self._check_layout(page)
        drawn = self.draw([context])
        wanted = np.array([slot.item for slot in page.slots], np.int32)
        place = {int(item): at for at, item in enumerate(drawn.pool[0]) if item != NO_ITEM}
        choice = np.array([place.get(int(item), EMPTY) for item in wanted], np.int64)
        foreign = (wanted != NO_ITEM) & (choice == EMPTY)
        slots = self.rules.places
        padded = np.full((1, 1, slots), EMPTY, np.int64)
        padded[0, 0, : len(choice)] = choice[:slots]
        names = [row.id for row in self.layout.rows]
        rows = np.array([[[names.index(name) for name in page.rows]]], np.int64)
        _, written = self._write(drawn, [context], np.random.default_rng(0), 1, Forced(padded, rows))
        logprobs = np.array(written.logprobs[0, 0, : len(choice)])
        logprobs[foreign] = -np.inf
        return logprobs

    def _check_layout(self, page: Page) -> None:
        ids, slots = {row.id for row in self.layout.rows}, self.rules.places
        if not page.rows or not ids.issuperset(page.rows) or len(page.slots) > slots:
            raise UsageError(
                f"A page with rows {', '.join(page.rows) or 'none'} and {len(page.slots)} slots was not written for layout "
                f"{self.layout.id!r} ({', '.join(sorted(ids))}; {slots} slots). Make the policy with the layout of the page."
            )

    def draw(self, pages: Sequence[Context], only: I32 | None = None) -> Drawn:
        """Candidates, evidence and prompts of contexts, each as of its own time. `only` replaces the channels, as a search does."""
        return self.draw_for(contexts_of(pages), only)

    def draw_for(self, contexts: Contexts, only: I32 | None = None) -> Drawn:
        """The same for contexts of a log."""
        if only is None:
            pool = self._pool(contexts)
        else:
            pool = unite(np.tile(only, (len(contexts), 1)), contexts, self.rules.eligible, self.run.config.split.repeats)
        pool = self.with_required(pool)
        features = self.run.evidence.features(contexts, pool)
        return Drawn(contexts, pool, features, encode(contexts, self.run.config.model.max_history))

    def parts(self, drawn: Drawn, page: Page) -> dict[str, dict[str, float]]:
        """What each chosen item's logit rests on, for the first drawn context: slot id -> part -> size.

        The size of a group of evidence is the change of the logit when the group is set to its mean over the training contexts. The
        head is not linear, so the parts need not sum to the logit.
        """
        place = {int(item): at for at, item in enumerate(drawn.pool[0]) if item != NO_ITEM}
        net = self.net
        with torch.no_grad():
            h = read_contexts(net, drawn.contexts, self.run.config.model.max_history)
            base = tensor_for(net, pool_logprobs(net, h, drawn.pool))[:1]
            evidence = tensor_for(net, drawn.evidence[:1])
            full = net.evidence(evidence, base)[0]
            without = {"language model": net.evidence(evidence, torch.full_like(base, float(net.evidence.mean[-1])))[0]}
            for group in self.run.evidence.groups:
                inside = tensor_for(net, np.isin(self.run.evidence.names, GROUPS[group]))
                without[group] = net.evidence(torch.where(inside, net.evidence.mean[:-1], evidence), base)[0]
        return {
            f"r{s.row}c{s.col}": {
                part: round(float(full[place[s.item]] - other[place[s.item]]), 4) for part, other in without.items()
            }
            for s in page.slots
            if s.item != NO_ITEM
        }

    def _pool(self, contexts: Contexts) -> I32:
        run = self.run
        h = read_contexts(self.net, contexts, run.config.model.max_history)
        allowed = self.rules.eligible
        return policy_pool(self.net, h, run.evidence, contexts, run.config.candidates, allowed, run.config.split.repeats)

    def _why_none(self, contexts: Contexts, place: int) -> str:
        """Why a context has no candidate at all."""
        eligible = self.rules.eligible
        past = slice(contexts.start[place], contexts.stop[place])
        hidden, taken = int((~eligible).sum()), np.unique(contexts.log.item[past][contexts.log.taken[past]])
        again = 0 if self.run.config.split.repeats else int(eligible[taken].sum())
        return f"no candidate: of {len(eligible):,} items {hidden:,} are hidden or excluded and {again:,} were taken before"

    def with_required(self, pool: I32) -> I32:
        """The pool with the layout's pinned items added where they are missing."""
        missing = [np.where((pool == item).any(1), NO_ITEM, item).astype(np.int32) for item in self.rules.required_items]
        return np.concatenate([pool, *(column[:, None] for column in missing)], axis=1)

    def _write(
        self, drawn: Drawn, pages: Sequence[Context], rng: np.random.Generator, group: int, forced: Forced | None
    ) -> tuple[PageMasks, Written]:
        net, prompts = self.net, drawn.prompts
        exclude = np.stack([np.isin(row, page.exclude) & (row != NO_ITEM) for row, page in zip(drawn.pool, pages, strict=True)])
        shown = np.stack([_times_shown(row, page) for row, page in zip(drawn.pool, pages, strict=True)])
        masks = PageMasks(self.rules, *(np.repeat(a, group, 0) for a in (drawn.pool, exclude, shown)))
        items, codes = tensor_for(net, prompts.items), tensor_for(net, prompts.codes)
        with torch.inference_mode():
            scorer = PageScorer(
                net.eval(),
                net.embed(items, codes),
                tensor_for(net, prompts.lengths),
                tensor_for(net, drawn.pool.astype(np.int64)),
                tensor_for(net, drawn.evidence),
                group,
                self.rules.places,
                first_row=None if self.layout.order == "policy" else 0,
            )
        return masks, write_pages(scorer, masks, (len(pages), group), self.writing, rng, forced)


def candidate_logits(
    run: Run, contexts: Contexts, allowed: Bool, since: I64 | None = None, net: PolicyNet | None = None
) -> tuple[I32, F32]:
    """Each context's candidates among the allowed items, and the policy's logits before anything stands on the page, -inf for padding.

    Shapes [context, candidate]. For a few hundred contexts at a time: the evidence of all of them is held at once. `since` [item], unix
    seconds, leaves out what was not known strictly before a context's time.
    """
    pool, _, logits = _read_candidates(run, contexts, allowed, net or run.net, since)
    return pool, logits.cpu().numpy()


@torch.no_grad()
def _read_candidates(
    run: Run, contexts: Contexts, allowed: Bool, net: PolicyNet, since: I64 | None = None
) -> tuple[I32, Tensor, Tensor]:
    """(pool, evidence, logits before anything stands on the page)."""
    config = run.config
    h = read_contexts(net, contexts, config.model.max_history)
    pool = policy_pool(net, h, run.evidence, contexts, config.candidates, allowed, config.split.repeats, since)
    features = tensor_for(net, run.evidence.features(contexts, pool))
    return pool, features, context_logits(net, h, tensor_for(net, pool.astype(np.int64)), features)


@dataclass(frozen=True)
class PolicyRanker:
    """The policy as a method that is judged, for contexts of the log: its page in one row, then the rest in its order before any page."""

    run: Run
    candidates: Bool  # [item] what may be ranked
    name: str = "pagellm"
    since: I64 | None = None  # [item] unix seconds after which each may be ranked; from the start where None
    net: PolicyNet | None = None  # the reference policy where None

    def among(self, candidates: Bool) -> PolicyRanker:
        """The same policy over other candidates."""
        return replace(self, candidates=candidates)

    def rank(self, contexts: Contexts, k: int) -> I32:
        """Catalog indexes, best first, NO_ITEM where nothing is left. Shape [context, k].

        The page has `pairs.slots` slots. Until the page head is trained all is the order of the logits, the lower index first of equals.
        """
        out = np.full((len(contexts), k), NO_ITEM, np.int32)
        net = self.net or self.run.net
        for begin in range(0, len(contexts), _CHUNK):
            some = contexts.take(np.arange(begin, min(begin + _CHUNK, len(contexts))))
            pool, features, logits = _read_candidates(self.run, some, self.candidates, net, self.since)
            order = np.argsort(-logits.cpu().numpy(), axis=1, kind="stable")  # padding has logit -inf, so it comes last
            if net.writes_pages:
                order = _page_first(self._page(net, some, pool, features), order)
            order = order[:, :k]
            out[begin : begin + len(some), : order.shape[1]] = np.take_along_axis(pool, order, 1)
        return out

    @torch.no_grad()
    def _page(self, net: PolicyNet, contexts: Contexts, pool: I32, features: Tensor) -> I64:
        """[context, slot] the likeliest page, as places in the pool; EMPTY where it is used up."""
        slots = self.run.config.pairs.slots
        rules = compile_layout(Layout.single_row(slots), self.run.catalog, int(contexts.time.max(initial=0)))
        prompts = encode(contexts, self.run.config.model.max_history)
        items, codes, lengths = (tensor_for(net, a) for a in (prompts.items, prompts.codes, prompts.lengths))
        places = tensor_for(net, pool.astype(np.int64))
        scorer = PageScorer(net.eval(), net.embed(items, codes), lengths, places, features, 1, slots, first_row=0)
        masks = PageMasks(rules, pool)
        return write_pages(scorer, masks, (len(contexts), 1), Writing(logprobs=False), np.random.default_rng(0)).choice[:, 0]


def _page_first(page: I64, order: np.ndarray) -> np.ndarray:
    """The order with the page's places before all others."""
    rank = np.argsort(order, axis=1).astype(np.int64)
    row, slot = np.nonzero(page >= 0)
    rank[row, page[row, slot]] = slot - page.shape[1]
    return np.argsort(rank, axis=1, kind="stable")


def _times_shown(pool: I32, page: Context) -> I32:
    items, counts = np.unique(page.shown, return_counts=True)
    place = np.searchsorted(items, pool).clip(0, max(len(items) - 1, 0))
    return np.where(items[place] == pool, counts[place], 0).astype(np.int32) if len(items) else np.zeros_like(pool)
