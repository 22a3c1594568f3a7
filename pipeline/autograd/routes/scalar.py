"""Route `scalar`: f as a graph of scalar operations, differentiated symbolically, one fused loop.

Only distinct, non-constant entries are calculated, each once for a whole vector register of
points. Where the result is sparse and many of its entries have the same formula, as those of a
stencil have, the loop runs over these as well. At points where anything that is calculated is not
finite, the derivatives are taken from torch instead: a folded multiplication by zero would
otherwise hide a NaN that torch gives.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pipeline.autograd.compiler import require_compiler
from pipeline.autograd.cost import Cost
from pipeline.autograd.functions.variable import WHOLE
from pipeline.autograd.memory import Meter
from pipeline.autograd.request import Evaluate, RefusedError, Request
from pipeline.autograd.routes.base import Route, joined, on_joined, spell_mode
from pipeline.autograd.routes.coloured import ColouredRoute
from pipeline.autograd.routes.loop import LoopRoute
from pipeline.autograd.routes.vmap import VmapRoute

if TYPE_CHECKING:
    from pipeline.autograd.scalar.dag import Dag
    from pipeline.autograd.scalar.emit import Program
    from pipeline.autograd.scalar.loops import Loops

BUDGET = 40_000  # nodes; a compiler takes about two minutes for these
FAR = 10  # some operations are on constants
LOOPED = 400_000  # nodes of a sparse derivative, tables in place of code: ten seconds to derive
ENTRIES = 1_000_000  # distinct, constant ones included
COMPILER_SECONDS = 4.0  # of starting to compile, whatever it is
NODE_SECONDS = 2.5e-3  # of compiling one operation
DERIVED_SECONDS = 16e-6  # of deriving one node of the graph and finding its formula
GROWTH = 4  # nodes of a gradient, per node of the function
SHORTER = 2  # times as short as what it replaces: a formula that is looked up is slower
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

    def least_seconds(self, request: Request, mode: str) -> float:
        """Of the compiler's start, and of deriving as many nodes as the function's entries lead to."""
        return COMPILER_SECONDS + DERIVED_SECONDS * _foreseen(request)

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count the operations of the program, and the bytes of a point and its results.

        Returns:
            The cost; a chunk has no meaning here.
        """
        work = _arranged(request)
        entries = work.inputs + 1 + sum(math.prod(shape) for shape in work.shapes)
        nodes = work.operations
        return Cost(
            chunk=chunk or request.directions,
            point_bytes=2 * entries * request.example.dtype.itemsize,
            fixed_bytes=0,
            operations=nodes,
            setup_seconds=self.least_seconds(request, mode) + NODE_SECONDS * work.statements,
            batch_seconds=2e-5,
            point_seconds=2e-10 * nodes + 1e-9 * entries,
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Compile the program, or take it from the compiler's cache.

        Returns:
            The batch evaluation.
        """
        work = _arranged(request)
        kernel, inputs_of = work.compile(), joined(request)
        reverse, piece_size = _exact(request, mode, chunk)

        def evaluate(points: Tensor) -> tuple[Tensor, ...]:
            inputs = inputs_of(points).contiguous()
            levels = tuple(points.new_empty((len(points), *shape)) for shape in work.shapes)
            flags = points.new_empty(len(points))
            if not kernel(inputs, levels, flags):
                return levels
            for piece in torch.split(flags.isnan().nonzero()[:, 0], piece_size):
                exact = zip(request.keys, reverse(points[piece]), strict=True)
                for level, (key, other) in zip(levels, exact, strict=True):
                    level[piece] = request.keep(other, key)
            return levels

        return evaluate


def _exact(request: Request, mode: str, chunk: int) -> tuple[Evaluate, int]:
    # what takes over where something is not finite, and at how many points at once: too large a
    # matrix comes from coloured directions, backward ones of a Jacobian, as torch's own are
    if request.pattern is not None and math.prod(request.pattern.shape) > ENTRIES:
        own = "rev" if request.order == 1 else "fwd_over_rev"
        piece = max(1, min(PIECE, ENTRIES // max(request.pattern.nnz, 1)))
        if evaluate := _tried(ColouredRoute(), request, own, chunk, piece):
            return evaluate, piece
    evaluate = _tried(VmapRoute(), request, mode, chunk, PIECE)
    return evaluate or LoopRoute().prepare(request, mode, chunk, PIECE), PIECE


def _tried(route: Route, request: Request, mode: str, chunk: int, piece: int) -> Evaluate | None:
    try:
        evaluate = route.prepare(request, mode, chunk, piece)
        evaluate(request.example[None])
    except Exception:  # torch.func refuses a function by any kind of error
        return None
    return evaluate


@lru_cache(maxsize=1)
def _arranged(request: Request) -> Program | Loops:
    """How a request is calculated, once for its cost and its preparation: by loops where they are shorter."""
    from pipeline.autograd.scalar.loops import arrange

    program = derive(request)
    if request.pattern is None:
        return program
    loops = arrange(program)
    if loops.statements * SHORTER > loops.operations and program.operations <= BUDGET:
        return program
    if loops.statements > BUDGET:
        raise RefusedError(f"its entries have formulas of {loops.statements} scalar operations")
    return loops


def derive(request: Request) -> Program:
    """The program of a request, with everything written out."""
    # imported when it is used: it loads torch.fx, which short jobs do not need
    from pipeline.autograd.scalar.contracted import contracted
    from pipeline.autograd.scalar.emit import Program
    from pipeline.autograd.scalar.expand import expand

    if request.example.device.type != "cpu":
        raise RefusedError(f"it is written for CPUs, the job runs on {request.example.device}")
    require_compiler(request.example.device)
    sparse = request.pattern is not None and request.whole_order == request.sparse_order
    wholes = [order for order in request.orders if not (sparse and order == request.sparse_order)]
    count = sum(request.m * math.comb(request.n + k - 1, k) for k in wholes)
    if count > ENTRIES:
        raise RefusedError(f"it has {count} distinct entries, more than {ENTRIES}")
    budget = LOOPED if sparse else BUDGET
    _require_small(request, budget)
    dag, outputs = expand(on_joined(request), joined(request)(request.example[None])[0], budget)
    if tuple(outputs.shape) != request.output_shape:
        raise RefusedError(
            f"its trace has shape {tuple(outputs.shape)}, not {request.output_shape}"
        )
    kept = _sparse(request, dag, outputs) if sparse else _whole(request, dag, outputs)
    inputs = len(request.example) + (0 if request.variable is WHOLE else request.n)
    row = [dag.variable(index) for index in range(inputs - len(request.example), inputs)]
    sums = [contracted(dag, outputs, request.n, item, row) for item in request.contractions]
    return Program(dag, inputs, [*kept, *sums])


def _require_small(request: Request, budget: int) -> None:
    """Refuse what has far too many operations before they are traced: that takes long."""
    flops = _counted(request).flops
    if flops > FAR * budget:
        raise RefusedError(
            f"its matrix products take {flops:.2g} operations, far more than {budget}"
        )


def _foreseen(request: Request) -> int:
    """Nodes of the graph, counted before it is derived."""
    try:
        meter = _counted(request)
    except Exception:  # a function may refuse to be watched; then the cost says why
        return 0
    own = meter.traffic // request.example.dtype.itemsize + int(meter.flops)
    budget = BUDGET if request.pattern is None else LOOPED
    return min(own * int(GROWTH ** (request.order - 1)), budget)


def _counted(request: Request) -> Meter:
    g, z = request.at(request.example)
    meter = Meter()
    with torch.no_grad(), meter:
        g(z)
    return meter


def _whole(request: Request, dag: Dag, outputs: Tensor) -> list[Tensor]:
    """Nodes of what is kept of each order, from whole derivatives."""
    from pipeline.autograd.scalar.dag import ZERO
    from pipeline.autograd.scalar.derivatives import differentiate

    levels = differentiate(dag, outputs, request.n, request.whole_order)
    kept = [request.keep(levels[order][None], order)[0] for order in request.orders]
    if request.pattern is not None:
        level, order = levels[request.sparse_order], request.sparse_order
        kept_entries = kept[request.orders.index(order)]
        _require_all(int((level != ZERO).sum()), int((kept_entries != ZERO).sum()))
    return kept


def _sparse(request: Request, dag: Dag, outputs: Tensor) -> list[Tensor]:
    """The same, where no other entries of the highest order are derived than those of the pattern."""
    from pipeline.autograd.scalar.dag import ZERO
    from pipeline.autograd.scalar.derivatives import differentiate, entries

    assert request.pattern is not None
    order, lowest = request.sparse_order, request.matrix_order
    levels = differentiate(dag, outputs, request.n, max(lowest - 1, 0, *request.orders[:-1]))
    found = dict(enumerate(levels[lowest - 1].reshape(-1).tolist()))
    for level in range(lowest, order + 1):
        found = entries(dag, found, request.n, ascending=level > 1)
    places = request.pattern.ascending(order).tolist()
    _require_all(len(found), len(found.keys() & set(places)))
    kept = torch.tensor([found.get(place, ZERO) for place in places], dtype=torch.int64)
    return [*(levels[each] for each in request.orders[:-1]), kept]


def _require_all(found: int, kept: int) -> None:
    if found > kept:
        raise RefusedError("it finds entries that the pattern leaves out")
