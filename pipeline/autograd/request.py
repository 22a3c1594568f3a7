"""What is evaluated, and how a route says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.definitions.contractions import Contraction
from pipeline.autograd.functions.half_precision import Precision, precision_of
from pipeline.autograd.functions.variable import WHOLE, OnPoint, Variable
from pipeline.autograd.packing import pack, packed_size, unpack
from pipeline.autograd.pattern import Pattern

Evaluate = Callable[[Tensor], tuple[Tensor, ...]]
Key = int | Contraction  # order of a whole derivative, or a sum over its entries


def order_of(key: Key) -> int:
    """How often the function is differentiated for it."""
    return key if isinstance(key, int) else key.order


def spell_key(key: Key) -> str:
    """A key in words."""
    return f"order {key}" if isinstance(key, int) else str(key)


class RefusedError(Exception):
    """A route cannot evaluate a request; says why."""


@dataclass(frozen=True, eq=False)
class Request:
    """What a route has to evaluate.

    Attributes:
        f: Maps one point (d,) to `output_shape`. What is differentiated is not f, but what `at` gives.
        example: One point, (d,), of the dtype and on the device of all points.
        output_shape: () or (m,).
        orders: Orders of whole derivatives asked for, ascending, each once.
        variable: What f is differentiated with respect to.
        packed: Orders from 2 on are kept without their repetitions: a route that calculates only
            distinct entries gives these, `pipeline.autograd.packing`; the others give all.
        contractions: Sums over entries of derivatives asked for.
        pattern: Entries of the highest order that are kept, where the others are known to be zero; a
            route may give these alone, (B, nnz), or all.
        evaluated_in: Precision in which f is evaluated, where that is not the one of the points.
        text: Call by which f makes text of values, where it does: those of a batch are no such values.
    """

    f: OnPoint
    example: Tensor
    output_shape: tuple[int, ...]
    orders: tuple[int, ...]
    variable: Variable = WHOLE
    packed: bool = False
    contractions: tuple[Contraction, ...] = ()
    pattern: Pattern | None = None
    evaluated_in: Precision | None = None
    text: str = ""

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
    def precision(self) -> Precision:
        """In which f is evaluated."""
        return self.evaluated_in or precision_of(self.example)

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.variable.size(len(self.example))

    @property
    def keys(self) -> tuple[Key, ...]:
        """Everything asked for, in the order in which routes give it."""
        return (*self.orders, *self.contractions)

    @property
    def order(self) -> int:
        """Highest order k, of anything."""
        return max(order_of(key) for key in self.keys)

    @property
    def whole_order(self) -> int:
        """Highest order of a whole derivative; 0 where there is none."""
        return max(self.orders, default=0)

    def has_whole(self, contraction: Contraction) -> bool:
        """Whether the derivative that is contracted is asked for as a whole."""
        return contraction.order in self.orders

    @property
    def m(self) -> int:
        """Number of outputs; 1 for a scalar."""
        return self.output_shape[0] if self.output_shape else 1

    @property
    def directions(self) -> int:
        """Most directions that a level can have: outputs times variables of the level below."""
        return max(self.n, self.m * int(self.n ** max(self.order - 1, 0)))

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of what is kept of one point, for each key."""
        wholes = [self._shape(order) for order in self.orders]
        return (*wholes, *(item.shape(self.n, self.output_shape) for item in self.contractions))

    @property
    def matrix_order(self) -> int:
        """Order at which derivatives are matrices: no lower one has a pattern."""
        return 1 if self.output_shape else 2

    @property
    def sparse_order(self) -> int:
        """Order that may have a pattern: the highest one, from that of matrices on."""
        return max(self.whole_order, self.matrix_order)

    @property
    def sparse_shape(self) -> tuple[int, ...]:
        """Shape of what may have a pattern, zeros included."""
        return self.output_shape + (self.n,) * self.sparse_order

    def is_sparse(self, level: Tensor, key: Key) -> bool:
        """Tell whether a level holds the entries of the pattern alone.

        Args:
            level: (B, …).
            key: Its order, or a contraction.

        Returns:
            False for a level with all of its entries.
        """
        return self.pattern is not None and key == self.sparse_order and level.ndim == 2

    def _shape(self, order: int) -> tuple[int, ...]:
        if self.pattern is not None and order == self.sparse_order:
            return (self.pattern.nnz,)
        return self.output_shape + self._inputs(order)

    def _inputs(self, order: int) -> tuple[int, ...]:
        if self.packed and order > 1:
            return (packed_size(self.n, order),)
        return (self.n,) * order

    def _is_packed(self, level: Tensor, key: Key) -> bool:
        """Whether a level (B, *output_shape, …) of an order is without its repetitions."""
        return isinstance(key, int) and key > 1 and level.ndim == 2 + len(self.output_shape)

    def keep(self, level: Tensor, key: Key) -> Tensor:
        """Leave out what is not kept.

        Args:
            level: (B, *output_shape) + (n,) * order, or what is kept of it; or a contraction.
            key: Its order, or the contraction.

        Returns:
            What is kept, (B, …).
        """
        if self.pattern is not None and key == self.sparse_order:
            return level if self.is_sparse(level, key) else self.pattern.take(level)
        if (
            isinstance(key, Contraction)
            or not self.packed
            or key < 2
            or self._is_packed(level, key)
        ):
            return level
        return pack(level, key)

    def comparable(self, level: Tensor, key: Key) -> Tensor:
        """Fill in repetitions, but no zeros of a pattern: what is compared with the reference.

        Args:
            level: (B, …), whole or what is kept of it.
            key: Its order, or a contraction.

        Returns:
            (B, nnz) of a level that holds the entries of the pattern, else `full`.
        """
        return level if self.is_sparse(level, key) else self.full(level, key)

    def full(self, level: Tensor, key: Key) -> Tensor:
        """Fill in what is not kept.

        Args:
            level: (B, *output_shape) + (n,) * order, or what is kept of it; or a contraction.
            key: Its order, or the contraction.

        Returns:
            (B, *output_shape) + (n,) * order; a contraction as it is.
        """
        if self.pattern is not None and self.is_sparse(level, key):
            return self.pattern.to_dense(level)
        return unpack(level, order_of(key)) if self._is_packed(level, key) else level
