"""Where a function loses its gradient: what a user looks for after a disagreement."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from pipeline.autograd.functions.following import tensors_in
from pipeline.autograd.request import Request

NUMBERS = ("item", "tolist", "numpy", "__float__", "__array__")  # what they return is no tensor

NO_GRAD = "torch.no_grad or a custom autograd.Function"  # whose forward pass has no gradient either


class _Watch(TorchFunctionMode):
    """Collects calls that take a tensor with a gradient and return one without."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(tensor.requires_grad for tensor in _floating((args, kwargs))):
            name = _name(func)
            plain = [tensor for tensor in _floating(result) if not tensor.requires_grad]
            if plain and not torch.is_grad_enabled():
                name = NO_GRAD
            if plain or name.rpartition(".")[2] in NUMBERS:
                self.lost[name] = None
        return result


def _floating(values: Any) -> list[Tensor]:
    return [
        tensor for tensor in tensors_in(values) if tensor.is_floating_point() or tensor.is_complex()
    ]


def _name(func: Any) -> str:
    name = resolve_name(func) or getattr(func, "__name__", str(func))
    return str(name).removesuffix(".__get__")


def lost_gradients(request: Request, point: Tensor) -> tuple[str, ...]:
    """Find the calls at which a function loses its gradient.

    Args:
        request: What is differentiated.
        point: (d,), where it can be evaluated.

    Returns:
        Their names, in the order of the calls; `NO_GRAD` for everything inside such a block.
    """
    g, z = request.at(point)
    with torch.enable_grad(), _Watch() as watch:
        try:
            g(z.detach().clone().requires_grad_())
        except Exception:  # it may look for a gradient itself; what was seen until then counts
            return tuple(watch.lost)
    return tuple(watch.lost)
