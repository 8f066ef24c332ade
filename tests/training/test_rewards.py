"""Learning rewards: losses by hand, what is planted is found, equal seeds give equal bits, an interrupted stage is done again."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pagellm.config import RewardConfig, resolve
from pagellm.data.page_relations import RELATIONS
from pagellm.data.preferences.pairs import Family
from pagellm.errors import UsageError
from pagellm.models.page_inputs import FEATURES, PageTable
from pagellm.models.reward import RewardNet
from pagellm.models.run import make_run_split, make_schedule
from pagellm.pipeline import stage_config, train_run
from pagellm.training.cost import COST
from pagellm.training.own_pages import measure_spread
from pagellm.training.reward_modeling import Engagement, PairTable, calibrate, family_gap, fit_rewards, pair_loss
from tiny_run import SETTINGS

WIDE = len(FEATURES)


def table(count: int, seed: int = 0, offset: float = 0.0) -> PairTable:
    """Pages of two slots: items with more of feature 0 are better, pages with relations between their slots are worse."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4 * count, WIDE)).astype(np.float32)
    index = np.arange(4 * count).reshape(2 * count, 2)
    family = rng.choice([Family.RELEVANCE, Family.RANKING, Family.DIVERSITY, Family.REDUNDANCY, Family.SWAP], count)
    relations = np.zeros((2 * count, 2, len(RELATIONS)), np.float32)
    chosen, rejected = np.arange(count), np.arange(count, 2 * count)
    for n in range(count):
        a, b = index[chosen[n]], index[rejected[n]]
        if family[n] in (Family.RELEVANCE, Family.SWAP):
            rows[a[0], 0], rows[b[0], 0] = max(rows[a[0], 0], rows[b[0], 0]), min(rows[a[0], 0], rows[b[0], 0])
            rows[b[1]] = rows[a[1]]
        elif family[n] == Family.RANKING:
            rows[a[0], 0], rows[a[1], 0] = max(rows[a, 0]), min(rows[a, 0])
            rows[b[0]], rows[b[1]] = rows[a[1]], rows[a[0]]
        else:
            relations[rejected[n], 1, rng.integers(1, 5)] = 1.0
    look = np.tile(np.array([1.0, 0.5], np.float32), (2 * count, 1))
    pages = PageTable(rows, index, relations, look, np.ones((2 * count, 2), bool), np.tile(np.arange(count), 2))
    ones = np.ones(count, np.float32)
    unit = np.where(family == Family.RANKING, 0.5, 1.0).astype(np.float32)
    swap = family == Family.SWAP
    better, worse = np.where(swap, index[chosen, 0], 0), np.where(swap, index[rejected, 0], 0)
    return PairTable(pages, chosen, rejected, better, worse, family, ones, 0.3 * ones, offset * ones, unit)


CONFIG = RewardConfig(members=2, hidden=16, head_hidden=8, epochs=8, min_steps=0, batch=64, lr=5e-3)


def fitted(pairs: PairTable, seed: int = 0) -> RewardNet:
    torch.manual_seed(seed)
    net = RewardNet(CONFIG)
    for _ in fit_rewards(net, pairs, CONFIG, seed):
        pass
    return net.eval()


@torch.no_grad()
def accuracy(net: RewardNet, pairs: PairTable, family: Family) -> float:
    some = np.flatnonzero(pairs.family == family)
    return float((family_gap(net, pairs, some, family).mean(-1) > 0).float().mean())


def test_every_head_finds_what_was_planted_in_its_family() -> None:
    net, fresh = fitted(table(1_500)), table(600, seed=1)
    for family in Family:
        assert accuracy(net, fresh, family) > 0.9, family.name


