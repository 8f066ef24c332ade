"""The baselines of one comparison: each fitted once, in an order in which those that build on others come last.

Takes what a run knows of its data and names; gives fitted methods, the searches that tuned them, and for what does not apply the
reason. Torch is imported when a sequence model is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from pagellm.config import CandidateConfig
from pagellm.data.evidence import Evidence
from pagellm.data.splits import Split
from pagellm.errors import NotApplicableError
from pagellm.evaluation.baselines.lambdamart import LambdaMARTFits
from pagellm.evaluation.baselines.logged import LoggedPages
from pagellm.evaluation.baselines.reranked import KEPT, Reranked, tune_reranked
from pagellm.evaluation.baselines.tuning import Search, tuning_contexts, validation_score
from pagellm.evaluation.methods import ALL, CLASSICAL, CONTROL, QUICK, RERANKED, ClassicalFits, Fits, Fitted
from pagellm.evaluation.protocol import Method
from pagellm.types import F32, Impressions

if TYPE_CHECKING:
    from pagellm.evaluation.baselines.sequence import SequenceFits


@dataclass(frozen=True)
class Given:
    """What baselines are fitted from."""

    split: Split
    content: F32  # [item, dim] text vectors, strongest directions first
    titles: F32  # [item, dim] unit vectors that near-duplicates are told by
    evidence: Evidence  # what the policy sees of candidates
    channels: CandidateConfig  # where candidates come from
    impressions: Impressions | None  # None for review-type logs
    repeats: bool  # whether items of the context's own history may be ranked
    seed: int
    tell: Callable[[str], None]
    searched: Mapping[str, Search] = field(default_factory=dict)  # of another seed: these methods take its settings


@dataclass
class Lineup:
    """What came of the names, in their order."""

    fitted: dict[str, Fitted] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # name -> why it does not apply here
    notes: dict[str, object] = field(default_factory=dict)  # what re-rankers stand on, and how it was chosen

    def card(self) -> dict[str, object]:
        """Plain values for the card of a comparison."""
        searches = {name: asdict(f.search) for name, f in self.fitted.items() if f.search is not None}
        return {"searches": searches, "left_out": self.left_out, "reranked": self.notes}


def fit_lineup(names: Sequence[str], given: Given, fits: dict[str, Fits] | None = None) -> Lineup:
    """Fits the methods of these names; `sft` is the caller's, who has it. What is in `fits` already is not fitted again.

    Raises NotApplicableError where a method does not apply, unless all there are were asked for: then it is left out, with the reason.
    """
    out, fits, bases = Lineup(), {} if fits is None else fits, dict[str, Fits]()
    for name in sorted(names, key=lambda n: n in RERANKED):
        given.tell(f"fitting {name}")
        try:
            bases |= {other: fits[other] for other in names if other in fits}
            out.fitted[name] = _fitted(name, given, bases if name in RERANKED else fits, out.notes)
        except NotApplicableError as reason:
            if not set(ALL) - {"sft"} <= set(names):
                raise
            out.left_out[name] = str(reason)
            given.tell(f"left out {name}: {reason}")
    return Lineup(
        {name: out.fitted[name] for name in names if name in out.fitted},
        {name: out.left_out[name] for name in names if name in out.left_out},
        out.notes,
    )


def best_by_validation(fits: Mapping[str, Fits], split: Split) -> tuple[str, dict[str, float]]:
    """The method with the highest score on the contexts that every search is judged on, the first of equals; and all scores."""
    contexts = tuning_contexts(split)
    scores = {
        name: f.search.best.score if f.search is not None else validation_score(f.early, contexts) for name, f in fits.items()
    }
    return max(scores, key=lambda name: scores[name]), scores


def _fitted(name: str, given: Given, fits: dict[str, Fits], notes: dict[str, object]) -> Fitted:
    if name == "logging":
        return _ready(_logged(given), given, None)
    if name in RERANKED:
        return _reranked(name, given, fits, notes)
    if name == CONTROL:
        return _control(given, fits)
    found = fits.get(name) or _fits(name, given)
    ready = _ready(found.final, given, found.search)
    fits[name] = found  # only now: a library that is missing is noticed by the first fit
    return ready


def _ready(final: Method, given: Given, search: Search | None) -> Fitted:
    return Fitted(final, final.among(~given.split.candidates_test), search)


def _fits(name: str, given: Given) -> Fits:
    found = _unsearched(name, given)
    return replace(found, known=given.searched[name]) if name in given.searched else found


def _unsearched(name: str, given: Given) -> ClassicalFits | LambdaMARTFits | SequenceFits:
    split, seed, repeats, tell = given.split, given.seed, given.repeats, given.tell
    if name in CLASSICAL:
        return ClassicalFits(name, split, given.content, repeats, seed)
    if name == "lambdamart":
        return LambdaMARTFits(split, given.evidence, given.channels, seed, repeats, tell)
    from pagellm.evaluation.baselines.gru4rec import gru4rec_fits
    from pagellm.evaluation.baselines.item_lm import item_lm_fits
    from pagellm.evaluation.baselines.sasrec import sasrec_fits

    if name == "item-lm":
        return item_lm_fits(split, seed, repeats, tell)
    return (sasrec_fits if name == "sasrec" else gru4rec_fits)(split, given.content, seed, repeats, tell)


def _control(given: Given, fits: dict[str, Fits]) -> Fitted:
    """SASRec with live popularity, over the one SASRec that there is."""
    from pagellm.evaluation.baselines.recency import fit_recency
    from pagellm.evaluation.baselines.sequence import SequenceFits

    sasrec = fits.setdefault("sasrec", _fits("sasrec", given))
    assert isinstance(sasrec, SequenceFits)
    return _ready(fit_recency(sasrec), given, sasrec.search)


def _logged(given: Given) -> LoggedPages:
    if given.impressions is None:
        raise NotApplicableError("There is no logging policy to compare with: this log has reviews or events, and no pages.")
    return LoggedPages(given.impressions, given.split.log.user_ids, given.split.candidates_test)


def _reranked(name: str, given: Given, fits: dict[str, Fits], notes: dict[str, object]) -> Fitted:
    """The re-ranker over the best of what is fitted, of the quick ones where nothing is."""
    split = given.split
    if not notes:
        some = fits or {quick: _fits(quick, given) for quick in QUICK}
        best, scores = best_by_validation(some, split)
        notes |= {"base": best, "validation": scores, "kept": KEPT}
        given.tell(f"re-ranking {best}, the best by validation")
        fits |= {best: some[best]}
    base, search = fits[str(notes["base"])], given.searched.get(name)
    search = search or tune_reranked(name, base.early, given.titles, tuning_contexts(split))
    return _ready(Reranked(base.final, given.titles, search.best.settings["dial"], name), given, search)
