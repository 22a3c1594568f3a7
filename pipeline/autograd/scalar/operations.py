"""Scalar operations: what each computes, how C++ spells it, and how it is differentiated.

The derivatives follow torch's own conventions (derivatives.yaml of PyTorch), also where a function
is not smooth: sign(0) = 0, a clamp passes at its bounds, ties of a maximum share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pipeline.autograd.scalar.dag import Dag

MULTIPLIED = range(4, 9)  # exponents; the error of a product grows with them
POWER = """
template <int P> static inline V power(V x) {
  if constexpr (P == 1) return x;
  else if constexpr (P % 2) return power<P - 1>(x) * x;
  else { const V half = power<P / 2>(x); return half * half; }
}
"""
Pull = Callable[["Dag", int, tuple[int, ...], int], tuple[int, ...]]


@dataclass(frozen=True)
class Operation:
    """One scalar operation.

    Attributes:
        torch: Computes it, elementwise.
        cpp: Spells it with at::vec::Vectorized; {0}, {1}, … are the arguments.
        pull: (dag, node, arguments, cotangent) -> cotangents of the arguments; None where the
            derivative is zero everywhere.
        commutative: The arguments may be swapped.
        absorbs: An infinite argument can give a finite result.
        mask: The result is a truth value.
    """

    torch: Callable[..., torch.Tensor]
    cpp: str
    pull: Pull | None = None
    commutative: bool = False
    absorbs: bool = True
    mask: bool = False


def spell(name: str, args: Sequence[str], values: Sequence[float | bool | None]) -> str:
    """Write an operation in C++; small powers are products, a tenth of the time of `pow`.

    Args:
        name: One of `OPERATIONS`.
        args: The arguments in C++.
        values: Those that are constant, None for the others.

    Returns:
        An expression; `POWER` has to stand above it.
    """
    if name == "pow" and values[1] in MULTIPLIED:
        return f"power<{int(values[1] or 0)}>({args[0]})"
    return OPERATIONS[name].cpp.format(*args)


def _local(derivative: Callable[[Dag, int, int], int]) -> Pull:
    """Pull of a function of one argument from its derivative, given (dag, argument, result)."""

    def pull(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
        return (dag.apply("mul", g, derivative(dag, args[0], node)),)

    return pull


def _chain(*names: str | float) -> Callable[[Dag, int, int], int]:
    """A derivative as steps on the argument: names of operations, numbers as factors."""

    def derivative(dag: Dag, x: int, y: int) -> int:
        for name in names:
            x = dag.apply(name, x) if isinstance(name, str) else _scale(dag, x, name)
        return x

    return derivative


def _scale(dag: Dag, x: int, factor: float) -> int:
    return dag.apply("mul", x, dag.constant(factor))


def _square(dag: Dag, x: int) -> int:
    return dag.apply("mul", x, x)


def _one_plus_square(dag: Dag, x: int, sign: str = "add") -> int:
    return dag.apply(sign, dag.constant(1.0), _square(dag, x))


def _unless_constant(dag: Dag, own: int, name: str, *args: int) -> int:
    """A cotangent; of a constant there is none, and what torch does not multiply cannot be NaN."""
    return dag.constant(0.0) if dag.value(own) is not None else dag.apply(name, *args)


def _pull_mul(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
    pairs = zip(args, reversed(args), strict=True)
    return tuple(_unless_constant(dag, own, "mul", g, other) for own, other in pairs)


def _pull_div(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
    quotient = dag.apply("div", g, args[1])
    return quotient, dag.apply("neg", _unless_constant(dag, args[1], "mul", quotient, node))


def _pull_where(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
    zero = dag.constant(0.0)
    return zero, dag.apply("where", args[0], g, zero), dag.apply("where", args[0], zero, g)


def _pull_pow(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
    x, p = args
    zero, one = dag.constant(0.0), dag.constant(1.0)
    slope = dag.apply("mul", p, dag.apply("pow", x, dag.apply("sub", p, one)))
    base = dag.apply("where", dag.apply("eq", p, zero), zero, dag.apply("mul", g, slope))
    if dag.value(p) is not None:
        return base, zero
    at_zero = dag.apply("and", dag.apply("eq", x, zero), dag.apply("ge", p, zero))
    rise = dag.apply("mul", g, dag.apply("mul", node, dag.apply("log", x)))
    return base, dag.apply("where", at_zero, zero, rise)


def _pull_atan2(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
    y, x = args
    scaled = dag.apply("div", g, dag.apply("add", _square(dag, y), _square(dag, x)))
    return dag.apply("mul", scaled, x), dag.apply("neg", dag.apply("mul", scaled, y))


def _pull_extreme(beats: str) -> Pull:
    """The larger (smaller) argument takes all; a tie is shared."""

    def pull(dag: Dag, node: int, args: tuple[int, ...], g: int) -> tuple[int, ...]:
        zero, half = dag.constant(0.0), _scale(dag, g, 0.5)
        tied = dag.apply("where", dag.apply("eq", *args), half, g)
        lost = (dag.apply(beats, args[1], args[0]), dag.apply(beats, args[0], args[1]))
        return tuple(dag.apply("where", mask, zero, tied) for mask in lost)

    return pull


def _tangent(dag: Dag, x: int, y: int) -> int:
    return _one_plus_square(dag, y)


def _unary(
    torch_function: Callable[..., torch.Tensor], pull: Pull | None, cpp: str = ""
) -> Operation:
    name = torch_function.__name__
    return Operation(torch_function, cpp or f"{{0}}.{name}()", pull)


def _comparison(torch_function: Callable[..., torch.Tensor], sign: str) -> Operation:
    return Operation(torch_function, f"({{0}} {sign} {{1}})", mask=True)


OPERATIONS: dict[str, Operation] = {
    "constant": Operation(torch.clone, ""),
    "input": Operation(torch.clone, ""),
    "add": Operation(
        torch.add, "({0} + {1})", lambda dag, node, args, g: (g, g), commutative=True, absorbs=False
    ),
    "sub": Operation(
        torch.sub,
        "({0} - {1})",
        lambda dag, node, args, g: (g, dag.apply("neg", g)),
        absorbs=False,
    ),
    "mul": Operation(torch.mul, "({0} * {1})", _pull_mul, commutative=True, absorbs=False),
    "neg": Operation(
        torch.neg, "{0}.neg()", lambda dag, node, args, g: (dag.apply("neg", g),), absorbs=False
    ),
    "div": Operation(torch.div, "({0} / {1})", _pull_div),
    "reciprocal": _unary(
        torch.reciprocal,
        _local(lambda dag, x, y: dag.apply("neg", _square(dag, y))),
        "(V(1) / {0})",
    ),
    "pow": Operation(torch.pow, "{0}.pow({1})", _pull_pow),
    "sqrt": _unary(
        torch.sqrt,
        lambda dag, node, args, g: (dag.apply("div", g, _scale(dag, node, 2.0)),),
    ),
    "rsqrt": _unary(
        torch.rsqrt,
        _local(lambda dag, x, y: _scale(dag, dag.apply("mul", y, _square(dag, y)), -0.5)),
        "(V(1) / {0}.sqrt())",
    ),
    "exp": _unary(torch.exp, _local(lambda dag, x, y: y)),
    "exp2": _unary(torch.exp2, _local(lambda dag, x, y: _scale(dag, y, math.log(2)))),
    "expm1": _unary(torch.expm1, _local(lambda dag, x, y: dag.apply("add", y, dag.constant(1.0)))),
    "log": _unary(torch.log, lambda dag, node, args, g: (dag.apply("div", g, args[0]),)),
    "log2": _unary(torch.log2, _local(_chain(math.log(2), "reciprocal"))),
    "log10": _unary(torch.log10, _local(_chain(math.log(10), "reciprocal"))),
    "log1p": _unary(
        torch.log1p,
        lambda dag, node, args, g: (
            dag.apply("div", g, dag.apply("add", args[0], dag.constant(1.0))),
        ),
    ),
    "sin": _unary(torch.sin, _local(_chain("cos"))),
    "cos": _unary(torch.cos, _local(_chain("sin", "neg"))),
    "tan": _unary(torch.tan, _local(_tangent)),
    "sinh": _unary(torch.sinh, _local(_chain("cosh"))),
    "cosh": _unary(torch.cosh, _local(_chain("sinh"))),
    "tanh": _unary(torch.tanh, _local(lambda dag, x, y: _one_plus_square(dag, y, "sub"))),
    "sigmoid": _unary(
        torch.sigmoid,
        _local(lambda dag, x, y: dag.apply("mul", y, dag.apply("sub", dag.constant(1.0), y))),
        "(V(1) / (V(1) + {0}.neg().exp()))",
    ),
    "asin": _unary(
        torch.asin, _local(lambda dag, x, y: dag.apply("rsqrt", _one_plus_square(dag, x, "sub")))
    ),
    "acos": _unary(
        torch.acos,
        _local(
            lambda dag, x, y: dag.apply("neg", dag.apply("rsqrt", _one_plus_square(dag, x, "sub")))
        ),
    ),
    "atan": _unary(
        torch.atan, _local(lambda dag, x, y: dag.apply("reciprocal", _one_plus_square(dag, x)))
    ),
    "asinh": _unary(
        torch.asinh,
        _local(lambda dag, x, y: dag.apply("rsqrt", _one_plus_square(dag, x))),
        "{0}.map(std::asinh)",
    ),
    "acosh": _unary(
        torch.acosh,
        _local(
            lambda dag, x, y: dag.apply(
                "rsqrt", dag.apply("sub", _square(dag, x), dag.constant(1.0))
            )
        ),
        "{0}.map(std::acosh)",
    ),
    "atanh": _unary(
        torch.atanh,
        _local(lambda dag, x, y: dag.apply("reciprocal", _one_plus_square(dag, x, "sub"))),
        "{0}.map(std::atanh)",
    ),
    "erf": _unary(
        torch.erf,
        _local(
            lambda dag, x, y: _scale(
                dag,
                dag.apply("exp", dag.apply("neg", _square(dag, x))),
                2 / math.sqrt(math.pi),
            )
        ),
    ),
    "erfc": _unary(
        torch.erfc,
        _local(
            lambda dag, x, y: _scale(
                dag,
                dag.apply("exp", dag.apply("neg", _square(dag, x))),
                -2 / math.sqrt(math.pi),
            )
        ),
    ),
    "abs": _unary(torch.abs, _local(_chain("sign"))),
    "sign": Operation(
        torch.sign, "(V::blendv(V(0), V(1), {0} > V(0)) - V::blendv(V(0), V(1), {0} < V(0)))"
    ),
    "floor": _unary(torch.floor, None),
    "ceil": _unary(torch.ceil, None),
    "round": _unary(torch.round, None),
    "trunc": _unary(torch.trunc, None),
    "stop": Operation(torch.clone, "{0}"),
    "atan2": Operation(torch.atan2, "{0}.atan2({1})", _pull_atan2),
    "maximum": Operation(torch.maximum, "at::vec::maximum({0}, {1})", _pull_extreme("gt")),
    "minimum": Operation(torch.minimum, "at::vec::minimum({0}, {1})", _pull_extreme("lt")),
    "where": Operation(torch.where, "V::blendv({2}, {1}, {0})", _pull_where),
    "lt": _comparison(torch.lt, "<"),
    "le": _comparison(torch.le, "<="),
    "gt": _comparison(torch.gt, ">"),
    "ge": _comparison(torch.ge, ">="),
    "eq": _comparison(torch.eq, "=="),
    "ne": _comparison(torch.ne, "!="),
    "and": Operation(torch.logical_and, "({0} & {1})", commutative=True, mask=True),
    "or": Operation(torch.logical_or, "({0} | {1})", commutative=True, mask=True),
    "not": Operation(torch.logical_not, "({0} ^ (V(0) == V(0)))", mask=True),
}
