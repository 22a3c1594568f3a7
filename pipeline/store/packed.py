"""Symmetric tensors that are stored without their repetitions, and how they look in full.

Stored are the entries with ascending indices i_1 <= i_2 <= … <= i_k, in lexicographic order. The
dimension along them says where each lies in the flattened tensor, as CF-1.11 describes it in
section 8.2, "Lossless compression by gathering".
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKED = "_packed"  # at the end of the name of a dataset


def packed_dimension(order: int) -> str:
    """Name of the dimension along the distinct entries of derivatives of an order."""
    return f"packed_{order}"


def packed_size(n: int, order: int) -> int:
    """Number of distinct entries of a symmetric tensor with k axes of length n: C(n+k-1, k)."""
    return comb(n + order - 1, order)


def packed_index(n: int, order: int) -> NDArray[Any]:
    """Where the distinct entries lie in the flattened tensor.

    Args:
        n: Length of every axis.
        order: Number of axes k.

    Returns:
        Ascending, (C(n+k-1, k),), int32 where that is enough, else int64.

    Examples:
        >>> packed_index(3, 2)
        array([0, 1, 2, 4, 5, 8], dtype=int32)
    """
    kept = np.zeros(1, np.int64)
    last = np.zeros(1, np.int64)
    for _ in range(order):  # append every index that is not below the last one
        lengths = n - last
        start = np.repeat(np.cumsum(lengths) - lengths, lengths)
        added = np.arange(lengths.sum()) - start + np.repeat(last, lengths)
        kept, last = np.repeat(kept, lengths) * n + added, added
    return kept.astype(np.int32 if n**order < 2**31 else np.int64)


@lru_cache(maxsize=8)
def places(n: int, order: int) -> NDArray[np.int64]:
    """For every entry of the flattened tensor, which of the distinct entries it is.

    Args:
        n: Length of every axis.
        order: Number of axes k.

    Returns:
        (n**k,).
    """
    grid = np.indices((n,) * order).reshape(order, -1)
    weights = n ** np.arange(order - 1, -1, -1, dtype=np.int64)
    sought = weights @ np.sort(grid, axis=0)
    found: NDArray[np.int64] = np.searchsorted(packed_index(n, order), sought)
    found.flags.writeable = False
    return found
