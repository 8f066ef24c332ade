"""SASRec (Kang and McAuley 2018) with today's best recipe, and the control that adds live popularity to it.

Full softmax instead of sampled negatives (Klenitskiy and Vasilev 2023), item vectors that start from text, epochs chosen on the valid
contexts. Takes a split and item vectors, gives rankers. Knows no page, no rule and nothing of the policy's own network.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.data.splits import Split
from pagellm.errors import UsageError
from pagellm.evaluation.baselines.ranking import popular_first, rank_by_scores
from pagellm.evaluation.baselines.tuning import Search, Trial, validation_score
from pagellm.types import F32, I32, I64, Bool, Contexts, Interactions

_CHUNK = 512  # contexts that are scored at once


@dataclass(frozen=True)
class SASRecSettings:
    """Sizes and optimizer of SASRec; `epochs` is the most that the search tries."""

    dims: int = 128
    layers: int = 2
    heads: int = 2
    length: int = 50
    dropout: float = 0.2
    lr: float = 1e-3
    batch: int = 64
    epochs: int = 12
    patience: int = 2  # epochs without a better valid score before the search stops


class SASRecNet(nn.Module):
    """Self-attention over the last items; scores are products with the input vectors."""

    def __init__(self, content: F32, settings: SASRecSettings) -> None:
        super().__init__()
        dims = settings.dims
        self.length = settings.length
        self.items = nn.Embedding(len(content), dims)
        self.places = nn.Embedding(settings.length, dims)
        layer = nn.TransformerEncoderLayer(
            dims, settings.heads, 4 * dims, settings.dropout, F.gelu, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dims)
        self.dropout = nn.Dropout(settings.dropout)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        width = min(dims, content.shape[1])
        with torch.no_grad():
            self.items.weight[:, :width] += torch.from_numpy(content[:, :width]) / np.sqrt(width) * 2

    def forward(self, items: Int[Tensor, "user item"]) -> Float[Tensor, "user item dim"]:
        """Hidden vectors after each item of sequences padded on the right (any index pads: nothing reads it)."""
        width = items.shape[1]
        x = self.dropout(self.items(items) + self.places.weight[:width])
        mask = nn.Transformer.generate_square_subsequent_mask(width)
        return self.norm(self.blocks(x, mask=mask, is_causal=True))


@dataclass(frozen=True)
class SASRec:
    """A fitted SASRec as a ranker."""

    net: SASRecNet
    order: I32  # [candidate] the items that may be ranked, in the order among equal scores
    repeats: bool
    name: str = "sasrec"

    def rank(self, contexts: Contexts, k: int) -> I32:
        """See `Ranker.rank`."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def among(self, candidates: Bool) -> SASRec:
        """The same method over other candidates."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    @torch.no_grad()
    def scores(self, contexts: Contexts) -> F32:
        """Log-probability of every item as the next one. Shape [context, item]; zeros for an empty history."""
        self.net.eval()
        items, last = sequences(contexts, self.net.length)
        hidden = self.net(torch.from_numpy(items))[torch.arange(len(items)), torch.from_numpy(np.maximum(last, 0))]
        scores = (hidden @ self.net.items.weight.T).log_softmax(-1).numpy()
        return np.asarray(np.where((last >= 0)[:, None], scores, 0), np.float32)


def sequences(contexts: Contexts, length: int) -> tuple[I64, I64]:
    """The newest items of each history, oldest first, padded on the right with 0; and the place of the newest, -1 without history."""
    first = np.maximum(contexts.start, contexts.stop - length)
    sizes = contexts.stop - first
    width = max(int(sizes.max(initial=0)), 1)
    places = first[:, None] + np.arange(width)
    inside = places < contexts.stop[:, None]
    items = np.where(inside, contexts.log.item[np.minimum(places, max(len(contexts.log) - 1, 0))], 0)
    return items.astype(np.int64), sizes - 1


def epochs_of(net: SASRecNet, spans: Contexts, settings: SASRecSettings, seed: int) -> Iterator[float]:
    """Trains on every next item of the spans, without end; yields the mean loss after each epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(net.parameters(), settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    length = spans.stop - spans.start
    while True:
        net.train()
        losses = []
        order = np.argsort(length + rng.uniform(0, 6, len(spans)), kind="stable")
        batches = [order[at : at + settings.batch] for at in range(0, len(order), settings.batch)]
        for place in rng.permutation(len(batches)):
            items, last = sequences(spans.take(batches[place]), settings.length + 1)
            loss = next_item_loss(net, torch.from_numpy(items), torch.from_numpy(last))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        yield float(np.mean(losses))


def next_item_loss(net: SASRecNet, items: Int[Tensor, "user item"], last: Int[Tensor, " user"]) -> Float[Tensor, ""]:
    """Full-softmax cross-entropy of each next item, mean over all places that have one."""
    hidden = net(items[:, :-1])
    real = torch.arange(items.shape[1] - 1) < last[:, None]
    return F.cross_entropy(hidden[real] @ net.items.weight.T, items[:, 1:][real])


def user_spans(log: Interactions, known: Bool, length: int) -> Contexts:
    """Every user's known events in pieces of at most `length` + 1; pieces overlap by one item, so each next item is a target once."""
    events = log.where(known)
    starts = np.searchsorted(events.user, np.arange(events.users + 1))
    pieces = [
        (begin, min(begin + length + 1, int(stop)))
        for start, stop in itertools.pairwise(starts)
        for begin in range(int(start), int(stop) - 1, length)
    ]
    begin, end = (np.array(column, np.int64) for column in zip(*pieces, strict=True)) if pieces else (np.empty(0, np.int64),) * 2
    user = events.user[begin] if len(begin) else np.empty(0, np.int32)
    return Contexts(events, begin, end, end, user, np.zeros(len(begin), np.int64))


@dataclass(frozen=True)
class SASRecFits:
    """SASRec on one split: searched once, fitted for choices and for the test when asked for."""

    split: Split
    content: F32  # [item, dim] text vectors, strongest directions first
    seed: int
    repeats: bool
    tell: Callable[[str], None]
    settings: SASRecSettings = SASRecSettings()

    @cached_property
    def searched(self) -> tuple[SASRec, Search]:
        """The best epoch on the valid contexts, fitted on what precedes them, and the score of each epoch."""
        split = self.split
        warm = np.flatnonzero(split.valid.warm & (split.valid.target_stop > split.valid.stop))
        if not len(warm):
            raise UsageError("The split has no warm valid context to tune SASRec on. Use a log with more users or more time.")
        judged = split.valid.take(warm[np.linspace(0, len(warm) - 1, min(len(warm), 4_000)).astype(np.int64)])
        net, trials, best = self._net(), list[Trial](), -1.0
        kept = {k: v.clone() for k, v in net.state_dict().items()}
        ranker = self._ranker(net, split.fit_until_valid, split.candidates_valid)
        spans = user_spans(split.log, split.fit_until_valid, self.settings.length)
        for epoch, loss in enumerate(epochs_of(net, spans, self.settings, self.seed), 1):
            score = validation_score(ranker, judged)
            self.tell(f"sasrec epoch {epoch}: loss {loss:.3f}, valid ndcg {score:.4f}")
            trials.append(Trial({"epochs": float(epoch)}, score))
            if score > best:
                best, kept = score, {k: v.clone() for k, v in net.state_dict().items()}
            since = epoch - 1 - int(np.argmax([t.score for t in trials]))
            if epoch >= self.settings.epochs or since >= self.settings.patience:
                break
        net.load_state_dict(kept)
        return ranker, Search(tuple(trials))

    @cached_property
    def final(self) -> SASRec:
        """Fitted on what precedes the test, for as many epochs as the search found best."""
        split, epochs = self.split, int(self.searched[1].best.settings["epochs"])
        net = self._net()
        spans = user_spans(split.log, split.fit_until_test, self.settings.length)
        for epoch, loss in enumerate(epochs_of(net, spans, self.settings, self.seed), 1):
            self.tell(f"sasrec refit {epoch}/{epochs}: loss {loss:.3f}")
            if epoch >= epochs:
                break
        return self._ranker(net, split.fit_until_test, split.candidates_test)

    def _net(self) -> SASRecNet:
        torch.manual_seed(self.seed)
        return SASRecNet(self.content, self.settings)

    def _ranker(self, net: SASRecNet, known: Bool, candidates: Bool) -> SASRec:
        return SASRec(net, popular_first(self.split.log, known, candidates), self.repeats)
