"""Expands a function of one point into a graph of scalar operations.

The function is traced to ATen operations. Operations that only move entries (views, indexing,
concatenation, …) are carried out by torch itself, on integer tensors that hold the nodes of the
graph in place of numbers; calculations on constants are carried out by torch as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_iter, tree_map

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.dag import Dag
from pipeline.autograd.scalar.decompositions import table
from pipeline.autograd.scalar.entries import Entries, as_entries, elementwise
from pipeline.autograd.scalar.plain import require_plain
from pipeline.autograd.scalar.rules import RULES

SAME_NAME = """
    abs acos acosh asin asinh atan atan2 atanh ceil cos cosh div eq erf erfc exp exp2 expm1 floor ge
    gt le log log10 log1p log2 lt maximum minimum mul ne neg pow reciprocal round rsqrt sigmoid sign
    sin sinh sqrt tan tanh trunc where
"""
OTHER_NAME = {
    "detach": "stop",
    "sgn": "sign",
    "logical_and": "and",
    "bitwise_and": "and",
    "logical_or": "or",
    "bitwise_or": "or",
    "logical_not": "not",
    "bitwise_not": "not",
}
ELEMENTWISE = {name: name for name in SAME_NAME.split()} | OTHER_NAME
MOVES = """
    _reshape_alias _unsafe_index _unsafe_view alias as_strided cat clone contiguous copy diag_embed
    diagonal diagonal_copy diagonal_scatter expand flip gather index index_select lift_fresh_copy
    masked_select movedim narrow
    permute repeat reshape roll rot90 select select_scatter slice slice_scatter split
    split_with_sizes squeeze squeeze_ stack t t_ transpose transpose_ tril triu unbind unfold unsqueeze
    unsqueeze_ view
"""
INDEXED = ("index", "index_select", "gather", "masked_select", "_unsafe_index")
SHAPES = "empty_like full_like new_empty new_full new_ones new_zeros ones_like zeros_like"


def expand(f: Callable[[Tensor], Tensor], point: Tensor, budget: int) -> tuple[Dag, Tensor]:
    """Expand a function into a graph.

    Args:
        f: Maps one point (n,) to () or (m,).
        point: An example, (n,).
        budget: Most nodes.

    Returns:
        The graph, and the nodes of the outputs: int64 of shape () or (m,).

    Raises:
        RefusedError: The function cannot be expanded.
    """
    require_plain(f, point)
    dag = Dag(point.dtype, budget)
    inputs = torch.tensor([dag.variable(index) for index in range(len(point))])
    result = _Expander(trace(f, point), dag).run(Entries(inputs))
    return dag, as_entries(result, dag).nodes


def trace(f: Callable[[Tensor], Tensor], point: Tensor) -> GraphModule:
    """Trace a function to ATen operations without mutations.

    Args:
        f: Maps one point (n,) to a tensor.
        point: An example, (n,).

    Returns:
        The trace.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    functional = torch.func.functionalize(f, remove="mutations")
    with torch.no_grad():
        module: GraphModule = make_fx(lambda x: functional(x), decomposition_table=table())(point)
    return module


class _Expander(Interpreter):
    def __init__(self, module: GraphModule, dag: Dag) -> None:
        super().__init__(module)
        self.dag = dag
        self.extra_traceback = False

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        dtypes = {
            value.dtype for value in tree_iter(node.meta.get("val")) if isinstance(value, Tensor)
        }
        if isinstance(result, Entries) and not dtypes <= {self.dag.dtype, torch.bool}:
            raise RefusedError(f"it calculates in {', '.join(map(str, dtypes))} at {node.target}")
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = _name(target)
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise RefusedError(f"it is random: {target}")
        if target is operator.getitem or not any(
            isinstance(value, Entries) for value in tree_iter((args, kwargs))
        ):
            return target(*args, **kwargs)
        if name in ELEMENTWISE and not kwargs:
            return elementwise(self.dag, ELEMENTWISE[name], *args)
        if name in MOVES.split():
            return _move(self.dag, target, args, kwargs)
        if name in SHAPES.split():
            example = torch.empty(args[0].nodes.shape, dtype=self.dag.dtype)
            return target(example, *args[1:], **kwargs)
        if target.__name__ in RULES or name in RULES:
            return RULES.get(target.__name__, RULES.get(name))(self.dag, *args, **kwargs)  # type: ignore[misc]
        raise RefusedError(f"operation {target} is not known to the scalar route")


def _name(target: Any) -> str:
    return str(getattr(target, "overloadpacket", target)).removeprefix("aten.")


def _move(dag: Dag, target: Any, args: Any, kwargs: Any) -> Any:
    """Let torch move the nodes as it would move the numbers; zeros it fills in are node 0."""
    masks = {value.mask for value in tree_iter((args, kwargs)) if isinstance(value, Entries)}
    if len(masks) > 1:
        raise RefusedError(f"it mixes truth values and numbers in {target}")

    def nodes(value: Any, where: str) -> Any:
        if isinstance(value, Entries):
            return value.nodes
        is_data = isinstance(value, Tensor) and where == "data"
        return as_entries(value, dag).nodes if is_data else value

    def unwrap(values: Any, where: str) -> Any:
        return tree_map(lambda value: nodes(value, where), values)

    data = "index" if _name(target) in INDEXED else "data"
    kwargs = {key: value for key, value in kwargs.items() if key != "memory_format"}
    result = target(unwrap(args[0], "data"), *unwrap(args[1:], data), **unwrap(kwargs, data))
    mask = masks.pop()
    return tree_map(
        lambda value: Entries(value, mask) if isinstance(value, Tensor) else value, result
    )
