"""The stage renew fits the supervised policy on to what rewards were learned from, and leaves what was learned of pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from pagellm.comparing import Arena
from pagellm.errors import RunError, UsageError
from pagellm.models.run import Run, load_run
from pagellm.models.storage import MANIFEST
from pagellm.pipeline import stage_config, train_run
from pagellm.training.sft import Step
from training.test_ppo import PPO

MORE = (*PPO, "ppo.iterations=6", "sft.checkpoint_s=0")


def trained(shop: Path, run: Path, until: str, *more: str, stop: tuple[str, int] | None = None) -> list[str]:
    """Trains, or goes on; `stop` leaves it at that step of that stage, as a kill would. Returns the stages it went through."""
    config = stage_config(until, "tiny", [*MORE, *more], 0)
    training = train_run(shop, run, config, resume=run.exists(), tell=lambda line: None, until=until)
    stages: dict[str, None] = {}
    for step in training:
        stages[step.stage] = None
        if stop is not None and (step.stage, step.step) == stop:
            training.close()
            break
    return list(stages)


@pytest.fixture(scope="module")
def before(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("renewal") / "run"
    trained(tiny_shop, run, "ppo")
    return run


@pytest.fixture(scope="module")
def renewed(tiny_shop: Path, before: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = shutil.copytree(before, tmp_path_factory.mktemp("renewal") / "run")
    assert trained(tiny_shop, run, "renew") == ["renewed head", "renewed refresh"]
    return run


def language_model(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in net.state_dict().items() if not name.startswith(("page_", "evidence", "rows"))}


def test_what_was_learned_of_pages_stays_and_the_rest_is_as_a_run_without_rewards_has_it(
    tiny_shop: Path, before: Path, renewed: Path, tmp_path: Path
) -> None:
    for name in ("policy.safetensors", "reward.safetensors", "ppo.safetensors", "ppo.json"):
        assert (renewed / name).read_bytes() == (before / name).read_bytes(), name
    run, old = load_run(renewed), load_run(before)
    assert run.renewed is not None
    assert run.tuned is not None
    assert run.supervised is run.named("sft") is run.renewed
    assert run.policy is run.named("ppo") is run.tuned
    config = stage_config("sft", "tiny", [s for s in MORE if not s.startswith("split.reward_at")], 0)
    for _ in train_run(tiny_shop, tmp_path / "sft", config, tell=lambda line: None):
        pass
    plain = language_model(load_run(tmp_path / "sft").net)
    for name, value in language_model(run.renewed).items():
        assert torch.equal(value, plain[name]), name
    assert not all(torch.equal(plain[name], value) for name, value in language_model(run.net).items())
    learned = dict(old.policy.page_evidence.named_parameters())
    for name, value in run.policy.page_evidence.named_parameters():
        assert torch.equal(value, learned[name]), name
    head = dict(run.net.evidence.named_parameters())
    assert not all(torch.equal(value, head[name]) for name, value in run.policy.evidence.named_parameters())
    arena = Arena.of(renewed)
    assert [ranker.net for ranker in arena.own] == [arena.run.policy, arena.run.supervised]


def test_a_renewal_that_is_left_anywhere_goes_on_to_the_same_bits(
    tiny_shop: Path, before: Path, renewed: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(before, tmp_path / "run")
    for stop in (("renewed head", 1), ("renewed head", 3), ("renewed refresh", 1), ("renewed refresh", 5)):
        trained(tiny_shop, run, "renew", stop=stop)
        assert not (run / MANIFEST).exists()
        metrics = run / "metrics.jsonl"
        metrics.write_bytes(metrics.read_bytes() + b'{"stage": "renewed')  # a line that a kill cut off
    trained(tiny_shop, run, "renew")
    assert {p.name for p in run.iterdir()} == {p.name for p in renewed.iterdir()}
    for name in ("renewed.safetensors", "metrics.jsonl", MANIFEST):
        assert (run / name).read_bytes() == (renewed / name).read_bytes(), name


def test_a_renewal_may_be_dropped(tiny_shop: Path, before: Path, tmp_path: Path) -> None:
    run = shutil.copytree(before, tmp_path / "run")
    trained(tiny_shop, run, "renew", stop=("renewed head", 3))
    assert trained(tiny_shop, run, "ppo") == []
    assert {p.name for p in run.iterdir()} == {p.name for p in before.iterdir()}
    for name in ("metrics.jsonl", "ppo.safetensors", MANIFEST):
        assert (run / name).read_bytes() == (before / name).read_bytes(), name


def test_a_run_is_judged_and_then_renewed_to_the_end(tiny_shop: Path, renewed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(renewed, tmp_path / "run")
    assert trained(tiny_shop, run, "renew") == []
    assert trained(tiny_shop, run, "renew", "sft.renew=end", stop=("renewed head", 2)) == ["renewed head"]
    assert trained(tiny_shop, run, "renew", "sft.renew=end") == ["renewed head", "renewed refresh"]
    assert differ(load_run(run), load_run(renewed))
    with pytest.raises(RunError, match=r"fitted to the end of its log.*sft.renew=test"):
        Arena.of(run)
    assert trained(tiny_shop, run, "renew")[-1] == "renewed refresh"  # and back
    for name in ("renewed.safetensors", "metrics.jsonl", MANIFEST):
        assert (run / name).read_bytes() == (renewed / name).read_bytes(), name
    assert json.loads((run / "config.json").read_text())["sft"]["renew"] == "test"


def differ(one: Run, other: Run) -> bool:
    """Whether two runs' supervised policies have other weights."""
    theirs = other.supervised.state_dict()
    return any(not torch.equal(value, theirs[name]) for name, value in one.supervised.state_dict().items())


def test_pages_in_terms_of_the_language_model_are_not_put_on_another(tiny_shop: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ppo.learn=all pages are learned in terms of the language model.*Train until ppo"):
        trained(tiny_shop, tmp_path / "run", "renew", "ppo.learn=all")
    assert not (tmp_path / "run").exists()


def test_stages_have_names_for_people() -> None:
    from pagellm.cli.progress import TITLES

    assert Step("renewed head", 1, 1, 0.0, 0.0, None).stage in TITLES
