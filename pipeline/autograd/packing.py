"""Symmetric tensors without their repetitions: only entries with ascending indices, in order.

The entries of an order-k derivative (n,)*k with i_1 <= i_2 <= … <= i_k, in lexicographic order of
(i_1, …, i_k): C(n+k-1, k) of them, for a matrix its upper triangle row by row.
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

    Example:
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

    Example:
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

    Example:
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
