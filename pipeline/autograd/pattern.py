"""A pattern: the entries of a matrix that can be other than zero."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Pattern:
    """Entries of an (m, n) matrix in the order of compressed sparse rows.

    Attributes:
        shape: (m, n).
        rows: Row of each entry, int64 (nnz,), ascending.
        columns: Column of each entry, int64 (nnz,), ascending within a row.
        notes: What was taken for dense because no rule for it is known.
    """

    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor
    notes: tuple[str, ...] = ()

    @classmethod
    def of_flat(cls, flat: Tensor, shape: tuple[int, int], notes: Sequence[str] = ()) -> Pattern:
        """Make a pattern from positions.

        Args:
            flat: ``row * n + column`` of each entry, in any order, repeated or not.
            shape: (m, n).
            notes: What was taken for dense.

        Returns:
            The pattern.
        """
        ordered = torch.unique(flat.to("cpu", torch.int64))
        return cls(shape, ordered // shape[1], ordered % shape[1], tuple(notes))

    @classmethod
    def of_csr(cls, indptr: Tensor, indices: Tensor, shape: tuple[int, int]) -> Pattern:
        """Make a pattern from compressed sparse rows, in which columns need not be in order.

        Args:
            indptr: Where each row begins, (m + 1,).
            indices: Columns, (nnz,).
            shape: (m, n).

        Returns:
            The pattern.

        Raises:
            ConfigurationError: These are no compressed sparse rows of that shape.
        """
        indptr, indices = indptr.to(torch.int64), indices.to(torch.int64)
        counts = indptr.diff()
        fits = (
            len(indptr) == shape[0] + 1
            and int(indptr[0]) == 0
            and int(indptr[-1]) == len(indices)
            and bool((counts >= 0).all())
            and bool(((indices >= 0) & (indices < shape[1])).all())
        )
        if not fits:
            raise ConfigurationError(
                [f"sparsity: expected compressed sparse rows of a {shape[0]} x {shape[1]} matrix"]
            )
        rows = torch.repeat_interleave(torch.arange(shape[0]), counts)
        return cls.of_flat(rows * shape[1] + indices, shape)

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return len(self.columns)

    @property
    def density(self) -> float:
        """Part of the matrix that the entries are."""
        return self.nnz / max(self.shape[0] * self.shape[1], 1)

    @cached_property
    def flat(self) -> Tensor:
        """Position of each entry in the flattened matrix, int64 (nnz,), ascending."""
        return self.rows * self.shape[1] + self.columns

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

    @cached_property
    def mirror(self) -> Tensor:
        """Position of the transposed of each entry, int64 (nnz,), of a symmetric pattern."""
        return torch.searchsorted(self.flat, self.columns * self.shape[1] + self.rows)

    @property
    def is_symmetric(self) -> bool:
        """The transposed of every entry is an entry."""
        if self.shape[0] != self.shape[1]:
            return False
        transposed = self.columns * self.shape[1] + self.rows
        return torch.equal(transposed.sort().values, self.flat)

    def to_dense(self, values: Tensor) -> Tensor:
        """Fill in the zeros.

        Args:
            values: (…, nnz).

        Returns:
            (…, m, n).
        """
        dense = values.new_zeros((*values.shape[:-1], self.shape[0] * self.shape[1]))
        dense[..., self.flat.to(values.device)] = values
        return dense.reshape(*values.shape[:-1], *self.shape)

    def take(self, dense: Tensor) -> Tensor:
        """Keep the entries.

        Args:
            dense: (…, m, n).

        Returns:
            (…, nnz).
        """
        return dense.flatten(-2)[..., self.flat.to(dense.device)]