def test_a_policy_that_is_too_sure_is_believed_as_far_as_it_is_right() -> None:
    """Swaps follow .3 of the policy's logit and nothing else: the head leaves the order alone, and the trust says how sure one may be."""
    pairs, rng = table(4_000), np.random.default_rng(3)
    swap = np.full(len(pairs), Family.SWAP)
    rows = rng.normal(size=pairs.pages.rows.shape).astype(np.float32)
    rows[:, -1] *= 3
    gap = 0.3 * (rows[pairs.pages.index[pairs.chosen, 0], -1] - rows[pairs.pages.index[pairs.rejected, 0], -1])
    right = rng.random(len(pairs)) < 1 / (1 + np.exp(-gap))
    sides = pairs.pages.index[pairs.chosen, 0], pairs.pages.index[pairs.rejected, 0]
    drawn = replace(
        pairs, pages=replace(pairs.pages, rows=rows), family=swap, margin=0 * pairs.margin, better=np.where(right, *sides),
        worse=np.where(right, *sides[::-1]),
    )  # fmt: skip
    torch.manual_seed(0)
    config = RewardConfig(members=2, hidden=16, head_hidden=8)
    net = RewardNet(config)
    for _ in fit_rewards(net, drawn, config, 0):
        pass
    with torch.no_grad():
        found = net.log_odds("item", net.item_vectors(torch.from_numpy(rows))).mean(-1).numpy()
    slope = np.polyfit(rows[:, -1], found, 1)[0]
    assert slope == pytest.approx(0.3, abs=0.06)
    assert np.corrcoef(rows[:, -1], found)[0, 1] > 0.97


def test_the_loss_is_bradley_terry_with_margin_offset_and_weights() -> None:
    pairs = table(50, offset=0.7)
    net = RewardNet(CONFIG).eval()
    only = np.flatnonzero(pairs.family == Family.SWAP)
    counts = np.ones((len(only), 2), np.float32)
    counts[0] = 3
    with torch.no_grad():
        loss = float(pair_loss(net, pairs, only, counts, margin=0.5))
        odds = net.log_odds("item", net.item_vectors(torch.from_numpy(pairs.pages.rows)))
        gap = odds[pairs.better[only]] - odds[pairs.worse[only]] + 0.7 - 0.5 * 0.3
        expected = -(torch.from_numpy(counts) * F.logsigmoid(gap)).sum() / counts.sum()
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_exchanged_pairs_say_the_contrary() -> None:
    pairs, net = table(80, offset=0.4), fitted(table(400))
    wrong = pairs.exchanged(1.0, seed=0)
    for family in Family:
        some = np.flatnonzero(pairs.family == family)
        with torch.no_grad():
            assert torch.allclose(family_gap(net, pairs, some, family), -family_gap(net, wrong, some, family), atol=1e-5)
    assert (wrong.offset == -pairs.offset).all()
    half = pairs.exchanged(0.5, seed=0)
    assert 0.3 < (half.chosen != pairs.chosen).mean() < 0.7
    assert (pairs.exchanged(0.0, seed=0).chosen == pairs.chosen).all()


def test_families_add_up_and_an_absent_one_adds_nothing() -> None:
    pairs, net = table(80), RewardNet(CONFIG).eval()
    ones = np.ones((80, 2), np.float32)
    with torch.no_grad():
        parts = 0.0
        for family in Family:
            some = np.flatnonzero(pairs.family == family)
            parts += float(pair_loss(net, pairs, some, ones[some], 0.5))
        assert float(pair_loss(net, pairs, np.arange(80), ones, 0.5)) == pytest.approx(parts, rel=1e-5)


