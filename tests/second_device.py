"""A second device for machines that have none: tensors that live "elsewhere", where nothing from the CPU may be mixed in.

It keeps its numbers on the CPU and refuses what a GPU would refuse: an operation on tensors of both places (but for indexes and numbers),
and to be read as an array. So what runs here runs on a GPU, as far as devices go.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree

NAME = "elsewhere:0"
_MAY_MIX = ("aten.index.", "aten.index_put", "aten._index_put", "aten._unsafe_index", "aten._to_copy")


class Elsewhere(torch.Tensor):
    """A tensor whose numbers are those of a tensor on the CPU."""

    there: torch.Tensor

    @staticmethod
    def __new__(cls, there: torch.Tensor) -> Elsewhere:
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls, there.shape, strides=there.stride(), storage_offset=there.storage_offset(), dtype=there.dtype, device=NAME
            )
        made.there = there
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return _run(op, *args, **(kwargs or {}))

    __torch_function__ = torch._C._disabled_torch_function_impl


def _there(x: Any) -> Any:
    """What an argument is on the CPU."""
    if isinstance(x, Elsewhere):
        return x.there
    return torch.device("cpu") if isinstance(x, torch.device) else x


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    name = str(op)
    if name.startswith(("aten._copy_from", "aten.copy_.")):  # (from, to) and (to, from)
        begin, end = args[:2] if name.startswith("aten._copy_from") else args[1::-1]
        _there(end).copy_(_there(begin))
        return end
    flat, spec = pytree.tree_flatten((args, kwargs))
    both = [x for x in flat if isinstance(x, torch.Tensor) and (isinstance(x, Elsewhere) or x.ndim)]
    if len({type(x) for x in both}) > 1 and not name.startswith(_MAY_MIX):
        shapes = ", ".join(f"{tuple(x.shape)} {'elsewhere' if isinstance(x, Elsewhere) else 'on the CPU'}" for x in both)
        raise RuntimeError(f"{name} on tensors of two devices: {shapes}")
    flat_there = [_there(x) for x in flat]
    args_there, kwargs_there = pytree.tree_unflatten(flat_there, spec)
    with torch.inference_mode(False):
        out = op(*args_there, **kwargs_there)
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == "cpu":
        return out
    given = {id(there): x for there, x in zip(flat_there, flat, strict=True) if isinstance(there, torch.Tensor)}
    return pytree.tree_map_only(torch.Tensor, lambda t: given[id(t)] if id(t) in given else Elsewhere(t), out)


@cache
def second_device() -> str:
    """Its name, for `device`; made at the first call. Lives as long as the process."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME.split(":")[0])
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    _LIBRARIES.append(library)
    return NAME


_LIBRARIES: list[torch.library.Library] = []  # a library that is let go of takes its kernels along
