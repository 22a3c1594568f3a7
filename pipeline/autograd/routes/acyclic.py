"""Routes `coloured_acyclic` and `coloured_acyclic_compiled`: fewer directions, entries read one from another.

Where entries differ so much in size that small ones would lose digits to large ones, a point is
evaluated along the directions of route `coloured`, in which every entry stands alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.autograd.constant_folding import fold_constants
from pipeline.autograd.cost import FUNC_SECONDS, PLAIN_SECONDS, Cost, count_eager
from pipeline.autograd.request import Evaluate, RefusedError, Request
from pipeline.autograd.routes.base import Route
from pipeline.autograd.routes.coloured import (
    ColouredCompiledRoute,
    ColouredRoute,
    compressed,
    read,
)
from pipeline.autograd.routes.compiled import NODE_SECONDS, compile_batch, count_compiled
from pipeline.autograd.sparsity.compression import known_pattern
from pipeline.autograd.sparsity.substitution import Substitution, require_fewer, substitute

FEW = 8  # batches of points that are evaluated again are narrower: most of their batch is right


class ColouredAcyclicRoute(Route):
    """Acyclic colours of a Hessian by torch.func, eagerly, read by substitution over a batch of points."""

    name: ClassVar[str] = "coloured_acyclic"
    widest: ClassVar[int] = ColouredRoute.widest
    pointwise: ClassVar[bool] = False

    def modes(self, request: Request) -> tuple[str, ...]:
        """Columns of the Hessian of a scalar in float64, on a processor, where sums have an order."""
        example = request.example
        is_double = example.dtype == torch.float64 and example.device.type == "cpu"
        is_hessian = not request.output_shape and request.sparse_order == 2
        return ColouredRoute().modes(request) if is_double and is_hessian else ()

    def least_seconds(self, request: Request, mode: str) -> float:
        """As route `coloured`."""
        return ColouredRoute().least_seconds(request, mode)

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations and bytes of one and of two points, substitution included.

        Returns:
            The cost at the largest chunk that fits.
        """
        substitution = require_fewer(request)
        directions = _directions(substitution)
        cost = count_eager(
            lambda size: self._evaluation(request, mode, size, 1)[0],
            request.example[None],
            (chunk or directions, chunk or 1),
            budget,
            FUNC_SECONDS,
        )
        _require_digits(request, substitution, cost.chunk)
        return cost

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Colour the pattern, take its trees apart, and compose the operator.

        Returns:
            The batch evaluation.
        """
        return _confirmed(request, *self._evaluation(request, mode, chunk, batch))

    def _evaluation(
        self, request: Request, mode: str, chunk: int, batch: int
    ) -> tuple[Evaluate, Evaluate]:
        """By substitution, and alone."""
        substitution = substitute(known_pattern(request))
        alone = ColouredRoute().prepare(request, mode, chunk, batch)
        operator = _eager(request, substitution, chunk)
        return _reading(request, substitution, operator, alone), alone


class ColouredAcyclicCompiledRoute(Route):
    """The same directions as one graph, compiled by Inductor; entries are read outside of it."""

    name: ClassVar[str] = "coloured_acyclic_compiled"
    widest: ClassVar[int] = ColouredCompiledRoute.widest
    pointwise: ClassVar[bool] = False
    pads: ClassVar[bool] = True
    operation_seconds: ClassVar[float] = 2 * NODE_SECONDS

    def modes(self, request: Request) -> tuple[str, ...]:
        """As route `coloured_acyclic`."""
        return ColouredAcyclicRoute().modes(request)

    def least_seconds(self, request: Request, mode: str) -> float:
        """Of Inductor's start."""
        return ColouredCompiledRoute().least_seconds(request, mode)

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations of the graph, and those of the substitution.

        Returns:
            The cost; the graph for points that need it is compiled as well.
        """
        substitution = require_fewer(request)
        directions = _directions(substitution)
        compression = (substitution.compression,)
        graph = count_compiled(
            lambda size: compressed(request, compression, size),
            request,
            directions,
            (chunk, budget),
            fold_constants,
        )
        sums = _require_digits(request, substitution, directions)
        solving = count_eager(
            lambda size: substitution.solve, sums, (directions, directions), budget, PLAIN_SECONDS
        )
        return replace(
            graph,
            point_bytes=graph.point_bytes + solving.point_bytes,
            setup_seconds=graph.setup_seconds + NODE_SECONDS * graph.operations,
            batch_seconds=graph.batch_seconds + solving.batch_seconds,
            point_seconds=graph.point_seconds + solving.point_seconds,
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Compile for this batch size, or take it from the compiler's cache.

        Returns:
            The batch evaluation.
        """
        substitution = substitute(known_pattern(request))
        operator = compressed(request, (substitution.compression,), _directions(substitution))
        compiled = compile_batch(operator, request, batch, fold_constants)
        alone = ColouredCompiledRoute().prepare(request, mode, chunk, -(-batch // FEW))
        return _confirmed(request, _reading(request, substitution, compiled, alone), alone)


def _directions(substitution: Substitution) -> int:
    return max(substitution.compression.directions, 1)


def _eager(request: Request, substitution: Substitution, chunk: int) -> Evaluate:
    """Lower orders, and the sums of entries."""
    operator = compressed(request, (substitution.compression,), chunk)

    def evaluate(points: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(level.to(points.dtype) for level in operator(points))

    return evaluate


def _reading(
    request: Request, substitution: Substitution, operator: Evaluate, alone: Evaluate
) -> Evaluate:
    """Entries by substitution from what an operator gives; of points that lose digits, each alone."""

    def evaluate(points: Tensor) -> tuple[Tensor, ...]:
        *lower, sums = operator(points)
        left, is_precise = substitution.solve(sums)
        *lower, entries = read(request, substitution.compression, [*lower, left])
        if not is_precise.all():
            entries[~is_precise] = alone(points[~is_precise])[-1]
        return *lower, entries

    return evaluate


def _confirmed(request: Request, evaluate: Evaluate, alone: Evaluate) -> Evaluate:
    """The evaluation, where the other one agrees: checks may not come to a point that needs it."""
    found, expected = (each(request.example[None])[-1] for each in (evaluate, alone))
    gap, size = ((found - expected).abs().max(), expected.abs().max())
    if not gap <= request.precision.tolerance * size:
        raise RefusedError(
            f"by substitution entries differ by {float(gap):.1e} from those that are read alone"
        )
    return evaluate


def _require_digits(request: Request, substitution: Substitution, chunk: int) -> Tensor:
    *_, sums = _eager(request, substitution, chunk)(request.example[None])
    if not substitution.solve(sums)[1].all():
        raise RefusedError("its entries differ so much in size that small ones would lose digits")
    return sums
