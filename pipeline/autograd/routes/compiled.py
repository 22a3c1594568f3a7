"""Route `compiled`: the operator over a whole batch as one flat graph, compiled by Inductor.

The graph is traced from eager torch.func. Without functionalisation before the trace, Inductor has
compiled forward over reverse mode wrongly; the comparison with the reference guards the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.autograd.compiler import require_compiler
from pipeline.autograd.cost import FLOP_SECONDS, FUNC_SECONDS, Cost, count_eager
from pipeline.autograd.request import Evaluate, RefusedError, Request
from pipeline.autograd.routes.base import BOTH, Route, one_point, parse_mode
from pipeline.autograd.routes.vmap import VmapRoute

if TYPE_CHECKING:
    from torch.fx import GraphModule

MOST_NODES = 3000  # of a graph; Inductor takes about two minutes for these
COMPILER_SECONDS = 10.0  # of starting Inductor, whatever it compiles
NODE_SECONDS = 0.03  # of compiling one operation
ENTRY_SECONDS = 0.5e-9  # of one entry of a fused elementwise operation
Rewrite = Callable[["GraphModule"], "GraphModule"]


def _as_it_is(graph: GraphModule) -> GraphModule:
    return graph


class CompiledRoute(Route):
    """Trace, rewrite, compile for one batch size; shorter batches are padded."""

    name: ClassVar[str] = "compiled"
    widest: ClassVar[int] = 1 << 12
    pointwise: ClassVar[bool] = False
    pads: ClassVar[bool] = True
    operation_seconds: ClassVar[float] = NODE_SECONDS

    def modes(self, request: Request) -> tuple[str, ...]:
        """As route `vmap`."""
        return VmapRoute().modes(request)

    def takes(self, mode: str, request: Request) -> bool:
        """Any mode."""
        return mode != BOTH

    def rank(self, request: Request, mode: str) -> int:
        """As route `vmap`: later where a mode takes far more sweeps than the best."""
        return VmapRoute().rank(request, mode)

    def least_seconds(self, request: Request, mode: str) -> float:
        """Of Inductor's start."""
        return COMPILER_SECONDS

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations of the graph, and the memory of the same transforms run eagerly.

        Returns:
            The cost.
        """
        return count_compiled(
            lambda size: _operator(request, mode, size),
            request,
            request.directions,
            (chunk, budget),
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Compile for this batch size, or take it from the compiler's cache.

        Returns:
            The batch evaluation.
        """
        return compile_batch(_operator(request, mode, request.directions), request, batch)


def count_compiled(
    operator: Callable[[int], Evaluate],
    request: Request,
    directions: int,
    limits: tuple[int | None, int],
    rewrite: Rewrite = _as_it_is,
) -> Cost:
    """Count what the graph of an operator takes.

    Args:
        operator: Chunk -> evaluation of a batch.
        request: What is evaluated.
        directions: Most directions of a level.
        limits: Chunk, None for as many as fit, and most bytes that one point may hold.
        rewrite: What is done to the graph before it is compiled.

    Returns:
        The cost.

    Raises:
        RefusedError: There is no compiler, or the graph would be too large for one.
    """
    require_compiler(request.example.device)
    chunk, budget = limits
    sizes = (chunk or directions, chunk or 1)
    eager = count_eager(operator, request.example[None], sizes, budget, FUNC_SECONDS)
    if eager.chunk < directions:
        raise RefusedError(f"its directions do not fit at once (chunk={eager.chunk})")
    if eager.operations > MOST_NODES:
        raise RefusedError(f"it takes {eager.operations} operations, more than {MOST_NODES}")
    graph = rewrite(_trace(operator(directions), _batch(request, 2)))
    nodes = sum(node.op == "call_function" for node in graph.graph.nodes)
    return Cost(
        chunk=eager.chunk,
        point_bytes=eager.point_bytes,
        fixed_bytes=eager.fixed_bytes,
        operations=nodes,
        setup_seconds=COMPILER_SECONDS + NODE_SECONDS * nodes,
        batch_seconds=1e-4,
        point_seconds=_seconds(graph, _batch(request, 2)) / 2,
    )


def compile_batch(
    operator: Evaluate, request: Request, batch: int, rewrite: Rewrite = _as_it_is
) -> Evaluate:
    """Trace and compile an operator for one batch size; shorter batches are padded.

    Args:
        operator: Evaluation of a batch, all of its directions at once.
        request: What is evaluated.
        batch: Points per call.
        rewrite: What is done to the graph before it is compiled.

    Returns:
        The compiled evaluation.
    """
    graph = rewrite(_trace(operator, _batch(request, batch)))
    compiled = torch.compile(graph, dynamic=False, fullgraph=True)

    def evaluate(points: Tensor) -> tuple[Tensor, ...]:
        if len(points) <= batch:
            return full_width(points)
        blocks = [full_width(block) for block in torch.split(points, batch)]
        return tuple(torch.cat(level) for level in zip(*blocks, strict=True))

    def full_width(points: Tensor) -> tuple[Tensor, ...]:
        count = len(points)
        if count < batch:
            points = torch.cat([points, points[-1:].expand(batch - count, -1)])
        with torch.no_grad():
            levels = compiled(points.contiguous())
        return tuple(level[:count].to(points.dtype) for level in levels)

    return evaluate


def _operator(request: Request, mode: str, chunk: int) -> Evaluate:
    evaluate: Evaluate = torch.func.vmap(one_point(request, parse_mode(mode, request.order), chunk))
    return evaluate


def _trace(operator: Evaluate, points: Tensor) -> GraphModule:
    """The graph of a batch of this size, without mutations, views resolved."""
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.passes.dialect.common.cse_pass import CSEPass

    functional = torch.func.functionalize(operator, remove="mutations_and_views")
    with torch.no_grad():
        rules = {torch.ops.aten.bmm.default: _shared_operand}
        module: GraphModule = make_fx(functional, decomposition_table=rules)(points)
    shared = CSEPass()(module)
    if shared is not None:
        module = shared.graph_module
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _batch(request: Request, size: int) -> Tensor:
    return request.example.expand(size, -1).clone()


def _shared_operand(a: Tensor, b: Tensor) -> Any:
    """A batched product whose one operand is the same for the whole batch, as one product."""
    if len(a) == 1:
        return NotImplemented
    if b.stride(0) == 0:
        return (a.reshape(-1, a.shape[2]) @ b[0]).reshape(*a.shape[:2], b.shape[2])
    if a.stride(0) == 0:
        rows = b.transpose(1, 2).reshape(-1, b.shape[1]) @ a[0].transpose(0, 1)
        return rows.reshape(len(b), b.shape[2], a.shape[1]).transpose(1, 2)
    return NotImplemented


def _seconds(module: GraphModule, points: Tensor) -> float:
    """Predicted time of a graph: of its products and convolutions, and of its fused loops."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(points)
    results = [
        node.meta.get("val")
        for node in module.graph.nodes
        if torch.Tag.pointwise in getattr(node.target, "tags", ())
    ]
    entries = sum(result.numel() for result in results if isinstance(result, Tensor))
    flops: int = counter.get_total_flops()
    return flops * FLOP_SECONDS + entries * ENTRY_SECONDS
