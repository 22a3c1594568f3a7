"""What is evaluated, and how a route says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Evaluate = Callable[[Tensor], tuple[Tensor, ...]]


class RefusedError(Exception):
    """A route cannot evaluate a request; says why."""


@dataclass(frozen=True, eq=False)
class Request:
    """What a route has to evaluate.

    Attributes:
        f: Maps one point (n,) to `output_shape`.
        example: One point, (n,), of the dtype and on the device of all points.
        output_shape: () or (m,).
        orders: Orders asked for, ascending, each once.
    """

    f: Callable[[Tensor], Tensor]
    example: Tensor
    output_shape: tuple[int, ...]
    orders: tuple[int, ...]

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.example)

    @property
    def order(self) -> int:
        """Highest order k."""
        return self.orders[-1]

    @property
    def m(self) -> int:
        """Number of outputs; 1 for a scalar."""
        return self.output_shape[0] if self.output_shape else 1

    @property
    def directions(self) -> int:
        """Most directions that a level can have: outputs times inputs of the level below."""
        return max(self.n, self.m * int(self.n ** max(self.order - 1, 0)))

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one point's result for each order asked for."""
        return tuple(self.output_shape + (self.n,) * order for order in self.orders)
