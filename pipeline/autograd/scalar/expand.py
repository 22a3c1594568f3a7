"""Expands a function of one point into a graph of scalar operations.

The function is traced to ATen operations. Operations that only move entries (views, indexing,
concatenation, …) are carried out by torch itself, on integer tensors that hold the nodes of the
graph in place of numbers; calculations on constants are carried out by torch as they are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils._pytree import tree_iter, tree_map

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.dag import ONE, ZERO, Dag
from pipeline.autograd.scalar.decompositions import table
from pipeline.autograd.scalar.plain import require_plain

Rule = Callable[..., "Entries"]

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
    diagonal diagonal_copy diagonal_scatter expand flip gather index index_select lift_fresh_copy movedim narrow
    permute repeat reshape roll rot90 select select_scatter slice slice_scatter split
    split_with_sizes squeeze squeeze_ stack t t_ transpose transpose_ tril triu unbind unfold unsqueeze
    unsqueeze_ view
"""
INDEXED = ("index", "index_select", "gather", "_unsafe_index")
SHAPES = "empty_like full_like new_empty new_full new_ones new_zeros ones_like zeros_like"


@dataclass(frozen=True)
class Entries:
    """A tensor whose entries are nodes.

    Attributes:
        nodes: int64, of the shape of the tensor.
        mask: The entries are truth values.
    """

    nodes: Tensor
    mask: bool = False


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
    return dag, _as_entries(result, dag).nodes


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


def _is_entries(value: object) -> bool:
    return isinstance(value, Entries)


def _as_entries(value: Any, dag: Dag) -> Entries:
    """Nodes of a constant: of a tensor, a number or a truth value."""
    if isinstance(value, Entries):
        return value
    if not isinstance(value, Tensor):
        kind = torch.bool if isinstance(value, bool) else torch.float64
        value = torch.tensor(value, dtype=kind)
    tensor: Tensor = value
    if tensor.is_complex() or tensor.layout != torch.strided:
        raise RefusedError(f"it uses a {tensor.layout} tensor of {tensor.dtype}")
    mask = tensor.dtype == torch.bool
    flat = [dag.constant(bool(x) if mask else float(x)) for x in tensor.reshape(-1).tolist()]
    return Entries(torch.tensor(flat, dtype=torch.int64).reshape(tensor.shape), mask)


def elementwise(dag: Dag, name: str, *args: Any) -> Entries:
    """Apply a scalar operation to every entry, with broadcasting.

    Args:
        dag: The graph.
        name: The operation.
        args: Entries, tensors or numbers.

    Returns:
        The result.

    Raises:
        RefusedError: A logical operation is applied to numbers.
    """
    from pipeline.autograd.scalar.operations import OPERATIONS

    entries = [_as_entries(arg, dag) for arg in args]
    numbers = name not in ("and", "or", "not", "where", "stop")
    if numbers:
        entries = [as_numbers(dag, entry) for entry in entries]
    elif name == "where":
        entries = [entries[0], *(as_numbers(dag, entry) for entry in entries[1:])]
    elif name != "stop" and not all(entry.mask for entry in entries):
        raise RefusedError(f"it applies {name} to numbers")
    tensors: list[Tensor] = torch.broadcast_tensors(*(entry.nodes for entry in entries))  # type: ignore[no-untyped-call]
    rows = zip(*(tensor.reshape(-1).tolist() for tensor in tensors), strict=True)
    nodes = [dag.apply(name, *row) for row in rows]
    mask = OPERATIONS[name].mask or (name == "stop" and entries[0].mask)
    return Entries(torch.tensor(nodes, dtype=torch.int64).reshape(tensors[0].shape), mask)


def as_numbers(dag: Dag, entries: Entries) -> Entries:
    """Turn truth values into 1 and 0; numbers stay."""
    if not entries.mask:
        return entries
    flat = [dag.apply("where", node, ONE, ZERO) for node in entries.nodes.reshape(-1).tolist()]
    return Entries(torch.tensor(flat, dtype=torch.int64).reshape(entries.nodes.shape))


def _move(dag: Dag, target: Any, args: Any, kwargs: Any) -> Any:
    """Let torch move the nodes as it would move the numbers; zeros it fills in are node 0."""
    masks = {value.mask for value in tree_iter((args, kwargs)) if _is_entries(value)}
    if len(masks) > 1:
        raise RefusedError(f"it mixes truth values and numbers in {target}")

    def nodes(value: Any, where: str) -> Any:
        if isinstance(value, Entries):
            return value.nodes
        is_data = isinstance(value, Tensor) and where == "data"
        return _as_entries(value, dag).nodes if is_data else value

    def unwrap(values: Any, where: str) -> Any:
        return tree_map(lambda value: nodes(value, where), values)

    data = "index" if _name(target) in INDEXED else "data"
    kwargs = {key: value for key, value in kwargs.items() if key != "memory_format"}
    result = target(unwrap(args[0], "data"), *unwrap(args[1:], data), **unwrap(kwargs, data))
    mask = masks.pop()
    return tree_map(
        lambda value: Entries(value, mask) if isinstance(value, Tensor) else value, result
    )


