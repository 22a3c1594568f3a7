"""Operations in terms of simpler ones, where the derivatives of these are torch's own.

A decomposition need not have the derivative that torch states for the whole operation: at a kink
of |x| it does not. Those used here are tested for it, each at special points (tests/autograd/scalar/test_scalar.py);
an operation that is neither here nor known by itself is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.request import RefusedError

# PyTorch's own decompositions that can be used as they are
OF_TORCH = """
    addcdiv addcmul deg2rad frac hardshrink hardsigmoid hardswish leaky_relu lerp
    linalg_cross logit mish mse_loss nan_to_num native_layer_norm rad2deg silu sinc softplus
    softshrink std threshold trace xlogy
"""


def table() -> dict[Any, Callable[..., Any]]:
    """All decompositions, by overload, as `make_fx` takes them."""
    from torch._decomp import decomposition_table

    aten = torch.ops.aten
    of_torch = {
        overload: decomposition
        for overload, decomposition in decomposition_table.items()
        if str(getattr(overload, "overloadpacket", "")).removeprefix("aten.") in OF_TORCH.split()
    }
    return of_torch | {
        aten.celu.default: lambda x, alpha=1.0: _elu(x, alpha, 1, 1 / alpha),
        aten.dist.default: _dist,
        aten.elu.default: _elu,
        aten.gelu.default: _gelu,
        aten.hardtanh.default: _hardtanh,
        aten.huber_loss.default: _huber,
        aten.hypot.default: _hypot,
        aten.linalg_vector_norm.default: _vector_norm,
        aten.log_sigmoid_forward.default: _log_sigmoid,
        aten.smooth_l1_loss.default: _smooth_l1,
        aten.var.correction: _var,
        aten.var_mean.correction: _var_mean,
    }


def _dist(a: Tensor, b: Tensor, p: float = 2) -> Tensor:
    return _vector_norm(a - b, p)


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    if alpha * input_scale != 1:
        raise RefusedError("the derivative of elu with a kink has a value of its own there")
    return scale * torch.where(x < 0, alpha * torch.expm1(x * input_scale), x)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return x * 0.5 * (1 + torch.erf(x * 0.5**0.5))
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def _hardtanh(x: Tensor, low: float = -1, high: float = 1) -> Tensor:
    return torch.where(x <= low, low, torch.where(x >= high, high, x))


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a * a + b * b)


def _huber(x: Tensor, target: Tensor, reduction: int = 1, delta: float = 1.0) -> Tensor:
    d = x - target
    outside = delta * (d.abs() - 0.5 * delta)
    return _reduced(torch.where(d.abs() < delta, 0.5 * d * d, outside), reduction)


def _smooth_l1(x: Tensor, target: Tensor, reduction: int = 1, beta: float = 1.0) -> Tensor:
    d = x - target
    if beta == 0:
        return _reduced(d.abs(), reduction)
    return _reduced(
        torch.where(d.abs() < beta, d * d * (0.5 / beta), d.abs() - 0.5 * beta), reduction
    )


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return loss.mean() if reduction == 1 else loss.sum() if reduction == 2 else loss


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """And a buffer that nothing reads."""
    z = torch.where(x < 0, x, -x).exp()
    return torch.where(x < 0, x, 0.0) - torch.log1p(z), x.new_empty(0)


def _vector_norm(
    x: Tensor, p: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    dims = list(range(x.ndim)) if dim is None else dim
    if p == 2:
        return torch.sqrt((x * x).sum(dims, keepdim))
    if p == 1:
        return x.abs().sum(dims, keepdim)
    if p in (float("inf"), float("-inf")):
        return x.abs().amax(dims, keepdim) if p > 0 else x.abs().amin(dims, keepdim)
    if p == 0:
        return (x != 0).to(x.dtype).sum(dims, keepdim)
    return (x.abs() ** p).sum(dims, keepdim) ** (1 / p)


def _var(x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    dims = list(range(x.ndim)) if dim is None or dim == [] else dim
    count = math.prod(x.shape[axis] for axis in ([dims] if isinstance(dims, int) else dims))
    d = x - x.mean(dims, keepdim=True)
    return (d * d).sum(dims, keepdim) / (count - (1 if correction is None else correction))


def _var_mean(
    x: Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    dims = list(range(x.ndim)) if dim is None or dim == [] else dim
    return _var(x, dims, correction=correction, keepdim=keepdim), x.mean(dims, keepdim)
