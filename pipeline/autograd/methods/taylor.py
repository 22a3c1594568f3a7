"""Taylor mode of second order: values, first and second derivatives pushed forward together.

Every intermediate result carries its derivative along each of the n variables, and its second
derivatives by each variable, or only their sum: sums pass through what is linear, so that the
Laplacian needs one second derivative in place of n, and no backward pass.

Sources: A. Griewank, J. Utke and A. Walther, Evaluating higher derivative tensors by forward
propagation of univariate Taylor series, Math. Comp. 69 (2000) 1117; R. Li et al., A computational
framework for neural network-based variational Monte Carlo with Forward Laplacian, Nature Machine
Intelligence 6 (2024) 209; F. Dangel et al., Collapsing Taylor mode automatic differentiation (2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter
from torch.utils._pytree import tree_flatten, tree_unflatten

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.expand import MOVES, OTHER_NAME, trace
from pipeline.autograd.scalar.plain import require_plain

JOINTLY = {"add", "sub", "cat", "stack"}  # linear where nothing else takes part
LINEAR = {*MOVES.split(), *JOINTLY, "sum", "mean", "neg", "cumsum"}
BILINEAR = {"mul", "mm", "mv", "bmm", "dot", "matmul"}
UNARY = """
    abs acos acosh asin asinh atan atanh cos cosh erf erfc exp exp2 expm1 log log10 log1p log2 pow
    reciprocal relu rsqrt sigmoid sin sinh softplus sqrt square tan tanh
