"""What sequence models share: batches of histories, the loss of each next item, the search for the number of epochs.

A model is a network from sequences of items to a hidden vector after each, and from these to scores of all items. Takes a split and a
way to make a fresh network, gives rankers. Knows no page, no rule and nothing of the policy's own network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pagellm.data.splits import Split
from pagellm.evaluation.baselines.ranking import KnownUsers, known_users, popular_first, rank_by_scores
from pagellm.evaluation.baselines.tuning import BUDGET, Search, Trial, tuning_contexts, validation_score
from pagellm.types import F32, I32, I64, Bool, Contexts, Interactions


@dataclass(frozen=True)
class SequenceSettings:
    """Sizes and optimizer of a sequence model; `epochs` is the most that the search tries."""

    dims: int = 128
    layers: int = 2
    heads: int = 2  # of attention, where the model has any
    length: int = 50
    dropout: float = 0.2
    lr: float = 1e-3
    batch: int = 64
    epochs: int = BUDGET
    patience: int = 2  # epochs without a better valid score before the search stops
    negatives: int = 2_048  # items drawn a step that stand for all others in the softmax; a smaller catalog is summed over whole


class SequenceNet(nn.Module):
    """A network over sequences of items. Scores are products with the items' input vectors unless a model has others."""

    items: nn.Embedding
    length: int  # newest items of a history that it reads

    def forward(self, items: Int[Tensor, "user item"], users: Int[Tensor, " user"]) -> Float[Tensor, "user item dim"]:
        """Hidden vectors after each item of sequences padded on the right (any index pads: nothing reads it).

        `users` are rows of the users of the fit, from 1; 0 is any other.
        """
        raise NotImplementedError

    def outputs(self) -> tuple[Float[Tensor, "item dim"], Float[Tensor, " item"]]:
        """(vectors, biases) of all items: a score is a product with hidden vectors, plus the bias."""
        return self.items.weight, self.items.weight.new_zeros(self.items.num_embeddings)

    def logits(self, hidden: Float[Tensor, "place dim"]) -> Float[Tensor, "place item"]:
        """Scores of all items."""
        vectors, biases = self.outputs()
        return F.linear(hidden, vectors, biases)


@dataclass(frozen=True)
class SequenceRanker:
    """A fitted sequence model as a ranker."""

    net: SequenceNet
    users: KnownUsers
    order: I32  # [candidate] the items that may be ranked, in the order among equal scores
    repeats: bool
    name: str

    def rank(self, contexts: Contexts, k: int) -> I32:
        """See `Ranker.rank`."""
        return rank_by_scores(self.scores, contexts, self.order, k, self.repeats)

    def among(self, candidates: Bool) -> SequenceRanker:
        """The same method over other candidates."""
        return replace(self, order=np.flatnonzero(candidates).astype(np.int32))

    @torch.no_grad()
    def scores(self, contexts: Contexts) -> F32:
        """Log-probability of every item as the next one. Shape [context, item]; zeros for an empty history."""
        self.net.eval()
        items, last = sequences(contexts, self.net.length)
        users = torch.from_numpy(self.users.rows(contexts) + 1)
        hidden = self.net(torch.from_numpy(items), users)[torch.arange(len(items)), torch.from_numpy(np.maximum(last, 0))]
        scores = self.net.logits(hidden).log_softmax(-1).numpy()
        return np.asarray(np.where((last >= 0)[:, None], scores, 0), np.float32)


def start_from_text(items: nn.Embedding, content: F32) -> None:
    """Draws item vectors and adds the strongest directions of the text vectors [item, dim] to them."""
    dims = items.embedding_dim
    nn.init.normal_(items.weight, std=0.02)
    width = min(dims, content.shape[1])
    with torch.no_grad():
        items.weight[:, :width] += torch.from_numpy(content[:, :width]) / np.sqrt(width) * 2


def causal_blocks(settings: SequenceSettings) -> nn.TransformerEncoder:
    """Blocks of self-attention and a feed-forward part, each normed before; to be called with a causal mask."""
    layer = nn.TransformerEncoderLayer(
        settings.dims, settings.heads, 4 * settings.dims, settings.dropout, F.gelu, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)


def sequences(contexts: Contexts, length: int) -> tuple[I64, I64]:
    """The newest items of each history, oldest first, padded on the right with 0; and the place of the newest, -1 without history."""
    first = np.maximum(contexts.start, contexts.stop - length)
    sizes = contexts.stop - first
    width = max(int(sizes.max(initial=0)), 1)
    places = first[:, None] + np.arange(width)
    inside = places < contexts.stop[:, None]
    items = np.where(inside, contexts.log.item[np.minimum(places, max(len(contexts.log) - 1, 0))], 0)
    return items.astype(np.int64), sizes - 1


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


