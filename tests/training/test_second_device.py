"""Networks on a device that is not the CPU: all that a run learns and writes there is what it learns and writes on the CPU.

The second device is one for tests, see `second_device`: it refuses to mix with the CPU, as a GPU does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.small_lms import write_lm
from pagellm.config import resolve
from pagellm.data.contexts import contexts_of
from pagellm.data.preferences.pairs import read_pairs
from pagellm.errors import UsageError
from pagellm.models.composer import LanguagePolicy
from pagellm.models.decoding import Writing
from pagellm.models.device import device_for, device_of
from pagellm.models.reward_files import load_rewards
from pagellm.models.run import PAIRS, Run, load_run
from pagellm.models.storage import sha256
from pagellm.pipeline import stage_config, train_run
from pagellm.training.alternatives import best_of_n, rejection_sampling
from pagellm.training.dpo import dpo, duels_of
from pagellm.training.pair_sources import known_since
from pagellm.training.ppo import ppo
from pagellm.types import Context, PageBatch
from second_device import Elsewhere, second_device
from tiny_run import train
from training.test_ppo import FAST, PPO, stage

backend = pytest.importorskip("torch.utils.backend_registration")
if not hasattr(backend, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch cannot make a device of Python code", allow_module_level=True)

DEVICE = second_device()  # while tests are collected: the first gradient of a process counts the devices that there are
MORE = (*PPO, "ppo.iterations=4", "ppo.learn=all")
UNTIL = {"ppo": MORE, "renew": (*PPO, "ppo.iterations=2")}


def trained(shop: Path, run: Path, until: str, *more: str, stop: tuple[str, int] | None = None) -> Path:
    """Trains, or goes on; `stop` leaves it at that step of that stage, as a kill would."""
    config = stage_config(until, "tiny", [*UNTIL[until], *more], 0)
    training = train_run(shop, run, config, resume=run.exists(), tell=lambda line: None, until=until)
    for step in training:
        if stop is not None and (step.stage, step.step) == stop:
            training.close()
            break
    return run


@pytest.fixture(scope="module")
def here(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_shop, tmp_path_factory.mktemp("device") / "here", "ppo")


@pytest.fixture(scope="module")
def there(tiny_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_shop, tmp_path_factory.mktemp("device") / "there", "ppo", f"device={DEVICE}")


def same_files(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.glob("*.safetensors"))
    assert names == sorted(path.name for path in other.glob("*.safetensors"))
    for name in (*names, "metrics.jsonl", "pairs.parquet", "reward.json", "ppo.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def close_figures(one: Path, other: Path, rel: float = 1e-3, but: str = "") -> None:
    """Both runs logged the same steps, with figures that differ by rounding: another order of sums is all that a device may bring.

    The stage `but` is left out: where pages are drawn, rounding may draw another."""
    ours, theirs = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other))
    assert [(line["stage"], line["step"]) for line in ours] == [(line["stage"], line["step"]) for line in theirs]
    for line, same in zip(ours, theirs, strict=True):
        for name, value in line.items() if line["stage"] != but else ():
            expected = value if isinstance(value, str | None) else pytest.approx(value, rel=rel, abs=rel / 10)
            assert same[name] == expected, (line["stage"], line["step"], name)


def test_the_second_device_refuses_what_a_gpu_refuses() -> None:
    here, there = torch.ones(3), torch.ones(3).to(DEVICE)
    assert isinstance(there, Elsewhere)
    with pytest.raises(RuntimeError, match="two devices"):
        there + here
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    assert torch.equal((there * 2 + torch.ones(())).cpu(), torch.full((3,), 3.0))
    weight = torch.nn.Parameter(there.clone())
    (weight**2).sum().backward()
    assert device_of(torch.nn.ParameterList([weight])) == torch.device(DEVICE) == weight.grad.device


def test_every_stage_learns_the_same_there(here: Path, there: Path) -> None:
    close_figures(here, there)
    run = load_run(there)
    rewards, _ = load_rewards(run)
    for net in (run.net, run.policy, rewards.model.net):
        assert device_of(net) == torch.device(DEVICE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_stage_learns_the_same_on_a_gpu(tiny_shop: Path, here: Path, tmp_path: Path) -> None:
    gpu = trained(tiny_shop, tmp_path / "gpu", "ppo", "device=cuda")
    close_figures(here, gpu, 1e-2, but="ppo")
    trained(tiny_shop, tmp_path / "stopped", "ppo", "device=cuda", stop=("ppo", 2))
    close_figures(here, trained(tiny_shop, tmp_path / "stopped", "ppo", "device=cuda"), 1e-2, but="ppo")
    assert load_run(gpu).policy.bias.is_cuda
    assert np.isfinite(composed(gpu)[1]).all()
    assert all(np.isfinite(figures).all() for figures in learned(gpu).values())


def test_a_run_goes_on_there_to_the_bit_and_is_renewed(tiny_shop: Path, there: Path, tmp_path: Path) -> None:
    told, slow = f"device={DEVICE}", "sft.checkpoint_s=0"
    run = trained(tiny_shop, tmp_path / "run", "ppo", told, slow, stop=("refresh", 5))
    trained(tiny_shop, run, "ppo", told, slow, stop=("reward", 7))
    trained(tiny_shop, run, "ppo", told, slow, stop=("ppo", 2))
    same_files(there, trained(tiny_shop, run, "ppo", told, slow))
    close_figures(*(trained(tiny_shop, tmp_path / d, "renew", f"device={d}") for d in ("cpu", DEVICE)))


def composed(folder: Path) -> tuple[list[int], list[float]]:
    """(items of pages, the numbers behind them)."""
    run, items, numbers = load_run(folder), [], []
    log, some = run.split.log, slice(40, 52)
    context = Context(int(log.time.max()) + 1, log.item[some], log.event[some], np.sort(log.time[some]))
    for writing in (Writing(), Writing(hybrid=3), Writing(temperature=0.7)):
        policy = LanguagePolicy(run, writing=writing)
        page = policy.compose(context, np.random.default_rng(1))
        items += [slot.item for slot in page.slots]
        numbers += policy.log_prob(context, page).tolist()
        numbers += [n for parts in policy.parts(policy.draw([context]), page).values() for n in parts.values()]
        rewards, _ = load_rewards(run)
        slots = np.array([[slot.item for slot in page.slots]], np.int32)
        col = np.arange(slots.shape[1], dtype=np.int16)[None]
        batch = PageBatch(contexts_of([context]), np.zeros(1, np.int64), slots, np.zeros_like(col), col)
        rewards.caution, rewards.stepwise = 0.5, True
        numbers += rewards(batch)[0].tolist()
    return items, numbers


def test_pages_are_those_of_the_cpu_where_the_run_is_opened_there(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, numbers = composed(there)
    monkeypatch.setenv("PAGELLM_DEVICE", "cpu")
    assert device_of(load_run(there).policy) == torch.device("cpu")
    same, close = composed(there)
    assert items == same
    assert numbers == pytest.approx(close, rel=1e-4, abs=2e-4)


def never_tied(pages: PageBatch) -> np.ndarray:
    """A reward that no two pages share: between equals rounding would choose."""
    return np.asarray((np.sin(pages.items) / (1 + pages.col)).sum(1), np.float32)


def learned(folder: Path) -> dict[str, list[float]]:
    """Loss and gradient of each way of learning, in two iterations."""
    run = load_run(folder)
    config = FAST.model_copy(update={"iterations": 2, "kl_coef": 0.2, "learn": "evidence"})
    out: dict[str, list[float]] = {}
    for name in ("ppo", "grpo", "rloo", "grpo-slot", "rejection", "dpo"):
        told = config if name in ("rejection", "dpo") else config.model_copy(update={"algorithm": name})
        learner, contexts_of, desk, asked = stage(run, told)
        if name == "dpo":
            pairs = read_pairs(run.folder / PAIRS, run.catalog, run.split.log.user_ids, None)
            steps = dpo(learner, duels_of(run, pairs, known_since(run.split.log, None, run.catalog), desk, told, 0), told, 0)
        else:
            way = rejection_sampling if name == "rejection" else ppo
            steps = way(learner, contexts_of, never_tied, told, desk, 0)
        out[name] = [figure for step in steps for figure in (step.loss, step.grad_norm)]
    _, _, desk, asked = stage(run, config)
    pages = best_of_n(run.net, asked, desk, never_tied, 4, 1.0, np.random.default_rng(0))
    return out | {"best of n": pages.items.ravel().tolist()}


def test_all_that_stands_beside_ppo_learns_there_too(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = learned(there)
    monkeypatch.setenv("PAGELLM_DEVICE", "cpu")
    for name, figures in learned(there).items():
        assert figures == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_a_hugging_face_backbone_learns_there(tiny_shop: Path, tmp_path: Path) -> None:
    told = (f"model.backbone={write_lm(tmp_path / 'lm', 'llama')}", "sft.epochs=1", "sft.head_epochs=1")
    close_figures(*(train(tiny_shop, tmp_path / d, *told, f"device={d}") for d in ("cpu", DEVICE)))


def test_a_device_that_is_not_there_is_named(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"device 'gpu' of the setting device cannot be used here: .*cuda with a GPU"):
        device_for(resolve("tiny", ["device=gpu"]))
    if not torch.cuda.is_available():
        run = shutil.copytree(there, tmp_path / "run")
        config = json.loads((run / "config.json").read_text()) | {"device": "cuda"}
        (run / "config.json").write_text(json.dumps(config))
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["files"]["config.json"]["sha256"] = sha256(run / "config.json")
        (run / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UsageError, match=r"trained on a GPU is opened without one by PAGELLM_DEVICE=cpu"):
            load_run(run)
        monkeypatch.setenv("PAGELLM_DEVICE", "cpu")
        assert isinstance(load_run(run), Run)
    monkeypatch.setenv("PAGELLM_DEVICE", "nowhere")
    with pytest.raises(UsageError, match="the variable PAGELLM_DEVICE"):
        device_for(resolve("tiny"))
