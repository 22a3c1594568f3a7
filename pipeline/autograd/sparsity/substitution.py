"""Entries of a symmetric matrix by substitution: two colours induce trees, read from their leaves inwards.

Source: A. H. Gebremedhin, A. Tarafdar, A. Pothen, A. Walther, Efficient computation of sparse Hessians
using coloring and automatic differentiation (INFORMS Journal on Computing 21, 2009), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.autograd.pattern import Pattern
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.sparsity.coloring import color_acyclic
from pipeline.autograd.sparsity.compression import Compression, compress, known_pattern

MOST_LOST = 1e-9  # of an entry, at most: nine digits are its own
MOST_LEVELS = 256  # each takes a few calls
WORTHWHILE = 0.75  # of a star's directions: more are hardly fewer
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Substitution:
    """How entries are read that share their sums.

    A place is where a vertex meets a colour, in (colours, n) flattened: it holds the sum of the
    entries from the vertex to its neighbours of this colour.

    Attributes:
        compression: The colours; its index is the place that holds an entry when all others are subtracted.
        levels: Places that hold one entry by then, and from where each is subtracted, level by level.
        inner: Places that others were subtracted from and that hold an entry in the end, (E,).
        roots: Where the tree of each of these ends, (E,): nothing but rounding is left there.
    """

    compression: Compression
    levels: tuple[tuple[Tensor, Tensor], ...]
    inner: Tensor
    roots: Tensor

    def solve(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract the entries from one another.

        What is lost is estimated from above for every entry: a few units of rounding of all entries
        that were subtracted on the way to it, and what is left at the root of its tree, which is
        more than rounding where a sum is less precise than its entries tell. Errors of sums that
        cancel until the root is reached are not seen.

        Args:
            sums: (B, colours * n).

        Returns:
            What is left at each place, (B, colours * n), and whether every entry of a row keeps nine
            digits of its own, bool (B,); it does not where one of them is not finite.
        """
        left = sums.t().contiguous()  # the points of a place side by side
        behind = torch.zeros_like(left)
        for leaves, others in self.levels:
            entries = left[leaves]
            left.index_add_(0, others, entries, alpha=-1)
            behind.index_add_(0, others, behind[leaves] + entries.abs())
        rounding = 2 * torch.finfo(left.dtype).eps * behind[self.inner]
        lost = rounding + left[self.roots].abs()
        return left.t(), (lost <= MOST_LOST * left[self.inner].abs()).all(0)


def require_fewer(request: Request) -> Substitution:
    """Take what takes clearly fewer directions than a star colouring, and not too many levels.

    Args:
        request: What is evaluated; its highest order is the Hessian of a scalar.

    Returns:
        What `substitute` gives.

    Raises:
        RefusedError: There is no pattern, or a star colouring takes hardly more directions, or the
            trees are too deep.
    """
    (star,) = compress(request, "fwd_over_rev")
    found = substitute(known_pattern(request))
    directions = found.compression.directions
    if directions > WORTHWHILE * star.directions:
        raise RefusedError(
            f"it takes {directions} directions where a star colouring takes {star.directions}"
        )
    if len(found.levels) > MOST_LEVELS:
        raise RefusedError(f"its trees have {len(found.levels)} levels, more than {MOST_LEVELS}")
    return found


@lru_cache(maxsize=8)
def substitute(pattern: Pattern) -> Substitution:
    """Colour a symmetric matrix acyclically, and take the leaves off its trees level by level.

    Args:
        pattern: Symmetric, (n, n).

    Returns:
        The colours, and how entries follow from their sums.
    """
    colors, n = color_acyclic(pattern), pattern.shape[1]
    above, below = pattern.rows < pattern.columns, pattern.rows > pattern.columns
    u, v = pattern.rows[above], pattern.columns[above]
    ends = torch.stack([colors[v] * n + u, colors[u] * n + v]).numpy()
    index, none = colors[pattern.columns] * n + pattern.rows, torch.full((n,), -1)
    compression = Compression(pattern, colors, none, index)
    inwards = np.arange(n * max(compression.directions, 1))
    left_at, levels = _take_leaves(ends, inwards)
    index[above] = torch.from_numpy(left_at)
    index[below] = index[pattern.exchanged(-1)][below]
    others = inwards[left_at]
    inner = left_at[np.isin(left_at, others)]
    return Substitution(
        compression, levels, *map(torch.from_numpy, (inner, _ends_of(inwards)[inner]))
    )


def _take_leaves(ends: Places, inwards: Places) -> tuple[Places, tuple[tuple[Tensor, Tensor], ...]]:
    """Where each entry is left in the end, and the levels; notes the way inwards from each such place.

    Args:
        ends: The two places that hold each entry, (2, entries).
        inwards: Of each place itself; changed where an entry is left.

    Returns:
        The place of each entry, (entries,), and the places of each level: leaves, and their neighbours.
    """
    holds = np.bincount(ends.reshape(-1), minlength=len(inwards))
    left_at, levels = np.empty(ends.shape[1], np.int64), []
    rest = np.arange(ends.shape[1])
    while len(rest):
        alone = holds[ends[:, rest]] == 1
        taken, rest, first = rest[alone.any(0)], rest[~alone.any(0)], alone[0, alone.any(0)]
        leaves, others = np.where(first, ends[:, taken], ends[::-1, taken])
        left_at[taken], inwards[leaves] = leaves, others
        np.subtract.at(holds, others, 1)
        levels.append((torch.from_numpy(leaves), torch.from_numpy(others)))
    return left_at, tuple(levels)


def _ends_of(inwards: Places) -> Places:
    """Where the way inwards ends, from every place: twice as far with every round."""
    while not np.array_equal(further := inwards[inwards], inwards):
        inwards = further
    return inwards
