"""Where a call that counts, sorts into bins or takes the largest of a window goes over to another result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Condition = Callable[..., Tensor]


def _nowhere() -> Tensor:
    return torch.zeros((), dtype=torch.bool)


def _whole(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return x == x.round() if x.is_floating_point() else _nowhere()


def _cast(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """To whole numbers, or to truth values."""
    dtypes = [each for each in (*args, *options.values()) if isinstance(each, torch.dtype)]
    if not dtypes or dtypes[0].is_floating_point or dtypes[0].is_complex:
        return _nowhere()
    return x == 0 if dtypes[0] == torch.bool else _whole(x)


def _quotient(x: Any, divisor: Any, *args: Any, **options: Any) -> Tensor:
    rounded = options.get("rounding_mode") is not None
    return _whole(torch.div(x, divisor)) if rounded else _nowhere()


def _borders(borders: Tensor, x: Any, *args: Any, **options: Any) -> Tensor:
    return torch.as_tensor(torch.as_tensor(x)[..., None] == borders)


def _bins(x: Tensor, borders: Tensor, *args: Any, **options: Any) -> Tensor:
    return _borders(borders, x)


def _quantile(x: Tensor, q: Any, dim: int | None = None, *args: Any, **options: Any) -> Tensor:
    values, along = (x.reshape(-1), 0) if dim is None else (x, dim)
    return values.sort(dim=along).values.diff(dim=along) == 0


def _pairs(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return torch.pdist(x) == 0


def _nuclear(x: Tensor, *args: Any, **options: Any) -> Tensor:
    is_nuclear = options.get("ord", args[0] if args else "fro") == "nuc"
    sizes: Tensor = torch.linalg.svdvals(x) if is_nuclear else torch.linalg.vector_norm(x)
    return sizes == 0


def _window(name: str) -> Condition:
    """Another entry of a window is the largest one where all are changed by rounding."""

    def condition(x: Tensor, *args: Any, **options: Any) -> Tensor:
        size, limits = x[0].numel(), torch.finfo(x.dtype)
        ramp = torch.linspace(0, 1, size, dtype=x.dtype, device=x.device).reshape(x.shape[1:])
        ramp = ramp * 4 * size * (limits.eps * x.abs().max()).clamp_min(limits.tiny)
        pool, options = getattr(torch.nn.functional, name), {**options, "return_indices": True}
        met: Tensor = pool(x + ramp, *args, **options)[1] != pool(x - ramp, *args, **options)[1]
        return met

    return condition


WINDOWS = """
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
"""
DISCRETE: dict[str, Condition] = {
    **{name: _window(name) for name in WINDOWS.split()},
    **dict.fromkeys(("long", "int", "short"), _whole),
    **dict.fromkeys(("to", "type"), _cast),
    **dict.fromkeys(("div", "divide"), _quotient),
    **dict.fromkeys(("quantile", "nanquantile"), _quantile),
    "searchsorted": _borders,
    "bucketize": _bins,
    "pdist": _pairs,
    "matrix_norm": _nuclear,
}
