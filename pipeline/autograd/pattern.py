"""A pattern: the entries of a matrix, or of a tensor of more indices, that can be other than zero."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pattern:
    """Entries of an (m, n) matrix in the order of compressed sparse rows.

    A tensor of more indices is the matrix whose rows are all but its last one: (m, n, n) has m n rows.

    Attributes:
        shape: (m, n), or that of the tensor.
        rows: Row of each entry, int64 (nnz,), ascending.
        columns: Column of each entry, int64 (nnz,), ascending within a row.
        notes: What was taken for dense because no rule for it is known.
    """

    shape: tuple[int, ...]
    rows: Tensor
    columns: Tensor
    notes: tuple[str, ...] = ()

    @classmethod
    def of_flat(cls, flat: Tensor, shape: tuple[int, ...], notes: Sequence[str] = ()) -> Pattern:
        """Make a pattern from positions.

        Args:
            flat: ``row * n + column`` of each entry, in any order, repeated or not.
            shape: (m, n), or that of the tensor.
            notes: What was taken for dense.

        Returns:
            The pattern.
        """
        ordered = torch.unique(flat.to("cpu", torch.int64))
        return cls(tuple(shape), ordered // shape[-1], ordered % shape[-1], tuple(notes))

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return len(self.columns)

    @property
    def density(self) -> float:
        """Part of the matrix that the entries are."""
        return self.nnz / max(math.prod(self.shape), 1)

    @cached_property
    def flat(self) -> Tensor:
        """Position of each entry in the flattened matrix, int64 (nnz,), ascending."""
        return self.rows * self.shape[-1] + self.columns

    @cached_property
    def coordinates(self) -> Tensor:
        """Index of each entry along every axis, int64 (axes, nnz)."""
        places, rest = [self.columns], self.rows
        for size in self.shape[-2:0:-1]:
            places.append(rest % size)
            rest = rest // size
        return torch.stack([rest, *reversed(places)])

    @property
    def digest(self) -> str:
        """Names the shape and the entries."""
        entries = hashlib.sha256(str(tuple(self.shape)).encode())
        entries.update(self.flat.numpy().tobytes())
        return entries.hexdigest()[:16]

    @cached_property
    def indptr(self) -> Tensor:
        """Where each row begins, int64 (m + 1,)."""
        counts = torch.bincount(self.rows, minlength=self.shape[0])
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def ascending(self, order: int) -> Tensor:
        """Position in the flattened tensor of each entry with its last indices in ascending order.

        Args:
            order: How many of the last indices.

        Returns:
            int64 (nnz,).
        """
        places = self.coordinates
        return self._at([*places[:-order], *places[-order:].sort(dim=0).values])

    def exchanged(self, axis: int) -> Tensor:
        """Position of each entry with two neighbouring indices exchanged, of a symmetric pattern.

        Args:
            axis: The second of their axes, counted from the end: -1 for the last two.

        Returns:
            int64 (nnz,).
        """
        return torch.searchsorted(self.flat, self._exchanged(axis))

    def is_symmetric(self, order: int) -> bool:
        """Tell whether every entry is one with its last indices in any other order.

        Args:
            order: How many of the last indices.

        Returns:
            Whether it is.
        """
        if len(set(self.shape[-order:])) > 1:
            return False
        turned = (self._exchanged(axis) for axis in range(-1, -order, -1))
        return all(torch.equal(flat.sort().values, self.flat) for flat in turned)

    def _exchanged(self, axis: int) -> Tensor:
        places = list(self.coordinates)
        places[axis], places[axis - 1] = places[axis - 1], places[axis]
        return self._at(places)

    def _at(self, places: Sequence[Tensor]) -> Tensor:
        flat = places[0]
        for size, place in zip(self.shape[1:], places[1:], strict=True):
            flat = torch.add(place, flat, alpha=size)
        return flat

    def to_dense(self, values: Tensor) -> Tensor:
        """Fill in the zeros.

        Args:
            values: (…, nnz).

        Returns:
            (…, m, n), or of the shape of the tensor.
        """
        dense = values.new_zeros((*values.shape[:-1], math.prod(self.shape)))
        dense[..., self.flat.to(values.device)] = values
        return dense.reshape(*values.shape[:-1], *self.shape)

    def take(self, dense: Tensor) -> Tensor:
        """Keep the entries.

        Args:
            dense: (…, m, n), or of the shape of the tensor.

        Returns:
            (…, nnz).
        """
        return dense.flatten(-len(self.shape))[..., self.flat.to(dense.device)]