def _scaled(dag: Dag, entries: Any, factor: float) -> Entries:
    return elementwise(dag, "mul", entries, factor)


def _add(dag: Dag, a: Any, b: Any, alpha: float = 1) -> Entries:
    return elementwise(dag, "add", a, b if alpha == 1 else _scaled(dag, b, alpha))


def _sub(dag: Dag, a: Any, b: Any, alpha: float = 1) -> Entries:
    return elementwise(dag, "sub", a, b if alpha == 1 else _scaled(dag, b, alpha))


def _rsub(dag: Dag, a: Any, b: Any, alpha: float = 1) -> Entries:
    return _sub(dag, b, a, alpha)


def _relu(dag: Dag, x: Any) -> Entries:
    return elementwise(dag, "where", elementwise(dag, "le", x, 0.0), 0.0, x)


def _clamp(dag: Dag, x: Any, low: Any = None, high: Any = None) -> Entries:
    if _is_entries(low) or _is_entries(high):
        raise RefusedError("the bounds of a clamp depend on the point")
    if high is not None:
        x = elementwise(dag, "where", elementwise(dag, "gt", x, high), high, x)
    if low is not None:
        x = elementwise(dag, "where", elementwise(dag, "lt", x, low), low, x)
    return _as_entries(x, dag)


def _clamp_max(dag: Dag, x: Any, high: Any) -> Entries:
    return _clamp(dag, x, None, high)


def _masked_fill(dag: Dag, x: Any, mask: Any, value: Any) -> Entries:
    return elementwise(dag, "where", mask, value, x)


def _pad(dag: Dag, x: Entries, pad: Sequence[int], value: float = 0) -> Entries:
    filled = torch.nn.functional.pad(x.nodes, list(pad), value=dag.constant(float(value)))
    return Entries(filled, x.mask)


def _index_put(dag: Dag, x: Any, indices: Any, values: Any, accumulate: bool = False) -> Entries:
    if accumulate or any(_is_entries(index) for index in indices):
        raise RefusedError("it accumulates by index, or its indices depend on the point")
    parts = [as_numbers(dag, _as_entries(part, dag)).nodes for part in (x, values)]
    return Entries(torch.ops.aten.index_put.default(parts[0], indices, parts[1]))


