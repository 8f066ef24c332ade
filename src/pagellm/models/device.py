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
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        source = f"the variable {VARIABLE}" if told else "the setting device"
        raise UsageError(
            f"The device {told or name!r} of {source} cannot be used here: {str(problem).splitlines()[0]} Use cpu, or cuda with a GPU and "
            f"a CUDA build of torch. A run that was trained on a GPU is opened without one by {VARIABLE}=cpu."
        ) from problem
    return device


def device_of(net: nn.Module) -> torch.device:
    """The device of a network's weights."""
    return next(net.parameters()).device


def tensor_for(net: nn.Module, array: np.ndarray) -> Tensor:
    """An array as a tensor beside the network's weights; on the CPU without a copy."""
    return torch.from_numpy(array).to(device_of(net))
