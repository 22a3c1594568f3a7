"""Full precision of float32 products, whatever the process has been set to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.backends import cuda

from pipeline.autograd.functions.following import Follow, tensors_in
from pipeline.autograd.functions.half_precision import PRECISIONS, Precision
from pipeline.autograd.request import Request

_REDUCTIONS = (
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
)
_ATTENTION: Any = (
    (cuda.math_sdp_enabled, cuda.enable_math_sdp),
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 in float32 inside the block: no TF32, no bfloat16, no reduced sums.

    Attention is computed in its parts: the derivative of the fused one has no derivative.

    torch takes TF32 in convolutions on a GPU unless it is told otherwise, and in products where
    the user has allowed it: ten bits of a mantissa, in derivatives that are meant to be compared.
    """
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.allow_tf32
    products, set_products = _products()
    reductions = {name: getattr(matmul, name) for name in _REDUCTIONS}
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for name in _REDUCTIONS:
        setattr(matmul, name, False)
    attention = [enabled() for enabled, _ in _ATTENTION]
    for (_, enable), value in zip(_ATTENTION, (True, False, False, False), strict=True):
        enable(value)
    try:
        yield
    finally:
        for (_, enable), value in zip(_ATTENTION, attention, strict=True):
            enable(value)
        for name, value in reductions.items():
            setattr(matmul, name, value)
        torch.backends.cudnn.allow_tf32 = convolutions
        set_products(products)


def _products() -> tuple[str, Callable[[str], None]]:
    """The precision of products, by the interface with which the user has set it."""
    try:
        return torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision
    except RuntimeError:  # by the newer one: torch refuses to answer the older question
        matmul = torch.backends.cuda.matmul
        return matmul.fp32_precision, lambda value: setattr(matmul, "fp32_precision", value)


def runs_in_float64(request: Request, points: Tensor) -> bool:
    """Tell whether a function can be evaluated in float64.

    Args:
        request: What is evaluated.
        points: (P, d) of any dtype.

    Returns:
        Whether it takes such a point, and gives such a value.
    """
    if points.dtype == torch.float64:
        return True
    try:
        return request.f(points[0].to(torch.float64)).dtype == torch.float64
    except Exception:  # a function with float32 weights refuses float64 in its own way
        return False


def half_inside(request: Request, point: Tensor) -> Precision | None:
    """Find out whether a function calculates in half precision, whatever it is given.

    Args:
        request: What is evaluated.
        point: Where, (d,), of any dtype.

    Returns:
        The least precise of what it calculates in, where that is half precision; else None.
    """
    found: set[torch.dtype] = set()

    def notice(name: str, args: Any, options: Any) -> None:
        found.update(each.dtype for each in tensors_in(args) if not follow.is_held(each))

    g, z = request.at(point)
    z = z.clone()
    follow = Follow((z,), notice)
    with torch.no_grad(), follow:
        g(z)
    halves = [each for each in PRECISIONS.values() if each.is_half and each.evaluated in found]
    return max(halves, key=lambda precision: precision.epsilon, default=None)


def as_calculated(request: Request, point: Tensor) -> Request:
    """Expect no more of a function than the precision in which it calculates.

    Args:
        request: What is evaluated.
        point: Where it is looked at, (d,).

    Returns:
        The request; another one where the function calculates in less than it is asked for.
    """
    half = half_inside(request, point)
    if half is None or half.epsilon <= request.precision.epsilon:
        return request
    return replace(request, evaluated_in=half)
