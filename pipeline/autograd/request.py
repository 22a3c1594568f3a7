"""What is evaluated, and how a route says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.packing import pack, packed_size, unpack
from pipeline.autograd.variable import WHOLE, OnPoint, Variable

Evaluate = Callable[[Tensor], tuple[Tensor, ...]]


class RefusedError(Exception):
    """A route cannot evaluate a request; says why."""


@dataclass(frozen=True, eq=False)
class Request:
    """What a route has to evaluate.

    Attributes:
        f: Maps one point (d,) to `output_shape`. What is differentiated is not f, but what `at` gives.
        example: One point, (d,), of the dtype and on the device of all points.
        output_shape: () or (m,).
        orders: Orders asked for, ascending, each once.
        variable: What f is differentiated with respect to.
        packed: Orders from 2 on are kept without their repetitions: a route that calculates only
            distinct entries gives these, `pipeline.autograd.packing`; the others give all.
    """

    f: OnPoint
    example: Tensor
    output_shape: tuple[int, ...]
    orders: tuple[int, ...]
    variable: Variable = WHOLE
    packed: bool = False

    def at(self, point: Tensor) -> tuple[OnPoint, Tensor]:
        """Give what is differentiated at a point.

        Args:
            point: (d,).

        Returns:
            g, which maps (n,) to `output_shape`, and the z, (n,), at which it is differentiated.
        """
        return self.variable.at(self.f, point)

    def variables(self, points: Tensor) -> Tensor:
        """Give the z at many points.

        Args:
            points: (B, d).

        Returns:
            (B, n); the points themselves where they are what is differentiated.
        """
        if self.variable is WHOLE:
            return points
        result: Tensor = torch.func.vmap(lambda point: self.at(point)[1])(points)
        return result

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.variable.size(len(self.example))

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
        """Most directions that a level can have: outputs times variables of the level below."""
        return max(self.n, self.m * int(self.n ** max(self.order - 1, 0)))

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of what is kept of one point for each order asked for."""
        return tuple(self.output_shape + self._inputs(order) for order in self.orders)

    def _inputs(self, order: int) -> tuple[int, ...]:
        if self.packed and order > 1:
            return (packed_size(self.n, order),)
        return (self.n,) * order

    def _is_packed(self, level: Tensor, order: int) -> bool:
        """Whether a level (B, *output_shape, …) of an order is without its repetitions."""
        return order > 1 and level.ndim == 2 + len(self.output_shape)

    def keep(self, level: Tensor, order: int) -> Tensor:
        """Leave out what is not kept.

        Args:
            level: (B, *output_shape) + (n,) * order, or what is kept of it.
            order: Its order.

        Returns:
            What is kept, (B, …).
        """
        if not self.packed or order < 2 or self._is_packed(level, order):
            return level
        return pack(level, order)

    def full(self, level: Tensor, order: int) -> Tensor:
        """Fill in what is not kept.

        Args:
            level: (B, *output_shape) + (n,) * order, or what is kept of it.
            order: Its order.

        Returns:
            (B, *output_shape) + (n,) * order.
        """
        return unpack(level, order) if self._is_packed(level, order) else level