def _reduce(dag: Dag, x: Any, dim: Any, keepdim: bool, fold: Callable[[list[int]], int]) -> Entries:
    nodes = as_numbers(dag, x).nodes
    dims = range(nodes.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    axes = {axis % nodes.ndim for axis in dims} if nodes.ndim else set()
    kept = [axis for axis in range(nodes.ndim) if axis not in axes]
    shape = [nodes.shape[axis] for axis in kept]
    rows = nodes.permute(*kept, *sorted(axes)).reshape(math.prod(shape), -1)
    if rows.shape[1] == 0:
        raise RefusedError("it reduces an empty tensor")
    flat = torch.tensor([fold(row) for row in rows.tolist()], dtype=torch.int64).reshape(shape)
    if keepdim:
        flat = flat.reshape([1 if i in axes else size for i, size in enumerate(nodes.shape)])
    return Entries(flat)


def _sum(dag: Dag, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Entries:
    return _reduce(dag, x, dim, keepdim, dag.total)


def _mean(dag: Dag, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Entries:
    def mean(row: list[int]) -> int:
        return dag.apply("div", dag.total(row), dag.constant(float(len(row))))

    return _reduce(dag, x, dim, keepdim, mean)


def _prod(dag: Dag, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Entries:
    def product(row: list[int]) -> int:
        result = row[0]
        for node in row[1:]:
            result = dag.apply("mul", result, node)
        return result

    return _reduce(dag, x, dim, keepdim, product)


def _extreme(name: str) -> Rule:
    """The extreme of a row as the mean of all entries that reach it, as torch differentiates it."""

    def rule(dag: Dag, x: Any, dim: Any = None, keepdim: bool = False) -> Entries:
        def extreme(row: list[int]) -> int:
            best = row[0]
            for node in row[1:]:
                best = dag.apply(name, best, node)
            reached = [dag.apply("eq", node, best) for node in row]
            count = dag.total(dag.apply("where", mask, ONE, ZERO) for mask in reached)
            pairs = zip(reached, row, strict=True)
            return dag.apply(
                "div",
                dag.total(dag.apply("where", mask, node, ZERO) for mask, node in pairs),
                count,
            )

        return _reduce(dag, x, dim, keepdim, extreme)

    return rule


def _cumulative(name: str) -> Rule:
    def rule(dag: Dag, x: Any, dim: int, dtype: Any = None) -> Entries:
        slices = list(as_numbers(dag, x).nodes.unbind(dim))
        for i in range(1, len(slices)):
            slices[i] = elementwise(dag, name, Entries(slices[i - 1]), Entries(slices[i])).nodes
        return Entries(torch.stack(slices, dim))

    return rule


def _shift(dag: Dag, x: Any, dim: Any) -> tuple[Entries, Entries]:
    """The maximum, as a constant to derivatives, and x without it: no result depends on it."""
    top = elementwise(dag, "stop", _extreme("maximum")(dag, x, dim, keepdim=True))
    return top, elementwise(dag, "sub", x, top)


def _softmax(dag: Dag, x: Any, dim: int, to_float: bool = False) -> Entries:
    powers = elementwise(dag, "exp", _shift(dag, x, dim)[1])
    return elementwise(dag, "div", powers, _sum(dag, powers, dim, keepdim=True))


def _log_softmax(dag: Dag, x: Any, dim: int, to_float: bool = False) -> Entries:
    shifted = _shift(dag, x, dim)[1]
    total = _sum(dag, elementwise(dag, "exp", shifted), dim, keepdim=True)
    return elementwise(dag, "sub", shifted, elementwise(dag, "log", total))


def _logsumexp(dag: Dag, x: Any, dim: Any, keepdim: bool = False) -> Entries:
    top, shifted = _shift(dag, x, dim)
    total = _sum(dag, elementwise(dag, "exp", shifted), dim, keepdim=True)
    result = elementwise(dag, "add", elementwise(dag, "log", total), top)
    return result if keepdim else _sum(dag, result, dim)


def _logaddexp(dag: Dag, a: Any, b: Any) -> Entries:
    pair = torch.broadcast_tensors(*(_as_entries(part, dag).nodes for part in (a, b)))  # type: ignore[no-untyped-call]
    return _logsumexp(dag, Entries(torch.stack(list(pair))), 0)


def _mm(dag: Dag, a: Any, b: Any) -> Entries:
    left, right = (as_numbers(dag, _as_entries(part, dag)).nodes for part in (a, b))
    product = elementwise(dag, "mul", Entries(left[..., :, None]), Entries(right[..., None, :, :]))
    return _sum(dag, product, dim=-2)


def _mv(dag: Dag, a: Any, b: Any) -> Entries:
    return Entries(_mm(dag, a, Entries(_as_entries(b, dag).nodes[:, None])).nodes[:, 0])


def _dot(dag: Dag, a: Any, b: Any) -> Entries:
    return _sum(dag, elementwise(dag, "mul", a, b))


def _added(multiply: Rule) -> Rule:
    def rule(dag: Dag, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Entries:
        product = multiply(dag, a, b)
        product = product if alpha == 1 else _scaled(dag, product, alpha)
        return elementwise(dag, "add", bias if beta == 1 else _scaled(dag, bias, beta), product)

    return rule


def _same(dag: Dag, x: Entries, **options: Any) -> Entries:
    """A copy of another layout or dtype; the dtype of the result is checked where it is used."""
    return as_numbers(dag, x) if options.get("dtype") not in (None, torch.bool) else x


RULES: dict[str, Rule] = {
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "relu": _relu,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp_max,
    "masked_fill": _masked_fill,
    "constant_pad_nd": _pad,
    "index_put": _index_put,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "logaddexp": _logaddexp,
    "isnan": lambda dag, x: elementwise(dag, "ne", x, x),
    "isneginf": lambda dag, x: elementwise(dag, "eq", x, -math.inf),
    "isposinf": lambda dag, x: elementwise(dag, "eq", x, math.inf),
    "sum": _sum,
    "mean": _mean,
    "prod": _prod,
    "amax": _extreme("maximum"),
    "amin": _extreme("minimum"),
    "max.default": _extreme("maximum"),
    "min.default": _extreme("minimum"),
    "cumsum": _cumulative("add"),
    "cumprod": _cumulative("mul"),
    "mm": _mm,
    "bmm": _mm,
    "mv": _mv,
    "dot": _dot,
    "addmm": _added(_mm),
    "addmv": _added(_mv),
    "baddbmm": _added(_mm),
    "_to_copy": _same,
}
