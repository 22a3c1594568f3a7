"""A device of pretence: tensors that lie in this process' memory, and refuse to be mixed with the CPU's.

What computes on a GPU fails where one tensor of a call was left on the CPU. On machines without a GPU
nothing shows that; here every call of torch is looked at, by a backend in Python.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from pipeline.autograd.functions.zero_tensors import WITH_MEMORY

NAME = "gpu"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(NAME, 0)
MOVES = ("_to_copy", "copy_", "_local_scalar_dense")
MAY_INDEX = ("index", "_index", "_unsafe_index")  # by tensors of the CPU, as CUDA lets them


class Remote(Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Remote:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=DEVICE,
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """While active, tensors can be made on the device, or moved there."""

    def __enter__(self) -> Any:
        self._tensor, torch.tensor = torch.tensor, self._make
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.tensor = self._tensor

    def _make(self, data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made = self._tensor(data, **options)
        return made if device is None else made.to(device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _carry_out(func, args, kwargs or {})


def _carry_out(func: Any, args: Any, kwargs: Any) -> Any:
    name = func._overloadpacket.__name__
    tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
    remote = [each for each in tensors if isinstance(each, Remote)]
    others = [each for each in tensors if not isinstance(each, Remote)]
    mixes = any(each.ndim for each in others) or (others and name in ("stack", "cat"))
    if remote and mixes and name not in MOVES and not name.startswith(MAY_INDEX):
        raise RuntimeError(f"tensors of {DEVICE} and of the CPU in one call of {func}")
    device = kwargs.get("device")
    there = bool(remote) if device is None else torch.device(device).type == NAME
    if device is not None:
        kwargs = {**kwargs, "device": "cpu"}
    args_here, kwargs_here = tree_map(_inner, (args, kwargs))
    result = WITH_MEMORY.get(func, func)(*args_here, **kwargs_here)
    if name.endswith("_") and not name.endswith("__"):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    return tree_map(_there, result) if there else result


def _there(value: Any) -> Any:
    return Remote(value) if isinstance(value, Tensor) else value


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Remote) else value
