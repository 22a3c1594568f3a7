"""Places beside a point, and directions through it in which every input changes."""

from __future__ import annotations

import torch
from torch import Tensor


def random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random directions whose entries all matter: of size 0.5 to 1, of either sign.

    Args:
        shape: Any shape.
        generator: Source of randomness, on the CPU.

    Returns:
        float64 of that shape.
    """
    size = 0.5 + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    sign = torch.randint(0, 2, shape, generator=generator, dtype=torch.float64) * 2 - 1
    return size * sign


def beside(point: Tensor, points: Tensor, generator: torch.Generator) -> Tensor:
    """A place close to a point: kinks often lie on the points of a grid.

    Args:
        point: (n,).
        points: (P, n): they give the scale of every input.
        generator: Source of randomness, on the CPU.

    Returns:
        (n,).
    """
    signs = random_signs(tuple(point.shape), generator).to(point.device)
    return point + 1e-3 * scale_of(point, points) * signs


def scale_of(point: Tensor, points: Tensor) -> Tensor:
    """What every input changes by: its size, or how far the points of the grid are apart.

    Args:
        point: (n,).
        points: (P, n).

    Returns:
        (n,), positive.
    """
    scale = torch.maximum(point.abs(), (points.amax(dim=0) - points.amin(dim=0)).abs())
    return torch.where(scale > 0, scale, torch.ones_like(scale))
