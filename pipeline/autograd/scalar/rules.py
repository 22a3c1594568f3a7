"""Operations on tensors that are more than one scalar operation per entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.dag import ONE, ZERO, Dag
from pipeline.autograd.scalar.entries import Entries, as_entries, as_numbers, elementwise
from pipeline.autograd.scalar.placing import PLACING

Rule = Callable[..., Entries]


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
    if isinstance(low, Entries) or isinstance(high, Entries):
        raise RefusedError("the bounds of a clamp depend on the point")
    if high is not None:
        x = elementwise(dag, "where", elementwise(dag, "gt", x, high), high, x)
    if low is not None:
        x = elementwise(dag, "where", elementwise(dag, "lt", x, low), low, x)
    return as_entries(x, dag)


def _clamp_max(dag: Dag, x: Any, high: Any) -> Entries:
    return _clamp(dag, x, None, high)


def _masked_fill(dag: Dag, x: Any, mask: Any, value: Any) -> Entries:
    return elementwise(dag, "where", mask, value, x)


def _pad(dag: Dag, x: Entries, pad: Sequence[int], value: float = 0) -> Entries:
    filled = torch.nn.functional.pad(x.nodes, list(pad), value=dag.constant(float(value)))
    return Entries(filled, x.mask)


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
    pair = torch.broadcast_tensors(*(as_entries(part, dag).nodes for part in (a, b)))  # type: ignore[no-untyped-call]
    return _logsumexp(dag, Entries(torch.stack(list(pair))), 0)


def _mm(dag: Dag, a: Any, b: Any) -> Entries:
    left, right = (as_numbers(dag, as_entries(part, dag)).nodes for part in (a, b))
    product = elementwise(dag, "mul", Entries(left[..., :, None]), Entries(right[..., None, :, :]))
    return _sum(dag, product, dim=-2)


def _mv(dag: Dag, a: Any, b: Any) -> Entries:
    return Entries(_mm(dag, a, Entries(as_entries(b, dag).nodes[:, None])).nodes[:, 0])


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
    dtype = options.get("dtype")
    if dtype == torch.bool:
        return x if x.mask else elementwise(dag, "ne", x, 0.0)
    return x if dtype is None else as_numbers(dag, x)


RULES: dict[str, Rule] = {
    **PLACING,
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "relu": _relu,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp_max,
    "masked_fill": _masked_fill,
    "constant_pad_nd": _pad,
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