def test_equal_seeds_give_equal_bits_and_members_differ() -> None:
    one, two, other = (fitted(table(200), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.heads["item"].outer, other.heads["item"].outer)
    with torch.no_grad():
        odds = one.log_odds("item", one.item_vectors(torch.from_numpy(table(50, 3).pages.rows)))
    assert (odds.std(-1) > 0).all()


def test_calibrated_chances_are_those_that_were_planted() -> None:
    net, rng = fitted(table(1_500)), np.random.default_rng(4)
    rows = rng.normal(size=(20_000, WIDE)).astype(np.float32)
    chance = 1 / (1 + np.exp(2 - rows[:, 0]))
    assert not calibrate(net, Engagement(rows, rng.random(20_000) < chance, np.ones(20_000, np.float32)))
    with torch.no_grad():
        found = net.chances("item", net.item_vectors(torch.from_numpy(rows))).mean(-1).numpy()
    assert np.corrcoef(found, chance)[0, 1] > 0.9
    assert found.mean() == pytest.approx(chance.mean(), abs=0.01)


def test_calibration_knows_that_unseen_slots_refuse_nothing() -> None:
    """Slots are seen with a known chance; engaged ones were seen for sure. Chances are those of seen slots."""
    net, rng = fitted(table(1_500)), np.random.default_rng(5)
    rows = rng.normal(size=(40_000, WIDE)).astype(np.float32)
    look = rng.choice([0.1, 0.5, 1.0], 40_000)
    chance = 1 / (1 + np.exp(2 - rows[:, 0]))
    engaged = (rng.random(40_000) < look) & (rng.random(40_000) < chance)
    calibrate(net, Engagement(rows, engaged, np.where(engaged, 1, look).astype(np.float32)))
    with torch.no_grad():
        found = net.chances("item", net.item_vectors(torch.from_numpy(rows))).mean(-1).numpy()
    assert found.mean() == pytest.approx(chance.mean(), rel=0.1)


def test_a_head_without_feedback_to_calibrate_on_says_one_chance_of_all() -> None:
    net = fitted(table(200))
    rows = np.random.default_rng(6).normal(size=(500, WIDE)).astype(np.float32)
    nobody = Engagement(rows, np.zeros(500, bool), np.ones(500, np.float32))
    assert calibrate(net, nobody) == ["relevance", "ranking", "item"]
    with torch.no_grad():
        found = net.chances("item", net.item_vectors(torch.from_numpy(rows)))
    assert found.std() < 1e-8
    assert 0 < float(found[0, 0]) < 0.01


def test_pages_of_one_context_differ_by_one_in_each_family() -> None:
    pairs = table(600)
    net = fitted(pairs)
    measure_spread(net, pairs.pages)
    with torch.no_grad():
        scores = (net.page_scores(pairs.pages.inputs()).mean(-1) / net.spread).numpy()
    apart = (
        scores[pairs.chosen] - scores[pairs.rejected]
    )  # the two pages of a context: their deviation is half of that times root 2
    assert np.sqrt((apart**2).mean(0) / 2) == pytest.approx(1, rel=1e-3)


def test_a_head_that_tells_nothing_apart_is_not_blown_up() -> None:
    """With one chance for every item its gaps are rounding. Weighed by that, one second copy cost ten million typical defects."""
    pairs = table(600)
    net = fitted(pairs)
    net.slope.zero_()
    net.intercept.fill_(-3.0)
    measure_spread(net, pairs.pages)
    assert net.spread[:2].tolist() == [1, 1]
    assert (net.spread[2:] != 1).all()
    inputs = pairs.pages.inputs(np.arange(50))
    copies = inputs.relations.clone()
    copies[:, 1, RELATIONS.index("repeat")] = 1
    with torch.no_grad():
        fresh, stale = (net.page_scores(replace(inputs, relations=r)).mean(-1) / net.spread for r in (inputs.relations, copies))
    lost = (fresh - stale)[:, :2]
    assert (lost > 0).all()
    assert (lost < 0.1).all()


def test_a_family_without_a_pair_is_refused_before_anything_is_fitted() -> None:
    """A draw of the pairs may miss a small family, whose mean gap would then be no number."""
    from pagellm.data.look import Look
    from pagellm.data.preferences.pairs import empty_pairs
    from pagellm.errors import DataError
    from pagellm.training.reward_modeling import pair_table
    from rewarding.right_reward import RUN, Right, reward_of

    with pytest.raises(DataError, match=r"is of: relevance, ranking, diversity, redundancy, swap\. .*reward\.pairs"):
        pair_table(empty_pairs(), RUN.split.log, reward_of(Right).model.reader, Look())


def rewarded(shop: Path, run: Path, *more: str, resume: bool = False) -> Path:
    config = stage_config("reward", "tiny", [*SETTINGS, "reward.min_steps=20", "split.reward_at=0.6", *more], 0)
    for _ in train_run(shop, run, config, resume=resume, tell=lambda line: None, until="reward"):
        pass
    return run


@pytest.fixture(scope="module")
def run_with_rewards(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rewarded(tiny_shop, tmp_path_factory.mktemp("rewards") / "run")


def test_a_stage_that_was_killed_is_done_again_to_the_same_bits(tiny_shop: Path, run_with_rewards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_with_rewards, run)
    kept = {path.name: path.read_bytes() for path in run.iterdir() if path.name != COST}  # what it took is no part of a run
    (run / "manifest.json").unlink()
    (run / "reward.safetensors").unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:-3]) + lines[-3][:10])  # killed in the middle of a line
    rewarded(tiny_shop, run, resume=True)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name != COST} == kept


