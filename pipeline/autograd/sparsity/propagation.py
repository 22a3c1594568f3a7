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

import numpy as np
import torch
from torch import Tensor

from pipeline.autograd.sparsity.sets import (
    EMPTY,
    MOST,
    Numbers,
    SetTable,
    TooManyError,
    distinct,
    located,
)


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
        self._order, self._pairs = order, [np.zeros((0, 2), dtype=np.int64)]
        self._events_known = 0
        start = torch.from_numpy(self._inputs.singletons(np.arange(n)))
        self.start = Tracked(start, nothing((n,)).events)

    def join(self, *parts: Tracked) -> Tracked:
        """An operation that is linear in each of its operands, entry by entry.

        Args:
            parts: The operands; they are broadcast.

        Returns:
            The result.
        """
        inputs = _merged(self._inputs, [part.inputs for part in parts])
        events = [part.events for part in parts]
        if self._order < 2:  # there are none
            return Tracked(inputs, events[0].new_zeros(()).expand(inputs.shape))
        return Tracked(inputs, _merged(self._events, events))

    def bend(self, *parts: Tracked) -> Tracked:
        """An operation that is linear in none of its operands, entry by entry.

        Args:
            parts: The operands; they are broadcast.

        Returns:
            The result: everything that an entry depends on interacts.
        """
        inputs = _merged(self._inputs, [part.inputs for part in parts])
        return Tracked(inputs, self._meet(inputs, inputs))

    def multiply(self, a: Tracked, b: Tracked) -> Tracked:
        """A product, entry by entry.

        Args:
            a: One factor.
            b: The other; they are broadcast.

        Returns:
            The result.
        """
        inputs = _merged(self._inputs, [a.inputs, b.inputs])
        met = self._meet(*_broadcast(a.inputs, b.inputs))
        if self._order < 2:
            return Tracked(inputs, met)
        return Tracked(inputs, _merged(self._events, [a.events, b.events, met]))

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
        owners, count = _flat(groups), int(torch.Size(shape).numel())
        kept = owners >= 0

        def united(table: SetTable, numbers: Tensor) -> Tensor:
            made = table.unite(owners[kept], _flat(numbers)[kept], count)
            return torch.from_numpy(made).reshape(shape)

        return Tracked(united(self._inputs, part.inputs), united(self._events, part.events))

    def entries_of_jacobian(self, outputs: Tracked, n: int) -> Tensor:
        """Flat positions in the Jacobian that can be other than zero.

        Args:
            outputs: The outputs.
            n: Number of inputs.

        Returns:
            int64 (nnz,).
        """
        rows, columns = self._inputs.members(_flat(outputs.inputs))
        return torch.from_numpy(rows * n + columns)

    def entries_of_hessians(self, outputs: Tracked, n: int) -> Tensor:
        """Flat positions in the Hessians of the outputs, one after the other, that can be other than zero.

        Args:
            outputs: The outputs.
            n: Number of inputs.

        Returns:
            int64, of an array (m, n, n), some of them repeated; symmetric.

        Raises:
            TooManyError: There are too many.
        """
        output, events = self._events.members(_flat(outputs.events))
        left, right = np.concatenate(self._pairs)[events].T
        known = len(self._inputs)
        keys = distinct((output * known + left) * known + right)
        output, left, right = keys // known**2, keys // known % known, keys % known
        if int((self._inputs.sizes(left) * self._inputs.sizes(right)).sum()) > MOST:
            raise TooManyError
        event, rows = self._inputs.members(left)
        at, columns = self._inputs.members(right[event])
        owners, rows = output[event[at]] * n, rows[at]
        flat = distinct((owners + rows) * n + columns)
        mirrored = (flat // n**2 * n + flat % n) * n + flat // n % n
        return torch.from_numpy(np.concatenate([flat, mirrored]))

    def _meet(self, a: Tensor, b: Tensor) -> Tensor:
        """New events: the sets of a and b interact."""
        if self._order < 2:
            return a.new_zeros(()).expand(a.shape)
        left, right = _flat(a), _flat(b)
        met, both = np.zeros_like(left), (left != EMPTY) & (right != EMPTY)
        left, right = left[both], right[both]
        if len(left):
            known = len(self._inputs)
            pairs, inverse = located(np.minimum(left, right) * known + np.maximum(left, right))
            self._pairs.append(np.stack([pairs // known, pairs % known], 1))
            events = self._events_known + np.arange(len(pairs))
            self._events_known += len(pairs)
            met[both] = self._events.singletons(events)[inverse]
        return torch.from_numpy(met).reshape(a.shape)


def _merged(table: SetTable, parts: list[Tensor]) -> Tensor:
    """Unions of sets, entry by entry; the parts are broadcast."""
    result = parts[0]
    for part in parts[1:]:
        left, right = _broadcast(result, part)
        made = table.merge(_flat(left), _flat(right))
        result = torch.from_numpy(made).reshape(left.shape)
    return result


def _flat(numbers: Tensor) -> Numbers:
    return numbers.numpy().reshape(-1)


def _broadcast(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    left, right = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
    return left, right
