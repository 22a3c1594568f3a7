"""Symmetric tensors: how far they are from it, and what is left of them without their repetitions.

Kept are the entries with ascending indices: those of an order-k derivative (n,)*k with
i_1 <= i_2 <= … <= i_k, in lexicographic order, C(n+k-1, k) of them; of a matrix the upper triangle
row by row.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from math import comb

import torch
from torch import Tensor


def packed_size(n: int, order: int) -> int:
    """Number of distinct entries of a symmetric tensor (n,) * order.

    Args:
        n: Length of every axis.
        order: Number of axes k.

    Returns:
        C(n+k-1, k).

    Examples:
        >>> packed_size(3, 2), packed_size(3, 3)
        (6, 10)
    """
    return comb(n + order - 1, order)


def pack(tensor: Tensor, order: int) -> Tensor:
    """Keep the entries with ascending indices.

    Args:
        tensor: (…,) + (n,) * order, taken to be symmetric in its last axes.
        order: Number of these axes k >= 1.

    Returns:
        (…, C(n+k-1, k)).

    Examples:
        >>> pack(torch.tensor([[1.0, 2.0], [2.0, 3.0]]), 2)
        tensor([1., 2., 3.])
    """
    kept = _kept(tensor.shape[-1], order).to(tensor.device)
    return tensor.flatten(-order).index_select(-1, kept)


def unpack(packed: Tensor, order: int) -> Tensor:
    """Fill a symmetric tensor from its distinct entries.

    Args:
        packed: (…, C(n+k-1, k)).
        order: Number of axes k >= 1.

    Returns:
        (…,) + (n,) * order.

    Raises:
        ValueError: There is no n to which so many entries belong.

    Examples:
        >>> unpack(torch.tensor([1.0, 2.0, 3.0]), 2)
        tensor([[1., 2.],
                [2., 3.]])
    """
    n = next(n for n in count(1) if packed_size(n, order) >= packed.shape[-1])
    if packed_size(n, order) != packed.shape[-1]:
        raise ValueError(
            f"{packed.shape[-1]} is not the number of distinct entries of a symmetric tensor of "
            f"order {order}; expected one such as {packed_size(n, order)}"
        )
    places = _places(n, order).to(packed.device)
    return packed.index_select(-1, places).reshape(*packed.shape[:-1], *(n,) * order)


def symmetry_residual(level: Tensor, order: int) -> float | None:
    """How far an order-k derivative is from symmetric: the worst over the finite points.

    Args:
        level: (B, …) + (n,) * k.
        order: k.

    Returns:
        max|H - H^T| / max|H|; None below order 2, and where no point is finite.
    """
    if order < 2 or level.numel() == 0:
        return None
    residuals = asymmetry(level, order)
    finite = residuals[residuals.isfinite()]
    return float(finite.max()) if len(finite) else None


def asymmetry(level: Tensor, order: int) -> Tensor:
    """How far an order-k derivative is from symmetric, point by point.

    Args:
        level: (B, …) + (n,) * k with k >= 2.
        order: k.

    Returns:
        (B,) max|H - H^T| / max|H|, the worst over exchanges of neighbouring indices, which make
        all others; NaN where an entry is not finite.
    """
    size = level.abs().flatten(1).amax(dim=1).clamp_min(torch.finfo(level.dtype).tiny)
    worst = torch.zeros_like(size)
    for axis in range(1, order):
        difference = level - level.transpose(-axis, -axis - 1)
        worst = torch.maximum(worst, difference.abs().flatten(1).amax(dim=1))
    return worst / size


@lru_cache(maxsize=8)
def _kept(n: int, order: int) -> Tensor:
    """Where the distinct entries lie in the flattened tensor, int64."""
    indices = torch.combinations(torch.arange(n), order, with_replacement=True)
    return _flat(indices.reshape(-1, order), n)


@lru_cache(maxsize=8)
def _places(n: int, order: int) -> Tensor:
    """For every entry of the flattened tensor, which of the distinct entries it is, int64."""
    grid = torch.cartesian_prod(*[torch.arange(n)] * order).reshape(-1, order)
    found = torch.empty(n**order, dtype=torch.int64)
    kept = _kept(n, order)
    found[kept] = torch.arange(len(kept))
    return found[_flat(grid.sort(dim=1).values, n)]


def _flat(indices: Tensor, n: int) -> Tensor:
    weights = torch.tensor([n**power for power in reversed(range(indices.shape[1]))])
    return (indices * weights).sum(dim=1)
