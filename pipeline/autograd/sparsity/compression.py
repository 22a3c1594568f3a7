"""Coloured directions: a few sweeps from which every entry of a sparse derivative can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from pipeline.autograd.pattern import Pattern
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.sparsity.coloring import (
    color_both,
    color_columns,
    color_rows,
    color_star,
    is_alone,
)
from pipeline.autograd.sparsity.detection import detect

NEGLIGIBLE = 0.5  # of all directions: more are hardly fewer
SMALL = 8  # variables; below there is nothing to gain


@dataclass(frozen=True, eq=False)
class Compression:
    """How a matrix (m, n) is compressed, and read again.

    Attributes:
        pattern: Of the matrix, or of the tensor whose entries are those of the matrix.
        columns: Colour of each column, (n,), -1 for none: the sum over those of one colour is
            evaluated in one forward sweep.
        rows: Colour of each row, (m,), in one backward sweep.
        index: Where each entry lies in (colours of columns, m) followed by (colours of rows, n), flattened.
    """

    pattern: Pattern
    columns: Tensor
    rows: Tensor
    index: Tensor

    @cached_property
    def forward(self) -> int:
        """Number of forward sweeps."""
        return _count(self.columns)

    @cached_property
    def backward(self) -> int:
        """Number of backward sweeps."""
        return _count(self.rows)

    @property
    def directions(self) -> int:
        """Number of all sweeps."""
        return self.forward + self.backward


def compress(request: Request, mode: str) -> tuple[Compression, ...]:
    """Colour the pattern of a request for a mode.

    Args:
        request: What is evaluated.
        mode: From the outermost level on, as routes spell it: ``fwd`` by columns, ``rev`` by rows,
            ``fwd_and_rev`` by both; Hessians of scalars by columns that mirror rows.

    Returns:
        The compressions of the order at which derivatives are matrices and of those above it. There
        the matrix has a row for each entry that was read one order below.

    Raises:
        RefusedError: There is no pattern, or it takes nearly as many directions as there are.
    """
    side = mode.rsplit("_over_", 1)[-1] if request.output_shape else "symmetric"
    m, n = (request.m, request.n) if request.output_shape else (request.n, request.n)
    most = {"rev": m, "fwd_and_rev": min(m, n)}.get(side, n)
    if request.pattern is None and min(m, n) < SMALL:
        raise RefusedError(f"a {m} x {n} matrix is too small for a pattern to pay")
    found = _read(known_pattern(request), side, request.sparse_order - request.matrix_order)
    directions = max(step.directions for step in found)
    if request.pattern is None and directions > NEGLIGIBLE * most:
        raise RefusedError(f"its pattern takes {directions} directions of {most}")
    return found


@lru_cache(maxsize=4)
def known_pattern(request: Request) -> Pattern:
    """The pattern that a request gives, or that its function has.

    Args:
        request: What is evaluated.

    Returns:
        The pattern.
    """
    if request.pattern is not None:
        return request.pattern
    g, z = request.at(request.example)
    return detect(g, z, request.sparse_order, held=request.example)


def seeds(colors: Tensor, count: int, chunk: int, like: Tensor) -> Iterator[Tensor]:
    """Sums of unit vectors of one colour.

    Args:
        colors: Colour of each entry, (n,), -1 for none.
        count: Number of colours.
        chunk: Directions per block.
        like: Gives dtype and device.

    Yields:
        Blocks (c, n) with c <= chunk.
    """
    for start in range(0, count, chunk):
        stop = min(start + chunk, count)
        # made here, so that what functionalises a trace sees it
        numbers = torch.arange(start, stop, device=like.device)
        yield (colors.to(like.device) == numbers[:, None]).to(like.dtype)


def _count(colors: Tensor) -> int:
    return int(colors.max()) + 1 if len(colors) else 0


@lru_cache(maxsize=8)
def _read(pattern: Pattern, side: str, above: int) -> tuple[Compression, ...]:
    if above == 0:
        return (_matrix(pattern, side),)
    # entries of the order below that leave no trace in this one need not be told apart
    before, row = torch.unique(pattern.rows, return_inverse=True)
    below = Pattern.of_flat(before, pattern.shape[:-1])
    matrix = Pattern((below.nnz, pattern.shape[-1]), row, pattern.columns)
    step = replace(_matrix(matrix, "fwd"), pattern=pattern)
    return (*_read(below, side, above - 1), step)


def _matrix(pattern: Pattern, side: str) -> Compression:
    m, n = pattern.shape
    none = {"rows": torch.full((m,), -1), "columns": torch.full((n,), -1)}
    if side == "symmetric":
        colors = color_star(pattern)
        alone = is_alone(pattern, colors)
        row = torch.where(alone, pattern.rows, pattern.columns)
        column = torch.where(alone, pattern.columns, pattern.rows)
        return Compression(pattern, colors, none["rows"], colors[column] * m + row)
    if side == "fwd":
        colors = color_columns(pattern)
        index = colors[pattern.columns] * m + pattern.rows
        return Compression(pattern, colors, none["rows"], index)
    if side == "rev":
        colors = color_rows(pattern)
        index = colors[pattern.rows] * n + pattern.columns
        return Compression(pattern, none["columns"], colors, index)
    columns, rows = color_both(pattern)
    by_column = columns[pattern.columns] * m + pattern.rows
    by_row = _count(columns) * m + rows[pattern.rows] * n + pattern.columns
    return Compression(
        pattern, columns, rows, torch.where(is_alone(pattern, columns), by_column, by_row)
    )
