"""Sparse matrices of one pattern, a row of values per point: for SciPy, torch, or filled in."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor


class SparseRows:
    """N sparse matrices (m, n) that share their pattern, as compressed sparse rows.

    Args:
        values: (N, nnz), on disk or in memory: anything that is indexed like a NumPy array.
        indptr: Where each row begins, (m + 1,).
        indices: Columns, ascending within a row, (nnz,).
        columns: n.

    Attributes:
        values: The same.
        indptr: The same.
        indices: The same.
        shape: (N, m, n).
    """

    def __init__(
        self, values: Any, indptr: NDArray[Any], indices: NDArray[Any], columns: int
    ) -> None:
        self.values, self.indptr, self.indices = values, indptr, indices
        self.shape = (len(values), len(indptr) - 1, columns)

    @property
    def nnz(self) -> int:
        """Entries of each matrix."""
        return len(self.indices)

    @property
    def density(self) -> float:
        """Part of each matrix that the entries are."""
        return self.nnz / max(self.shape[1] * self.shape[2], 1)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> Any:
        """Give matrices to SciPy.

        Args:
            index: A point, or a slice of points.

        Returns:
            A `scipy.sparse.csr_array` (m, n), or a list of them; they share indptr and indices.
        """
        values = np.asarray(self.values[index])
        return self._csr(values) if values.ndim == 1 else [self._csr(row) for row in values]

    def to_torch(self, index: int | slice) -> Tensor:
        """Give matrices to torch.

        Args:
            index: A point, or a slice of points.

        Returns:
            A sparse CSR tensor, (m, n) of a point, (B, m, n) of B points.
        """
        import torch

        values = torch.from_numpy(np.asarray(self.values[index]))
        lead = values.shape[:-1]
        indptr, indices = (
            torch.from_numpy(each.astype(np.int64)).expand(*lead, -1).contiguous()
            for each in (self.indptr, self.indices)
        )
        shape = (*lead, *self.shape[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that compressed rows are in beta state
            return torch.sparse_csr_tensor(indptr, indices, values, shape, check_invariants=False)

    def to_dense(self, index: int | slice) -> NDArray[Any]:
        """Fill in the zeros.

        Args:
            index: A point, or a slice of points.

        Returns:
            A NumPy array, (m, n) of a point, (B, m, n) of B points.
        """
        values = np.asarray(self.values[index])
        dense = np.zeros((*values.shape[:-1], *self.shape[1:]), values.dtype)
        dense[..., self.rows, self.indices] = values
        return dense

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each entry, (nnz,)."""
        return np.repeat(np.arange(self.shape[1]), np.diff(self.indptr))

    def pattern(self) -> csr_array:
        """Give the pattern to SciPy.

        Returns:
            A `scipy.sparse.csr_array` (m, n) of ones, of type int8.
        """
        return self._csr(np.ones(self.nnz, np.int8))

    def _csr(self, values: NDArray[Any]) -> csr_array:
        try:
            from scipy.sparse import csr_array
        except ImportError as error:
            raise StoreError(
                "SciPy is not installed; pip install 'pipeline-derivatives[sparse]', or use to_torch or to_dense"
            ) from error
        return csr_array((values, self.indices, self.indptr), shape=self.shape[1:])

    def __repr__(self) -> str:
        return f"<{self.shape[0]} matrices {self.shape[1]} x {self.shape[2]} of {self.nnz} entries>"
