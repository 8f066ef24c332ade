"""Where networks live: on the CPU, on a GPU. Takes a configuration, networks and arrays; knows no run and no page.

Arrays of the log, candidates and rules stay in numpy; a tensor goes to the device of the network that reads it, and its answer comes back.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from pagellm.config import RunConfig
from pagellm.errors import UsageError

VARIABLE = "PAGELLM_DEVICE"
"""Environment variable that takes the place of a run's own setting: what was trained on a GPU may be served from a CPU."""


def device_for(config: RunConfig) -> torch.device:
    """The device that networks of this configuration are put on. Raises UsageError where this machine or its torch has none such."""
    told, name = os.environ.get(VARIABLE, ""), config.device
    try:
        device = torch.device(told or name)
        torch.zeros(1, device=device).cpu()  # whether numbers come back, too
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        source, why = f"the variable {VARIABLE}" if told else "the setting device", str(problem).splitlines()[0].rstrip(".")
        raise UsageError(
            f"The device {told or name!r} of {source} cannot be used here: {why}. Use cpu, or cuda with a GPU and a CUDA build of torch. "
            f"A run that was trained on a GPU is opened without one by {VARIABLE}=cpu."
        ) from problem
    return device


def device_of(net: nn.Module) -> torch.device:
    """The device of a network's weights."""
    return next(net.parameters()).device


def tensor_for(net: nn.Module, array: np.ndarray) -> Tensor:
    """An array as a tensor beside the network's weights; on the CPU without a copy."""
    return torch.from_numpy(array).to(device_of(net))
