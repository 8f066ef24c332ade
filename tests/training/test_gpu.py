"""A run on a GPU, where there is one. What needs none of it is in `test_second_device`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pagellm.models.run import load_run
from training.device_runs import close_figures, composed, learned, trained


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_stage_learns_on_a_gpu_what_it_learns_on_the_cpu(tiny_shop: Path, tmp_path: Path) -> None:
    here = trained(tiny_shop, tmp_path / "here", "ppo")
    gpu = trained(tiny_shop, tmp_path / "gpu", "ppo", "device=cuda")
    close_figures(here, gpu, 1e-2, but="ppo")
    trained(tiny_shop, tmp_path / "stopped", "ppo", "device=cuda", stop=("ppo", 2))
    close_figures(here, trained(tiny_shop, tmp_path / "stopped", "ppo", "device=cuda"), 1e-2, but="ppo")
    assert load_run(gpu).policy.bias.is_cuda
    assert np.isfinite(composed(gpu)[1]).all()
    assert all(np.isfinite(figures).all() for figures in learned(gpu).values())
