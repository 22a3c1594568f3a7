"""Routes `coloured` and `coloured_compiled`: a few coloured directions in place of all, eager or compiled.

The entries of a sparse Jacobian or Hessian are read from products with sums of unit vectors that do
not disturb one another; those of a higher derivative from such products with the entries of the
derivative below it. What the pattern leaves out is not looked at: the comparison with the
reference, along random directions, is of the whole derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.autograd.constant_folding import fold_constants
from pipeline.autograd.cost import FORWARD_SECONDS, FUNC_SECONDS, Cost, count_eager
from pipeline.autograd.definitions.differentiation import Levels, differentiate
from pipeline.autograd.request import Evaluate, Request
from pipeline.autograd.routes.base import BOTH, Route
from pipeline.autograd.routes.compiled import (
    COMPILER_SECONDS,
    NODE_SECONDS,
    compile_batch,
    count_compiled,
)
from pipeline.autograd.sparsity.compression import Compression, compress, seeds

FIRST = ("fwd_over_rev",)  # of a Hessian


class ColouredRoute(Route):
    """Coloured directions by torch.func, eagerly, over a batch of points."""

    name: ClassVar[str] = "coloured"
    widest: ClassVar[int] = 1 << 16
    pointwise: ClassVar[bool] = False

    def modes(self, request: Request) -> tuple[str, ...]:
        """Columns, rows or both of a Jacobian; columns of a Hessian, and of every order above these."""
        above = request.sparse_order - request.matrix_order
        if request.keys[-1] != request.sparse_order:  # sums of entries come after whole derivatives
            return ()
        if above and request.pattern is None:
            return ()
        lowest = ("fwd", "rev", BOTH)[: 2 if above else 3] if request.output_shape else FIRST
        return tuple("fwd_over_" * above + mode for mode in lowest)

    def least_seconds(self, request: Request, mode: str) -> float:
        """Of loading forward mode; a pattern alone is found sooner."""
        return FORWARD_SECONDS if "fwd" in mode else FORWARD_SECONDS / 3

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations and bytes of one and of two points.

        Returns:
            The cost at the largest chunk that fits.
        """
        most = _most(compress(request, mode))
        return count_eager(
            lambda size: self.prepare(request, mode, size, 1),
            request.example[None],
            (chunk or most, chunk or 1),
            budget,
            FUNC_SECONDS,
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Colour the pattern, and compose the operator.

        Returns:
            The batch evaluation.
        """
        compressions = compress(request, mode)
        operator = compressed(request, compressions, chunk)

        def evaluate(points: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                levels = operator(points)
            return read(request, compressions[-1], [level.to(points.dtype) for level in levels])

        return evaluate


class ColouredCompiledRoute(Route):
    """The same directions as one graph, compiled by Inductor, seeds folded."""

    name: ClassVar[str] = "coloured_compiled"
    widest: ClassVar[int] = 1 << 12
    pointwise: ClassVar[bool] = False
    pads: ClassVar[bool] = True
    operation_seconds: ClassVar[float] = NODE_SECONDS

    def modes(self, request: Request) -> tuple[str, ...]:
        """As route `coloured`."""
        return ColouredRoute().modes(request)

    def least_seconds(self, request: Request, mode: str) -> float:
        """Of Inductor's start."""
        return COMPILER_SECONDS

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations of the graph, and the memory of the same transforms run eagerly.

        Returns:
            The cost.
        """
        compressions = compress(request, mode)
        return count_compiled(
            lambda size: compressed(request, compressions, size),
            request,
            _most(compressions),
            (chunk, budget),
            fold_constants,
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Compile for this batch size, or take it from the compiler's cache.

        Returns:
            The batch evaluation.
        """
        compressions = compress(request, mode)
        operator = compressed(request, compressions, _most(compressions))
        compiled = compile_batch(operator, request, batch, fold_constants)
        return lambda points: read(request, compressions[-1], compiled(points))


def compressed(request: Request, compressions: tuple[Compression, ...], chunk: int) -> Evaluate:
    """Lower orders as they are, and the highest one along coloured directions.

    Args:
        request: What is evaluated.
        compressions: The directions, of the lowest order first.
        chunk: Directions evaluated together.

    Returns:
        A function from points (B, d) to each order asked for, the highest one as (B, results).
    """
    lowest, *above = compressions

    def at_point(point: Tensor) -> Levels:
        g, z = request.at(point)
        below = differentiate(g, ("rev",) * (request.matrix_order - 1), chunk)
        along = _along(below, lowest, chunk)
        if not above:
            lower, results = along(z)
        else:
            wholes = differentiate(g, ("rev",) * max((0, *request.orders[:-1])), chunk)
            lower = wholes(z) if request.orders[:-1] else ()
            results = _above(lambda z: along(z)[1], compressions, chunk)(z)
        return (*(lower[order] for order in request.orders[:-1]), results)

    def evaluate(points: Tensor) -> tuple[Tensor, ...]:
        levels: tuple[Tensor, ...] = torch.func.vmap(at_point)(points)
        return levels

    return evaluate


def read(
    request: Request, compression: Compression, levels: tuple[Tensor, ...] | list[Tensor]
) -> tuple[Tensor, ...]:
    """Read the entries of the highest order.

    Args:
        request: What is evaluated.
        compression: Where they lie.
        levels: What `compressed` gives.

    Returns:
        Each order asked for: the highest one as (B, nnz) where a pattern is kept, else whole.
    """
    *lower, results = levels
    index = compression.index.to(results.device).expand(len(results), -1)
    values = results.gather(1, index)  # a third of the time of index_select
    if request.pattern is None:
        return *lower, compression.pattern.to_dense(values)
    return *lower, values


def _along(
    below: Callable[[Tensor], Levels], compression: Compression, chunk: int
) -> Callable[[Tensor], tuple[Levels, Tensor]]:
    """The level above along coloured columns, then along coloured rows, flattened; and all below."""

    def split(z: Tensor) -> tuple[Tensor, Levels]:
        levels = below(z)
        return levels[-1], levels

    def evaluate(z: Tensor) -> tuple[Levels, Tensor]:
        lower: Levels = ()
        blocks: list[Tensor] = []
        for tangents in seeds(compression.columns, compression.forward, chunk, z):
            block, repeated = torch.func.vmap(lambda tangent: _forward(split, z, tangent))(tangents)
            blocks.append(block.reshape(-1))
            lower = tuple(level[0] for level in repeated)
        if compression.backward or not blocks:
            result: tuple[Any, ...] = torch.func.vjp(split, z, has_aux=True)
            last, pull, lower = result
            for cotangents in seeds(compression.rows, compression.backward, chunk, last):
                blocks.append(torch.func.vmap(pull)(cotangents)[0].reshape(-1))
        return lower, torch.cat(blocks) if blocks else z.new_zeros(0)

    return evaluate


def _above(
    results: Callable[[Tensor], Tensor], compressions: tuple[Compression, ...], chunk: int
) -> Callable[[Tensor], Tensor]:
    """Results of the highest order from those of the lowest: columns of what has been read below."""
    for below, step in pairwise(compressions):
        results = _columns(results, below.index, step, chunk)
    return results


def _columns(
    results: Callable[[Tensor], Tensor], index: Tensor, step: Compression, chunk: int
) -> Callable[[Tensor], Tensor]:
    def entries(z: Tensor) -> Tensor:
        return results(z)[index.to(z.device)]

    def evaluate(z: Tensor) -> Tensor:
        def forward(tangent: Tensor) -> Tensor:
            along: Tensor = torch.func.jvp(entries, (z,), (tangent,))[1]
            return along

        blocks = [
            torch.func.vmap(forward)(tangents).reshape(-1)
            for tangents in seeds(step.columns, step.forward, chunk, z)
        ]
        return torch.cat(blocks) if blocks else z.new_zeros(0)

    return evaluate


def _most(compressions: tuple[Compression, ...]) -> int:
    """Directions of the level that has most of them."""
    return max(1, *(step.directions for step in compressions))


def _forward(
    split: Callable[[Tensor], tuple[Tensor, Levels]], z: Tensor, tangent: Tensor
) -> tuple[Tensor, Levels]:
    result: tuple[Any, ...] = torch.func.jvp(split, (z,), (tangent,), has_aux=True)
    return result[1], result[2]
