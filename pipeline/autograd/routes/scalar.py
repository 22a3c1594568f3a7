"""Route `scalar`: f as a graph of scalar operations, differentiated symbolically, one fused loop.

Only distinct, non-constant entries are calculated, each once for a whole vector register of
points. At points where anything that is calculated is not finite, the derivatives are taken from
reverse mode instead: a folded multiplication by zero would otherwise hide a NaN that torch gives.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pipeline.autograd.compiler import require_compiler
from pipeline.autograd.cost import Cost
from pipeline.autograd.memory import Meter
from pipeline.autograd.request import Evaluate, RefusedError, Request
from pipeline.autograd.routes.base import Route, joined, on_joined, spell_mode
from pipeline.autograd.routes.loop import LoopRoute
from pipeline.autograd.routes.vmap import VmapRoute
from pipeline.autograd.variable import WHOLE

if TYPE_CHECKING:
    from pipeline.autograd.scalar.emit import Program

BUDGET = 40_000  # nodes; a compiler takes about two minutes for these
FAR = 10  # some operations are on constants
ENTRIES = 1_000_000  # distinct, constant ones included
COMPILER_SECONDS = 4.0  # of starting to compile, whatever it is
NODE_SECONDS = 2.5e-3  # of compiling one operation
PIECE = 256  # points that are taken from reverse mode together


class ScalarRoute(Route):
    """Expand, differentiate, compile."""

    name: ClassVar[str] = "scalar"
    widest: ClassVar[int] = 1 << 16
    pointwise: ClassVar[bool] = False
    streams: ClassVar[bool] = True

    def modes(self, request: Request) -> tuple[str, ...]:
        """Symbolic differentiation is a reverse sweep at every level."""
        return (spell_mode(("rev",) * request.order),)

    def takes(self, mode: str, request: Request) -> bool:
        """Only its own."""
        return mode in self.modes(request)

    def least_seconds(self, mode: str) -> float:
        """Of the compiler's start."""
        return COMPILER_SECONDS

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count the operations of the program, and the bytes of a point and its results.

        Returns:
            The cost; a chunk has no meaning here.
        """
        program = derive(request)
        entries = program.inputs + 1 + sum(level.numel() for level in program.levels)
        nodes = len(program.nodes)
        return Cost(
            chunk=chunk or request.directions,
            point_bytes=2 * entries * request.example.dtype.itemsize,
            fixed_bytes=0,
            operations=nodes,
            setup_seconds=COMPILER_SECONDS + NODE_SECONDS * nodes,
            batch_seconds=2e-5,
            point_seconds=2e-10 * nodes + 1e-9 * entries,
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Compile the program, or take it from the compiler's cache.

        Returns:
            The batch evaluation.
        """
        from pipeline.autograd.scalar.emit import compile_kernel

        program = derive(request)
        kernel, inputs_of = compile_kernel(program), joined(request)
        reverse = _reverse_mode(request, mode, chunk)

        def evaluate(points: Tensor) -> tuple[Tensor, ...]:
            inputs = inputs_of(points).contiguous()
            levels = tuple(
                points.new_empty((len(points), *level.shape)) for level in program.levels
            )
            flags = points.new_empty(len(points))
            if not kernel(inputs, levels, flags):
                return levels
            for piece in torch.split(flags.isnan().nonzero()[:, 0], PIECE):
                exact = zip(request.keys, reverse(points[piece]), strict=True)
                for level, (key, other) in zip(levels, exact, strict=True):
                    level[piece] = request.keep(other, key)
            return levels

        return evaluate


def _reverse_mode(request: Request, mode: str, chunk: int) -> Evaluate:
    try:
        evaluate = VmapRoute().prepare(request, mode, chunk, PIECE)
        evaluate(request.example[None])
    except Exception:  # torch.func refuses a function by any kind of error
        return LoopRoute().prepare(request, mode, chunk, PIECE)
    return evaluate


@lru_cache(maxsize=1)
def derive(request: Request) -> Program:
    """The program of a request, made once for its cost and its preparation."""
    # imported when it is used: it loads torch.fx, which short jobs do not need
    from pipeline.autograd.scalar.contracted import contracted
    from pipeline.autograd.scalar.dag import ZERO
    from pipeline.autograd.scalar.derivatives import differentiate
    from pipeline.autograd.scalar.emit import Program
    from pipeline.autograd.scalar.expand import expand

    if request.example.device.type != "cpu":
        raise RefusedError(f"it is written for CPUs, the job runs on {request.example.device}")
    require_compiler(request.example.device)
    entries = sum(request.m * math.comb(request.n + k - 1, k) for k in request.orders)
    if entries > ENTRIES:
        raise RefusedError(f"it has {entries} distinct entries, more than {ENTRIES}")
    _require_small(request)
    dag, outputs = expand(on_joined(request), joined(request)(request.example[None])[0], BUDGET)
    if tuple(outputs.shape) != request.output_shape:
        raise RefusedError(
            f"its trace has shape {tuple(outputs.shape)}, not {request.output_shape}"
        )
    levels = differentiate(dag, outputs, request.n, request.whole_order)
    inputs = len(request.example) + (0 if request.variable is WHOLE else request.n)
    kept = [request.keep(levels[order][None], order)[0] for order in request.orders]
    if request.pattern is not None:
        entries = int((levels[request.sparse_order] != ZERO).sum())
        if entries > int((kept[-1] != ZERO).sum()):
            raise RefusedError("it finds entries that the pattern leaves out")
    row = [dag.variable(index) for index in range(inputs - len(request.example), inputs)]
    sums = [contracted(dag, outputs, request.n, item, row) for item in request.contractions]
    return Program(dag, inputs, [*kept, *sums])


def _require_small(request: Request) -> None:
    """Refuse what has far too many operations before they are traced: that takes long."""
    g, z = request.at(request.example)
    with torch.no_grad(), Meter() as meter:
        g(z)
    if meter.flops > FAR * BUDGET:
        raise RefusedError(
            f"its matrix products take {meter.flops:.2g} operations, far more than {BUDGET}"
        )
