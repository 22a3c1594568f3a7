"""A graph of scalar operations in which every node exists once."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

import torch

from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.operations import OPERATIONS

ZERO, ONE = 0, 1
STEPS = 100  # of derivation, per node of the budget
Node = tuple[str, tuple[int, ...]]


class Dag:
    """Nodes in an order in which arguments come first; node 0 is the number 0, node 1 is 1.

    Multiplications by a constant zero and untaken branches are folded away. Where the operand is
    infinite or NaN the full calculation would give NaN: such operands are remembered in `folded`,
    so that whoever evaluates the graph can look at them.

    Args:
        dtype: Precision in which constants are folded.
        budget: Most nodes; more are refused.

    Attributes:
        nodes: Operation and arguments of each node.
        folded: Operands that were folded away.
    """

    def __init__(self, dtype: torch.dtype, budget: int) -> None:
        self.dtype, self.budget = dtype, budget
        self._steps = 0
        self.nodes: list[Node] = []
        self.folded: set[int] = set()
        self._values: dict[int, float | bool] = {}
        self._known: dict[object, int] = {}
        self.constant(0.0)
        self.constant(1.0)

    def constant(self, value: float | bool) -> int:
        """The node of a number or a truth value; NaN and -0.0 are numbers of their own."""
        key = (type(value), struct.pack("d", value))
        if key not in self._known:
            self._known[key] = self._add("constant", ())
            self._values[self._known[key]] = value
        return self._known[key]

    def variable(self, index: int) -> int:
        """The node of input number `index`."""
        return self._once("input", (index,))

    def value(self, node: int) -> float | bool | None:
        """The value of a constant; None for everything else."""
        return self._values.get(node)

    def apply(self, name: str, *args: int) -> int:
        """The node of an operation on nodes, folded where it is constant or does nothing.

        Args:
            name: One of `OPERATIONS`.
            args: Nodes.

        Returns:
            The node.
        """
        self._spend(1)
        values = [self._values.get(arg) for arg in args]
        if None not in values:
            if (name, args) not in self._known:
                self._known[name, args] = self.constant(self._fold(name, values))
            return self._known[name, args]
        simpler = getattr(self, f"_simplify_{name}", None)
        node = simpler(*args) if simpler else None
        if node is not None:
            return int(node)
        if OPERATIONS[name].commutative and args[0] > args[1]:
            args = (args[1], args[0])
        return self._once(name, args)

    def total(self, terms: Iterable[int]) -> int:
        """Sum of nodes, by halves."""
        rest = list(terms) or [ZERO]
        while len(rest) > 1:
            pairs = zip(rest[::2], rest[1::2], strict=False)
            odd = rest[len(rest) - len(rest) % 2 :]
            rest = [self.apply("add", a, b) for a, b in pairs] + odd
        return rest[0]

    def needed(self, outputs: Iterable[int]) -> list[int]:
        """Nodes that outputs are computed from, arguments first.

        Args:
            outputs: Nodes.

        Returns:
            These and all that they depend on.
        """
        seen: set[int] = set()
        waiting = list(outputs)
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += self.arguments(node)
        self._spend(len(seen))
        return sorted(seen)

    def arguments(self, node: int) -> tuple[int, ...]:
        """Nodes that a node is computed from."""
        name, args = self.nodes[node]
        return () if name == "input" else args

    def _spend(self, steps: int) -> None:
        """Stop where the derivation itself takes longer than a compiler would."""
        self._steps += steps
        if self._steps > STEPS * self.budget:
            raise RefusedError("deriving it takes too many steps")

    def _once(self, name: str, args: tuple[int, ...]) -> int:
        key = (name, args)
        if key not in self._known:
            self._known[key] = self._add(name, args)
        return self._known[key]

    def _add(self, name: str, args: tuple[int, ...]) -> int:
        if len(self.nodes) >= self.budget:
            raise RefusedError(f"it needs more than {self.budget} scalar operations")
        self.nodes.append((name, args))
        return len(self.nodes) - 1

    def _fold(self, name: str, values: list[float | bool | None]) -> float | bool:
        tensors = [
            torch.tensor(value, dtype=torch.bool if isinstance(value, bool) else self.dtype)
            for value in values
        ]
        result: float | bool = OPERATIONS[name].torch(*tensors).item()
        return result

    def _drop(self, node: int) -> None:
        if node not in self._values:
            self.folded.add(node)

    def _simplify_add(self, a: int, b: int) -> int | None:
        if a == b:
            return self.apply("mul", a, self.constant(2.0))
        return b if a == ZERO else a if b == ZERO else None

    def _simplify_sub(self, a: int, b: int) -> int | None:
        if a == ZERO:
            return self.apply("neg", b)
        return a if b == ZERO else None

    def _simplify_mul(self, a: int, b: int) -> int | None:
        for factor, other in ((a, b), (b, a)):
            value = self._values.get(factor)
            if value == 0:
                self._drop(other)
                return ZERO
            if value in (1, -1):
                return other if value == 1 else self.apply("neg", other)
            inner = self._factor(other)
            if value is not None and inner and self._rounds_nothing(inner[0], value):
                return self.apply("mul", inner[1], self.constant(inner[0] * value))
        return None

    def _rounds_nothing(self, one: float, other: float) -> bool:
        """Whether two constants can be multiplied beforehand: what is too small loses digits."""
        limits = torch.finfo(self.dtype)
        fits = limits.smallest_normal <= abs(one * other) <= limits.max
        return fits and (_is_exact(one) or _is_exact(other))

    def _factor(self, node: int) -> tuple[float, int] | None:
        """The constant that a node is a multiple of, and the node that it multiplies."""
        name, args = self.nodes[node]
        values = [self._values.get(arg) for arg in args] if name == "mul" else []
        for value, other in zip(values, reversed(args), strict=False):
            if value is not None:
                return value, other
        return None

    def _simplify_div(self, a: int, b: int) -> int | None:
        if a == ZERO:
            self._drop(self.apply("reciprocal", b))
            return ZERO
        value = self._values.get(b)
        if value in (1, -1):
            return a if value == 1 else self.apply("neg", a)
        if value and _is_exact(value):
            return self.apply("mul", a, self.constant(1 / value))
        return None

    def _simplify_neg(self, a: int) -> int | None:
        name, args = self.nodes[a]
        if inner := self._factor(a):
            return self.apply("mul", inner[1], self.constant(-inner[0]))
        return args[0] if name == "neg" else None

    def _simplify_where(self, condition: int, a: int, b: int) -> int | None:
        if a == b:
            return a
        chosen = self._values.get(condition)
        if chosen is None:
            return None
        self._drop(b if chosen else a)
        return a if chosen else b

    def _simplify_pow(self, a: int, b: int) -> int | None:
        exponent = self._values.get(b)
        if exponent == 0:
            return ONE
        if exponent == 1:
            return a
        if exponent == 2:
            return self.apply("mul", a, a)
        if exponent == 3:
            return self.apply("mul", self.apply("mul", a, a), a)
        if exponent == 0.5:
            return self.apply("sqrt", a)
        if exponent == -1:
            return self.apply("reciprocal", a)
        return None


def _is_exact(factor: float) -> bool:
    """Multiplying by it rounds nothing: it is a power of two, and so is its reciprocal."""
    return math.frexp(factor)[0] in (0.5, -0.5) and math.isfinite(1 / factor)