def epochs_of(net: SequenceNet, spans: Contexts, users: KnownUsers, settings: SequenceSettings, seed: int) -> Iterator[float]:
    """Trains on every next item of the spans, without end; yields the mean loss after each epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(net.parameters(), settings.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    rows = users.rows(spans) + 1
    while True:
        net.train()
        losses = []
        for some in _epoch(spans, settings.batch, rng):
            items, last = sequences(spans.take(some), settings.length + 1)
            given = [torch.from_numpy(a) for a in (items, rows[some], last)]
            loss = next_item_loss(net, given[0], given[1], given[2], settings.negatives)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        yield float(np.mean(losses))


def _epoch(spans: Contexts, batch: int, rng: np.random.Generator) -> Iterator[I64]:
    """Batches of spans of about the same length, in a drawn order."""
    order = np.argsort(spans.stop - spans.start + rng.uniform(0, 6, len(spans)), kind="stable")
    batches = [order[at : at + batch] for at in range(0, len(order), batch)]
    for place in rng.permutation(len(batches)):
        yield batches[place]


def next_item_loss(
    net: SequenceNet, items: Int[Tensor, "user item"], users: Int[Tensor, " user"], last: Int[Tensor, " user"], negatives: int
) -> Float[Tensor, ""]:
    """Softmax cross-entropy of each next item, mean over all places that have one.

    Where the catalog has more items, `negatives` of them, drawn uniformly for the whole step, stand for all: each counts for as many
    as it stands for, so the sum under the logarithm is unbiased (sampled softmax, Bengio and Senecal 2008).
    """
    hidden = net(items[:, :-1], users)
    real = torch.arange(items.shape[1] - 1) < last[:, None]
    hidden, target = hidden[real], items[:, 1:][real]
    (vectors, biases), n_items = net.outputs(), net.items.num_embeddings
    if n_items <= negatives:
        return F.cross_entropy(net.logits(hidden), target)
    drawn = torch.randperm(n_items)[:negatives]
    wanted = (hidden * vectors[target]).sum(-1) + biases[target]
    others = F.linear(hidden, vectors[drawn], biases[drawn] + math.log(n_items / negatives))
    others = others.masked_fill(drawn == target[:, None], -torch.inf)
    return (torch.cat([wanted[:, None], others], 1).logsumexp(1) - wanted).mean()


@dataclass(frozen=True)
class SequenceFits:
    """A sequence model on one split: searched once, fitted for choices and for the test when asked for."""

    name: str
    make: Callable[[SequenceSettings], SequenceNet]  # a fresh network, drawn from torch's generator
    split: Split
    seed: int
    repeats: bool
    tell: Callable[[str], None]
    settings: SequenceSettings = SequenceSettings()
    known: Search | None = None  # of another seed, whose number of epochs is taken

    @property
    def search(self) -> Search:
        """The score of each epoch on the valid contexts."""
        return self.known or self._searched[1]

    @cached_property
    def early(self) -> SequenceRanker:
        """The best epoch on the valid contexts, fitted on what precedes them."""
        return self._fitted(self.split.fit_until_valid, self.split.candidates_valid) if self.known else self._searched[0]

    @cached_property
    def final(self) -> SequenceRanker:
        """Fitted on what precedes the test, for as many epochs as the search found best."""
        return self._fitted(self.split.fit_until_test, self.split.candidates_test)

    def _fitted(self, known: Bool, candidates: Bool) -> SequenceRanker:
        epochs = int(self.search.best.settings["epochs"])
        net, ranker, spans = self._begin(known, candidates)
        for epoch, loss in enumerate(epochs_of(net, spans, ranker.users, self.settings, self.seed), 1):
            self.tell(f"{self.name} fit {epoch}/{epochs}: loss {loss:.3f}")
            if epoch >= epochs:
                break
        return ranker

    @cached_property
    def _searched(self) -> tuple[SequenceRanker, Search]:
        split, judged = self.split, tuning_contexts(self.split)
        net, ranker, spans = self._begin(split.fit_until_valid, split.candidates_valid)
        trials, best = list[Trial](), -1.0
        kept = {k: v.clone() for k, v in net.state_dict().items()}
        for epoch, loss in enumerate(epochs_of(net, spans, ranker.users, self.settings, self.seed), 1):
            score = validation_score(ranker, judged)
            self.tell(f"{self.name} epoch {epoch}: loss {loss:.3f}, valid ndcg {score:.4f}")
            trials.append(Trial({"epochs": float(epoch)}, score))
            if score > best:
                best, kept = score, {k: v.clone() for k, v in net.state_dict().items()}
            since = epoch - 1 - int(np.argmax([t.score for t in trials]))
            if epoch >= self.settings.epochs or since >= self.settings.patience:
                break
        net.load_state_dict(kept)
        return ranker, Search(tuple(trials))

    def _begin(self, known: Bool, candidates: Bool) -> tuple[SequenceNet, SequenceRanker, Contexts]:
        """A fresh network, the same as a ranker, and what it is trained on."""
        log = self.split.log
        torch.manual_seed(self.seed)
        net = self.make(self.settings)
        ranker = SequenceRanker(net, known_users(log, known)[0], popular_first(log, known, candidates), self.repeats, self.name)
        return net, ranker, user_spans(log, known, self.settings.length)
