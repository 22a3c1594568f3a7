"""Which inputs every entry of a tensor depends on, and which pairs of inputs not only additively.

First order: the set of inputs of an entry. Second order: an operation that is not linear lets the
inputs of its operands interact; such an *event* stands for all pairs from two sets of inputs, and
an entry carries the set of events that it depends on. Both follow the chain rule from operand to
result, as the second-order tracers of SparseConnectivityTracer.jl do (Hill & Dalle 2025,
arXiv:2501.17737), for whole tensors at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.sparsity.sets import EMPTY, MOST, SetTable, TooManyError


@dataclass(frozen=True)
class Tracked:
    """What the entries of a tensor depend on: numbers of sets, of the shape of the tensor.

    Attributes:
        inputs: Inputs of each entry.
        events: Events of each entry; all empty where no second order is asked for.
    """

    inputs: Tensor
    events: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return self.inputs.shape

    def map(self, move: Callable[[Tensor], Tensor]) -> Tracked:
        """Move the entries of both in the same way."""
        return Tracked(move(self.inputs), move(self.events))

    def __getitem__(self, index: Any) -> Tracked:
        return Tracked(self.inputs[index], self.events[index])

    def reshape(self, *shape: Any) -> Tracked:
        """As torch does."""
        return Tracked(self.inputs.reshape(*shape), self.events.reshape(*shape))

    def expand(self, *shape: Any) -> Tracked:
        """As torch does."""
        return Tracked(self.inputs.expand(*shape), self.events.expand(*shape))


def nothing(shape: torch.Size | tuple[int, ...]) -> Tracked:
    """Entries without derivatives.

    Args:
        shape: Of the tensor.

    Returns:
        Empty sets.
    """
    empty = torch.zeros(shape, dtype=torch.int64)
    return Tracked(empty, empty)


class Propagation:
    """The sets of one function, and what operations do to them.

    Args:
        n: Number of inputs.
        order: 1 or 2.

    Attributes:
        start: The inputs themselves.
    """

    def __init__(self, n: int, order: int) -> None:
        self._inputs, self._events = SetTable(), SetTable()
        self._order, self._pairs = order, [torch.zeros((0, 2), dtype=torch.int64)]
        self._events_known = 0
        self.start = Tracked(self._inputs.singletons(torch.arange(n)), nothing((n,)).events)

    def join(self, *parts: Tracked) -> Tracked:
        """An operation that is linear in each of its operands, entry by entry.

        Args:
            parts: The operands; they are broadcast.

        Returns:
            The result.
        """
        result = parts[0]
        for part in parts[1:]:
            inputs = self._inputs.merge(*_broadcast(result.inputs, part.inputs))
            events = self._events.merge(*_broadcast(result.events, part.events))
            result = Tracked(inputs, events)
        return result

    def bend(self, *parts: Tracked) -> Tracked:
        """An operation that is linear in none of its operands, entry by entry.

        Args:
            parts: The operands; they are broadcast.

        Returns:
            The result: everything that an entry depends on interacts.
        """
        inputs = self.join(*(Tracked(part.inputs, torch.zeros_like(part.inputs)) for part in parts))
        return Tracked(inputs.inputs, self._meet(inputs.inputs, inputs.inputs))

    def multiply(self, a: Tracked, b: Tracked) -> Tracked:
        """A product, entry by entry.

        Args:
            a: One factor.
            b: The other; they are broadcast.

        Returns:
            The result.
        """
        left, right = _broadcast(a.inputs, b.inputs)
        met = self._meet(left, right)
        return self.join(a, b, Tracked(torch.zeros_like(met), met))

    def unite(self, part: Tracked, groups: Tensor, shape: tuple[int, ...]) -> Tracked:
        """Sums of entries.

        Args:
            part: The entries.
            groups: Flat position in the result to which each entry contributes, of the same shape;
                negative where it contributes to none.
            shape: Shape of the result.

        Returns:
            The result.
        """
        kept = groups.reshape(-1) >= 0
        owners, count = groups.reshape(-1)[kept], int(torch.Size(shape).numel())
        inputs = self._inputs.unite(owners, part.inputs.reshape(-1)[kept], count)
        events = self._events.unite(owners, part.events.reshape(-1)[kept], count)
        return Tracked(inputs.reshape(shape), events.reshape(shape))

    def entries_of_jacobian(self, outputs: Tracked, n: int) -> Tensor:
        """Flat positions in the Jacobian that can be other than zero.

        Args:
            outputs: The outputs.
            n: Number of inputs.

        Returns:
            int64 (nnz,).
        """
        rows, columns = self._inputs.members(outputs.inputs.reshape(-1))
        return rows * n + columns

    def entries_of_hessian(self, outputs: Tracked, n: int) -> Tensor:
        """Flat positions in the Hessian of any of the outputs that can be other than zero.

        Args:
            outputs: The outputs.
            n: Number of inputs.

        Returns:
            int64, some of them repeated; symmetric.

        Raises:
            TooManyError: There are too many.
        """
        events = torch.unique(self._events.members(torch.unique(outputs.events))[1])
        left, right = torch.cat(self._pairs)[events].unbind(1)
        keys, known = torch.unique(left * len(self._inputs) + right), len(self._inputs)
        left, right = keys // known, keys % known
        total = (self._inputs.sizes(left) * self._inputs.sizes(right)).sum()
        if int(total) > MOST:
            raise TooManyError
        event, rows = self._inputs.members(left)
        at, columns = self._inputs.members(right[event])
        flat = torch.unique(rows[at] * n + columns)
        return torch.cat([flat, flat % n * n + flat // n])

    def _meet(self, a: Tensor, b: Tensor) -> Tensor:
        """New events: the sets of a and b interact."""
        met = torch.zeros(a.shape, dtype=torch.int64)
        both = ((a != EMPTY) & (b != EMPTY)).reshape(-1)
        if self._order < 2 or not bool(both.any()):
            return met
        left, right = a.reshape(-1)[both], b.reshape(-1)[both]
        keys = torch.minimum(left, right) * len(self._inputs) + torch.maximum(left, right)
        pairs, inverse = torch.unique(keys, return_inverse=True)
        first = self._events_known
        self._events_known += len(pairs)
        self._pairs.append(torch.stack([pairs // len(self._inputs), pairs % len(self._inputs)], 1))
        made = self._events.singletons(torch.arange(first, self._events_known))
        met.view(-1)[both] = made[inverse]
        return met


def _broadcast(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    left, right = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
    return left, right