def test_a_policy_goes_on_to_rewards_and_a_finished_run_has_nothing_to_do(
    tiny_shop: Path, run_with_rewards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = stage_config("reward", "tiny", [*SETTINGS, "reward.min_steps=20", "split.reward_at=0.6"], 0)
    for _ in train_run(tiny_shop, run, config, tell=lambda line: None):
        pass
    assert not (run / "reward.safetensors").exists()
    rewarded(tiny_shop, run, resume=True)
    assert (run / "reward.safetensors").read_bytes() == (run_with_rewards / "reward.safetensors").read_bytes()
    said: list[str] = []
    for _ in train_run(tiny_shop, run, config, resume=True, tell=said.append, until="reward"):
        pass
    assert "nothing to do" in said[-1]


def test_a_reward_stage_that_fails_leaves_the_policy_finished(
    tiny_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pagellm.errors import DataError
    from pagellm.models.run import load_run
    from pagellm.training import run_rewards

    def nothing(report: object) -> None:
        raise DataError("no pair")

    with monkeypatch.context() as patch:
        patch.setattr(run_rewards, "_check", nothing)
        with pytest.raises(DataError, match="no pair"):
            rewarded(tiny_shop, tmp_path / "run")
    assert load_run(tmp_path / "run").net is not None
    assert not (tmp_path / "run" / "pairs.parquet").exists()
    rewarded(tiny_shop, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "reward.safetensors").exists()


def test_time_parts_policy_and_rewards(tiny_run: Path) -> None:
    from pagellm.models.run import load_run

    run = load_run(tiny_run)
    log, config = run.split.log, resolve("tiny", ["split.reward_at=0.7"])
    schedule = make_schedule(run.split, config)
    assert schedule.rewards is not None
    begin, end = schedule.rewards
    assert log.time[schedule.first].max() < schedule.head.time.min()
    assert schedule.head.time.max() < begin
    assert log.time[schedule.refresh].max() < begin < end <= int(str(run.split.card["valid_cut"]))
    assert make_schedule(run.split, resolve("tiny")).rewards is None
    for setting, words in (("split.reward_at=0.85", "reward_at < valid_at"), ("sft.refresh=end", "refresh=end")):
        with pytest.raises(UsageError, match=words):
            make_schedule(run.split, resolve("tiny", ["split.reward_at=0.7", setting]))
    shuffled = resolve("tiny", ["split.reward_at=0.7", "split.protocol=last-out"])
    with pytest.raises(UsageError, match="has no later"):
        make_schedule(make_run_split(log, len(run.catalog), shuffled), shuffled)


def test_a_run_that_learned_from_everything_cannot_go_on(tiny_shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"split\.reward_at"):
        for _ in train_run(tiny_shop, tmp_path / "run", resolve("tiny", SETTINGS), tell=lambda line: None, until="reward"):
            pass


def test_rewards_of_another_policy_or_catalog_are_refused(run_with_rewards: Path, tmp_path: Path) -> None:
    from pagellm.errors import RunError
    from pagellm.models.reward_files import load_rewards
    from pagellm.models.run import finish, load_run

    run = tmp_path / "run"
    shutil.copytree(run_with_rewards, run)
    load_rewards(load_run(run))
    saved = json.loads((run / "reward.json").read_text())
    for name in ("catalog", "policy"):
        other = saved | {"made_with": saved["made_with"] | {name: "0" * 64}}
        (run / "reward.json").write_text(json.dumps(other))
        finish(run)
        with pytest.raises(RunError, match=f"learned with another {name} than the run has"):
            load_rewards(load_run(run))


def test_of_many_pairs_every_family_keeps_its_share() -> None:
    from pagellm.data.preferences.pairs import empty_pairs
    from pagellm.training.run_rewards import _drawn

    family = np.repeat(np.arange(5), [10, 500, 500, 500, 5_000]).astype(np.int8)
    none = empty_pairs()
    columns = {
        f.name: np.zeros((len(family), *getattr(none, f.name).shape[1:]), getattr(none, f.name).dtype) for f in fields(none)
    }
    drawn = _drawn(replace(none, **columns | {"family": family, "user": np.arange(len(family), dtype=np.int32)}), 1_000, seed=0)
    assert len(drawn) == 1_000
    assert np.bincount(drawn.family).tolist() == [10, 247, 247, 248, 248]
    assert (np.diff(drawn.user) > 0).all()
