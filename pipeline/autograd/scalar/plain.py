"""Whether the derivative of a function follows from the operations it is made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipeline.autograd.request import RefusedError

BUILT_IN = re.compile(r"(\w+Backward\d+|torch::autograd::(AccumulateGrad|CopySlices))$")

STOPS = {
    torch._C._set_grad_enabled: "no_grad or set_grad_enabled",
    torch.detach: "detach()",
    Tensor.detach: "detach()",
    Tensor.detach_: "detach_()",
    Tensor.data.__get__: ".data",  # type: ignore[attr-defined]
}


def require_plain(f: Callable[[Tensor], Tensor], point: Tensor) -> None:
    """Refuse a function that stops or replaces torch's own derivative of some operation.

    A custom `autograd.Function` and a `no_grad` block leave no trace in the operations, so that
    whoever differentiates the operations would not see them.

    Args:
        f: Maps one point (n,) to a tensor.
        point: An example, (n,).

    Raises:
        RefusedError: It does.
    """
    x = point.detach().clone().requires_grad_()
    with torch.enable_grad(), _Watch() as watch:
        y = f(x)
    if watch.stopped:
        raise RefusedError(f"it stops gradients by {watch.stopped}")
    _require_built_in(y)


def require_own_derivatives(f: Callable[[Tensor], Tensor], point: Tensor) -> None:
    """Refuse a function that replaces torch's own derivative of some operation.

    Args:
        f: Maps one point (n,) to a tensor; it may have a backward pass of its own.
        point: An example, (n,).
    """
    x = point.detach().clone().requires_grad_()
    with torch.enable_grad():
        _require_built_in(f(x))


def _require_built_in(y: Tensor) -> None:
    seen: set[Any] = set()
    waiting = [y.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if not BUILT_IN.match(node.name()):
            raise RefusedError(f"it has a backward pass of its own: {node.name()}")
        waiting += [following for following, _ in node.next_functions]


class _Watch(TorchFunctionMode):
    """Notices where gradients are stopped."""

    stopped = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.stopped = self.stopped or STOPS.get(func, "")
        return func(*args, **(kwargs or {}))
