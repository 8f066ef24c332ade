"""Networks on a device that is not the CPU: all that a run learns and writes there is what it learns and writes on the CPU.

The second device is one for tests, see `second_device`: it refuses to mix with the CPU, as a GPU does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from models.small_lms import write_lm
from pagellm.config import resolve
from pagellm.errors import UsageError
from pagellm.models.device import device_for, device_of
from pagellm.models.reward_files import load_rewards
from pagellm.models.run import Run, load_run
from pagellm.models.storage import sha256
from second_device import Elsewhere, second_device
from tiny_run import train
from training.device_runs import close_figures, composed, learned, trained

if torch.cuda.is_available():
    pytest.skip("a device for tests cannot stand beside a GPU, see test_gpu", allow_module_level=True)
backend = pytest.importorskip("torch.utils.backend_registration")
if not hasattr(backend, "_setup_privateuseone_for_python_backend"):
    pytest.skip("this torch cannot make a device of Python code", allow_module_level=True)

DEVICE = second_device()  # while tests are collected: the first gradient of a process counts the devices that there are


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


def test_a_run_goes_on_there_to_the_bit_and_is_renewed(tiny_shop: Path, there: Path, tmp_path: Path) -> None:
    told, slow = f"device={DEVICE}", "sft.checkpoint_s=0"
    run = trained(tiny_shop, tmp_path / "run", "ppo", told, slow, stop=("refresh", 5))
    trained(tiny_shop, run, "ppo", told, slow, stop=("reward", 7))
    trained(tiny_shop, run, "ppo", told, slow, stop=("ppo", 2))
    same_files(there, trained(tiny_shop, run, "ppo", told, slow))
    close_figures(*(trained(tiny_shop, tmp_path / d, "renew", f"device={d}") for d in ("cpu", DEVICE)))


def test_pages_are_those_of_the_cpu_where_the_run_is_opened_there(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, numbers = composed(there)
    monkeypatch.setenv("PAGELLM_DEVICE", "cpu")
    assert device_of(load_run(there).policy) == torch.device("cpu")
    same, close = composed(there)
    assert items == same
    assert numbers == pytest.approx(close, rel=1e-4, abs=2e-4)


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
    with pytest.raises(UsageError, match="device 'meta' of the setting device cannot be used here"):
        device_for(resolve("tiny", ["device=meta"]))  # torch knows it, and no number comes back from it
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
