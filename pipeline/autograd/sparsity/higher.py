"""Patterns of derivatives of order three and more: they follow from those of the Hessians."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.autograd.sparsity.sets import TooManyError

MOST_ENTRIES = 1 << 24  # of a pattern: 128 MB of positions


def lifted(flat: Tensor, n: int, order: int) -> Tensor:
    """Positions in derivatives of an order that can be other than zero.

    Where the second derivative by two inputs is zero everywhere, so is every higher one by these
    two and others: all pairs among the indices of an entry are entries of the Hessian.

    Args:
        flat: Ascending positions in the Hessians of the outputs, (m, n, n) flattened; symmetric.
        n: Number of inputs.
        order: Of the derivatives, 2 or more.

    Returns:
        Ascending positions in (m,) + (n,) * order flattened, int64.

    Raises:
        TooManyError: There are too many.
    """
    if not len(flat):
        return flat
    rows = flat // n
    columns = [rows % n, flat % n]
    output, last = rows // n, rows
    for _ in range(order - 2):
        last = output * n + columns[-1]
        starts, ends = torch.searchsorted(rows, last), torch.searchsorted(rows, last, right=True)
        counts = ends - starts
        total = int(counts.sum())
        if total > MOST_ENTRIES:
            raise TooManyError
        chosen = torch.repeat_interleave(torch.arange(len(last)), counts)
        offset = torch.arange(total) - (counts.cumsum(0) - counts)[chosen]
        added = flat[starts[chosen] + offset] % n
        output, columns = output[chosen], [column[chosen] for column in columns]
        joined = torch.ones(total, dtype=torch.bool)
        for column in columns[:-1]:
            pairs = (output * n + column) * n + added
            joined &= flat[torch.searchsorted(flat, pairs).clamp_max(len(flat) - 1)] == pairs
        output, added = output[joined], added[joined]
        columns = [*(column[joined] for column in columns), added]
    position = output
    for column in columns:
        position = position * n + column
    return position