"""
SPLIT = {
    torch.ops.aten.addmm.default: torch.ops.aten.mm.default,
    torch.ops.aten.addmv.default: torch.ops.aten.mv.default,
}
STOPS = {name for name, meaning in OTHER_NAME.items() if meaning == "stop"}


@dataclass(frozen=True)
class Jet:
    """A value with its derivatives by the n variables.

    Attributes:
        value: Of any shape s.
        first: (n, *s).
        second: (n, *s), or their sum, s.
    """

    value: Tensor
    first: Tensor
    second: Tensor


def push_forward(
    f: Callable[[Tensor], Tensor], example: Tensor, n: int, summed: bool
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Prepare Taylor mode of a function by its first n inputs.

    Args:
        f: Maps one point to a tensor.
        example: One point.
        n: Number of variables; the inputs behind them are held.
        summed: Whether second derivatives are added over the variables.

    Returns:
        A function from one point to the value, with first (n, …) and second derivatives (n, …), or
        their sum (…).

    Raises:
        RefusedError: The function does not follow from the operations that it is made of.
    """
    require_plain(f, example)
    module = trace(f, example)

    def evaluate(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = torch.eye(n, len(point), dtype=point.dtype, device=point.device)
        second = torch.zeros(len(point), dtype=point.dtype, device=point.device)
        start = Jet(point, first, second if summed else torch.zeros_like(first))
        result = _Pusher(module, summed).run(start)
        if isinstance(result, Jet):
            return result.value, result.first, result.second
        zeros = result.new_zeros((n, *result.shape))  # a constant
        return result, zeros, result.new_zeros(result.shape) if summed else zeros

    return evaluate


class _Pusher(Interpreter):
    """Runs a graph on jets."""

    def __init__(self, module: GraphModule, summed: bool) -> None:
        super().__init__(module)
        self.summed, self.extra_traceback = summed, False

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in SPLIT and not kwargs:
            bias, *factors = args
            product = self.call_function(SPLIT[target], tuple(factors), {})
            return self.call_function(torch.ops.aten.add.Tensor, (product, bias), {})
        flat, form = tree_flatten((args, kwargs))
        places = [place for place, item in enumerate(flat) if isinstance(item, Jet)]
        name = str(getattr(target, "overloadpacket", target)).removeprefix("aten.")
        jets = [flat[place] for place in places]

        def op(*inputs: Tensor) -> Any:
            filled = list(flat)
            for place, item in zip(places, inputs, strict=True):
                filled[place] = item
            positional, named = tree_unflatten(filled, form)
            return target(*positional, **named)

        value = op(*(jet.value for jet in jets))
        if not jets or name in STOPS or _is_discrete(value):
            return value
        if name in ("add", "sub") and len(jets) == 1:
            return self._shift(jets[0], value, -1 if name == "sub" and places == [1] else 1, kwargs)
        alone = not kwargs and not any(isinstance(item, Tensor | float) for item in flat)
        return self._push(_Step(name, op, jets, alone), value)

    def _shift(self, jet: Jet, value: Tensor, sign: int, kwargs: Any) -> Jet:
        """A sum with a constant, or a difference."""
        if kwargs.get("alpha", 1) != 1:
            raise RefusedError("Taylor mode has no rule for a scaled sum")
        added = [1] * (value.ndim - jet.value.ndim)

        def wide(tangents: Tensor) -> Tensor:  # a number stands before the axes that are added
            lined = tangents.reshape(len(tangents), *added, *jet.value.shape)
            return (sign * lined).expand(len(tangents), *value.shape)

        second = (sign * jet.second).expand(value.shape) if self.summed else wide(jet.second)
        return Jet(value, wide(jet.first), second)

    def _push(self, step: _Step, value: Any) -> Any:
        if step.is_linear:
            return self._linear(step, value)
        if not isinstance(value, Tensor):
            raise RefusedError(f"Taylor mode has no rule for the several results of {step.name}")
        if step.is_bilinear:
            return self._bilinear(step, value)
        if step.name in UNARY.split() and [jet.value.shape for jet in step.jets] == [value.shape]:
            return self._unary(step, value)
        return self._any(step, value)

    def _linear(self, step: _Step, value: Any) -> Any:
        """The operation itself, on the derivatives."""
        over = torch.func.vmap(step.op)
        first = over(*(jet.first for jet in step.jets))
        second = (step.op if self.summed else over)(*(jet.second for jet in step.jets))
        if isinstance(value, Tensor):
            return Jet(value, first, second)
        return [Jet(*parts) for parts in zip(value, first, second, strict=True)]

    def _bilinear(self, step: _Step, value: Tensor) -> Jet:
        """The product rule."""
        (a, b), op = step.jets, step.op
        left, right = torch.func.vmap(op, (0, None)), torch.func.vmap(op, (None, 0))
        first = left(a.first, b.value) + right(a.value, b.first)
        cross = 2 * torch.func.vmap(op)(a.first, b.first)
        if self.summed:
            return Jet(value, first, op(a.second, b.value) + op(a.value, b.second) + cross.sum(0))
        return Jet(value, first, left(a.second, b.value) + right(a.value, b.second) + cross)

    def _unary(self, step: _Step, value: Tensor) -> Jet:
        """``φ(x)'' = φ'(x) x'' + φ''(x) x'²``, entry by entry."""
        (jet,) = step.jets
        one = torch.ones_like(jet.value)
        slope, bend = _jvp(lambda x: _jvp(step.op, (x,), (one,))[1], (jet.value,), (one,))
        square = jet.first.square()
        curved = bend * (square.sum(0) if self.summed else square)
        return Jet(value, slope * jet.first, slope * jet.second + curved)

    def _any(self, step: _Step, value: Tensor) -> Jet:
        """Forward mode through the operation, once and twice along every direction."""
        values = tuple(jet.value for jet in step.jets)

        def along(*tangents: Tensor) -> Tensor:
            result: Tensor = _jvp(step.op, values, tangents)[1]
            return result

        def twice(*tangents: Tensor) -> Tensor:
            result: Tensor = _jvp(lambda *x: _jvp(step.op, x, tangents)[1], values, tangents)[1]
            return result

        firsts = [jet.first for jet in step.jets]
        seconds = [jet.second for jet in step.jets]
        over = torch.func.vmap(along)
        curved = torch.func.vmap(twice)(*firsts)
        if self.summed:
            return Jet(value, over(*firsts), along(*seconds) + curved.sum(0))
        return Jet(value, over(*firsts), over(*seconds) + curved)


@dataclass(frozen=True)
class _Step:
    """One operation of the graph.

    Attributes:
        name: Of the operation.
        op: It, as a function of the values that depend on the variables.
        jets: These values.
        alone: No other number takes part.
    """

    name: str
    op: Callable[..., Any]
    jets: list[Jet]
    alone: bool

    @property
    def is_linear(self) -> bool:
        """In all that depends on the variables together."""
        if len(self.jets) == 1:
            return self.name in LINEAR | BILINEAR and (self.alone or self.name not in JOINTLY)
        return self.name in JOINTLY and self.alone

    @property
    def is_bilinear(self) -> bool:
        """In two values that depend on the variables."""
        return self.name in BILINEAR and len(self.jets) == 2


def _jvp(f: Any, values: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Any, Any]:
    value, derivative = torch.func.jvp(f, values, tangents)  # type: ignore[misc]
    return value, derivative


def _is_discrete(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point()
