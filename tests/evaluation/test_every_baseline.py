"""One contract for every baseline, on a shop whose right answer is obvious: people take from one of four blocks of items alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from evaluation_shop import make_log

from pagellm.catalog import Catalog
from pagellm.config import CandidateConfig
from pagellm.data.evidence import build_evidence
from pagellm.data.splits import make_split
from pagellm.errors import DataError, NotApplicableError
from pagellm.evaluation import lineup as lineups
from pagellm.evaluation.baselines.gru4rec import gru4rec_fits
from pagellm.evaluation.baselines.item_lm import item_lm_fits
from pagellm.evaluation.baselines.lambdamart import examples, learned_and_judged
from pagellm.evaluation.baselines.pages import RankedPages
from pagellm.evaluation.baselines.reranked import DIALS, Reranked, tune_reranked
from pagellm.evaluation.baselines.sasrec import sasrec_fits
from pagellm.evaluation.baselines.sequence import SequenceFits, SequenceSettings
from pagellm.evaluation.baselines.tuning import BUDGET, tuning_contexts
from pagellm.evaluation.lineup import Given, Lineup, fit_lineup
from pagellm.evaluation.methods import ALL, CLASSICAL, CONTROL, RERANKED, Fits
from pagellm.evaluation.protocol import check_ranked
from pagellm.types import DAY, NO_ITEM, Context, Contexts, Impressions, Interactions, Page

BLOCKS, SIZE, USERS = 4, 8, 140
ITEMS = BLOCKS * SIZE
SMALL = SequenceSettings(dims=32, layers=1, heads=2, length=8, dropout=0.0, lr=1e-2, batch=32, epochs=5)
FITTED = tuple(name for name in ALL if name != "sft")
PERSONAL = tuple(name for name in FITTED if not name.startswith("popularity"))


def block_log() -> Interactions:
    """Each user takes five or six items of one block, each once, on days of their own."""
    rng = np.random.default_rng(0)
    events = []
    for user in range(USERS):
        count = int(rng.integers(5, 7))
        days = np.sort(rng.choice(200, count, replace=False))
        items = SIZE * (user % BLOCKS) + rng.permutation(SIZE)[:count]
        events += [(user, int(item), int(day)) for item, day in zip(items, days, strict=True)]
    return make_log(events)


def shown_pages(log: Interactions) -> Impressions:
    """Before each event its user saw a page of the whole block; it was over two hours after."""
    pages = len(log)
    order = np.argsort(log.time, kind="stable")
    user, time = log.user[order], log.time[order] - 3_600
    slots = pages * SIZE
    none = np.zeros(slots, bool)
    return Impressions(
        np.array([f"p{p}" for p in range(pages)]),
        user,
        time,
        np.array(["logging"] * pages),
        np.arange(pages + 1, dtype=np.int64) * SIZE,
        (SIZE * (user[:, None] % BLOCKS) + np.arange(SIZE)).astype(np.int32).ravel(),
        np.zeros(slots, np.int16),
        np.tile(np.arange(SIZE, dtype=np.int16), pages),
        np.full(slots, np.nan, np.float32),
        np.full(slots, -1, np.int8),
        *(none, none, none),
        np.zeros(slots, np.float32),
        time + 7_200,
    )


LOG = block_log()
SPLIT = make_split(LOG, ITEMS)
CONTENT = np.repeat(np.eye(BLOCKS, dtype=np.float32), SIZE, axis=0)
TITLES = np.eye(ITEMS, dtype=np.float32)
CATALOG = Catalog(pl.DataFrame({"item_id": [f"i{i}" for i in range(ITEMS)], "title": [f"thing {i}" for i in range(ITEMS)]}))


def everything(impressions: Impressions | None = None) -> Given:
    evidence = build_evidence(CATALOG, LOG, CONTENT)
    return Given(SPLIT, CONTENT, TITLES, evidence, CandidateConfig(), impressions, False, 0, lambda line: None)


def small_sequence(name: str, given: Given) -> Fits:
    """The sequence models at a size that a test can wait for."""
    rest = given.seed, given.repeats, given.tell, SMALL
    if name == "item-lm":
        return item_lm_fits(given.split, *rest)
    return (sasrec_fits if name == "sasrec" else gru4rec_fits)(given.split, given.content, *rest)


@pytest.fixture(scope="module")
def lineup() -> Lineup:
    whole, patch = lineups._fits, pytest.MonkeyPatch()
    with patch.context() as p:
        p.setattr(lineups, "_fits", lambda n, k: (small_sequence if n in ("sasrec", "gru4rec", "item-lm") else whole)(n, k))
        return fit_lineup(FITTED, everything(shown_pages(LOG)))


def warm() -> Contexts:
    return SPLIT.test.take(SPLIT.test.warm)


def context_of(contexts: Contexts, place: int) -> Context:
    """One context on its own, as a request brings it."""
    past = slice(contexts.start[place], contexts.stop[place])
    log = contexts.log
    user = str(log.user_ids[contexts.user[place]])
    return Context(int(contexts.time[place]), log.item[past], log.event[past], log.time[past], user, baskets=log.basket[past])


def test_every_name_is_fitted_in_the_order_asked(lineup: Lineup) -> None:
    assert tuple(lineup.fitted) == FITTED
    assert not lineup.left_out
    assert all(fitted.ranker.name == name for name, fitted in lineup.fitted.items())


@pytest.mark.parametrize("name", FITTED)
def test_rankings_hold_candidates_once_and_are_the_same_again(name: str, lineup: Lineup) -> None:
    ranker, contexts = lineup.fitted[name].ranker, warm()
    ranked = ranker.rank(contexts, 12)
    assert ranked.shape == (len(contexts), 12)
    check_ranked(name, ranked, len(contexts), SPLIT.candidates_test)
    np.testing.assert_array_equal(ranker.rank(contexts, 12), ranked)
    np.testing.assert_array_equal(ranker.rank(contexts, 5), ranked[:, :5])
    order = np.random.default_rng(1).permutation(len(contexts))
    np.testing.assert_array_equal(ranker.rank(contexts.take(order), 12), ranked[order])
    assert ranker.rank(contexts.take(np.zeros(0, np.intp)), 4).shape == (0, 4)
    if name != "logging":  # a logged page is what it is
        assert all(not np.isin(row, contexts.history(c)).any() for c, row in enumerate(ranked))
    few = np.arange(ITEMS) % 3 == 0
    check_ranked(name, ranker.among(few).rank(contexts, 6), len(contexts), few)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PERSONAL)
def test_personal_methods_find_the_block_of_each_user(name: str, lineup: Lineup) -> None:
    contexts = warm()
    first = lineup.fitted[name].ranker.rank(contexts, 1)[:, 0]
    assert (first // SIZE == contexts.user % BLOCKS).mean() > 0.95


@pytest.mark.parametrize("name", FITTED)
def test_each_is_a_page_policy(name: str, lineup: Lineup) -> None:
    contexts = warm()
    ranked = lineup.fitted[name].ranker.rank(contexts, 4)
    policy = RankedPages(lineup.fitted[name].ranker, 4)
    for place in (0, 3, 11):
        context = context_of(contexts, place)
        page = policy.compose(context, np.random.default_rng(0))
        assert page == policy.compose(context, np.random.default_rng(1))
        assert [slot.item for slot in page.slots] == ranked[place].tolist()
        assert policy.log_prob(context, page).tolist() == [0.0] * 4
        a, b, *rest = page.slots
        swapped = replace(page, slots=(replace(a, item=b.item), replace(b, item=a.item), *rest))
        assert policy.log_prob(context, swapped).tolist() == [-np.inf, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", FITTED)
def test_searches_keep_their_budget_and_know_their_best(name: str, lineup: Lineup) -> None:
    search = lineup.fitted[name].search
    assert (search is None) == (name.startswith("popularity") or name == "logging")
    if search is not None:
        stages = 2 if name in CLASSICAL else 1  # a walk through what needs fits, then one through what needs none
        assert 1 < len(search.trials) <= stages * BUDGET
        assert search.best.score == max(trial.score for trial in search.trials)


@pytest.mark.parametrize("name", ["als", "bpr", "lambdamart", "gru4rec", "item-lm"])
def test_a_second_fit_is_the_same_to_the_bit(name: str, lineup: Lineup) -> None:
    given, contexts = everything(), warm()
    fits = small_sequence(name, given) if name in ("gru4rec", "item-lm") else lineups._fits(name, given)
    np.testing.assert_array_equal(fits.final.rank(contexts, 10), lineup.fitted[name].ranker.rank(contexts, 10))
    assert fits.search == lineup.fitted[name].search


@pytest.mark.parametrize("name", ["itemknn", "als", "lambdamart", "gru4rec"])
def test_settings_that_are_known_are_taken_and_not_searched(name: str, lineup: Lineup) -> None:
    given, contexts, known = everything(), SPLIT.valid.take(SPLIT.valid.warm), lineup.fitted[name].search
    assert known is not None
    searched = small_sequence(name, given) if name == "gru4rec" else lineups._fits(name, given)
    if isinstance(searched, SequenceFits):
        fits: Fits = replace(searched, known=known)
    else:
        fits = lineups._fits(name, replace(given, searched={name: known}))
    assert fits.search is known
    np.testing.assert_array_equal(fits.final.rank(contexts, 10), searched.final.rank(contexts, 10))
    np.testing.assert_array_equal(fits.early.rank(contexts, 10), searched.early.rank(contexts, 10))
    assert "_searched" not in vars(fits), "nothing was searched"


def test_what_is_fitted_is_not_fitted_again_for_what_builds_on_it() -> None:
    fits: dict[str, Fits] = {}
    given = everything()
    fit_lineup(["itemknn"], given, fits)
    first = fits["itemknn"]
    found = fit_lineup(["itemknn", "mmr"], given, fits)
    assert fits["itemknn"] is first
    assert found.notes["base"] == "itemknn", "and not another one of what is fitted"


def test_rerankers_stand_on_the_best_by_validation(lineup: Lineup) -> None:
    scores = lineup.notes["validation"]
    assert isinstance(scores, dict)
    assert lineup.notes["base"] == max(scores, key=scores.__getitem__)
    assert set(scores) == set(FITTED) - {CONTROL, "logging", *RERANKED}
    contexts = warm()
    own = lineup.fitted[str(lineup.notes["base"])].ranker.rank(contexts, 20)
    for name in RERANKED:  # no two titles are alike here, so there is nothing to avoid
        np.testing.assert_array_equal(lineup.fitted[name].ranker.rank(contexts, 20), own)


def test_rerankers_repeat_less_and_keep_what_they_must() -> None:
    """Items of a block come in pairs of near-duplicates; the ranker puts them beside each other."""
    base = lineups.ClassicalFits("itemknn", SPLIT, CONTENT, False, 0).early
    twins = np.repeat(np.eye(ITEMS // 2, dtype=np.float32), 2, axis=0)
    contexts = tuning_contexts(SPLIT)
    for name in RERANKED:
        search = tune_reranked(name, base, twins, contexts)
        assert [trial.settings["dial"] for trial in search.trials] == list(DIALS[name])
        page, own = Reranked(base, twins, DIALS[name][0], name).rank(contexts, 30), base.rank(contexts, 30)
        assert [set(row) for row in page] == [set(row) for row in own]  # the same items, none lost below the page
        first_pairs = np.sort(page[:, :10] // 2, axis=1)
        assert (np.diff(first_pairs, axis=1) == 0).sum() < (np.diff(np.sort(own[:, :10] // 2, axis=1), axis=1) == 0).sum()


def test_rerankers_of_a_handful_of_items_rank_each_once(lineup: Lineup) -> None:
    contexts = warm()
    for name in RERANKED:
        for count in (0, 1, 4, 12):
            few = np.arange(ITEMS) < count
            ranked = lineup.fitted[name].ranker.among(few).rank(contexts, 30)  # type: ignore[attr-defined]
            check_ranked(name, ranked, len(contexts), few)
            own = lineup.fitted[str(lineup.notes["base"])].ranker.among(few).rank(contexts, 30)  # type: ignore[attr-defined]
            assert [set(row) for row in ranked] == [set(row) for row in own]


def test_trees_learn_from_what_is_older_than_what_they_are_judged_on() -> None:
    learned, judged = learned_and_judged(SPLIT)
    valid_cut, test_cut = (int(str(SPLIT.card[name])) for name in ("valid_cut", "test_cut"))
    assert (learned.time < valid_cut).all()
    assert learned.warm.all()
    assert len(learned) > 20
    assert ((judged.time >= valid_cut) & (judged.time < test_cut)).all()
    shuffled = make_split(LOG, ITEMS, "last-out")
    learned, judged = learned_and_judged(shuffled)
    assert not set(learned.user) & set(judged.user)
    assert set(learned.user) | set(judged.user) == set(shuffled.valid.user)


def test_groups_of_rows_are_contexts_with_their_targets() -> None:
    given, contexts = everything(), SPLIT.between_cuts()
    found = examples(given.evidence, contexts, given.channels, np.ones(ITEMS, bool))
    assert len(found.sizes) == len(contexts)  # so many channels that every target is among the candidates
    assert found.sizes.sum() == len(found.features) == len(found.label)
    ends = np.cumsum(found.sizes)
    hits = [int(found.label[end - size : end].sum()) for size, end in zip(found.sizes, ends, strict=True)]
    assert hits == [len(contexts.target(c)) for c in range(len(contexts))]
    left = [ITEMS - len(np.unique(contexts.history(c))) for c in range(len(contexts))]
    assert (found.sizes <= left).all()
    with pytest.raises(DataError, match="no context with a target"):
        examples(given.evidence, contexts, given.channels, np.zeros(ITEMS, bool))


def test_the_logged_page_is_the_one_that_was_not_over() -> None:
    pages, contexts = shown_pages(LOG), warm()
    logged = lineups._logged(everything(pages))
    found = logged.page_of(contexts)
    assert (pages.user[found] == contexts.user).all()
    assert (pages.time[found] == contexts.time - 3_600).all()
    late = replace(contexts, time=contexts.time + DAY)
    over = logged.page_of(late)
    assert all(p == -1 or abs(int(pages.time[p]) - int(t)) <= 7_200 for p, t in zip(over, late.time, strict=True))
    assert (logged.rank(late, 3)[over == -1] == NO_ITEM).all()
    assert (over == -1).any()


def test_what_does_not_apply_is_an_error_by_name_and_left_out_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotApplicableError, match="no logging policy"):
        fit_lineup(["logging"], everything())
    monkeypatch.setattr(lineups, "_fitted", refused)
    out = fit_lineup(FITTED, everything())
    assert not out.fitted
    assert list(out.left_out) == list(FITTED)


def refused(name: str, *rest: object) -> None:
    raise NotApplicableError(f"no {name} here")


@pytest.mark.parametrize(("name", "module"), [("als", "implicit.cpu.als"), ("lambdamart", "lightgbm")])
def test_a_missing_library_says_how_to_install_it(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(NotApplicableError, match=r"pip install 'pagellm\[baselines\]'"):
        fit_lineup([name], everything())


def test_users_that_the_fit_never_saw_get_what_is_popular(lineup: Lineup) -> None:
    contexts = warm().take(np.arange(1))
    stranger = replace(contexts, log=replace(LOG, user_ids=np.array([f"x{u}" for u in range(USERS)])))
    counts = np.bincount(LOG.item[SPLIT.fit_until_test], minlength=ITEMS)
    counts[contexts.history(0)] = -1
    assert lineup.fitted["bpr"].ranker.rank(stranger, 1)[0, 0] == int(np.argmax(counts))
    first = lineup.fitted["item-lm"].ranker.rank(stranger, 1)[0, 0]
    assert first // SIZE == contexts.user[0] % BLOCKS  # the item tokens still tell the block


def test_empty_pages_and_long_pages_have_log_probabilities(lineup: Lineup) -> None:
    policy = RankedPages(lineup.fitted["popularity"].ranker, ITEMS + 2)
    context = context_of(warm(), 0)
    page = policy.compose(context, np.random.default_rng(0))
    assert [slot.item for slot in page.slots][-2:] == [NO_ITEM] * 2
    assert isinstance(page, Page)
    assert (policy.log_prob(context, page) == 0).all()
