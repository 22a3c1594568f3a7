"""Sparse matrices of one pattern, a row of values per point: for SciPy, torch, or filled in."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.arrays.sparse_values import INSTALL, SparseValues

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor


class SparseRows(SparseValues):
    """N sparse matrices (m, n) that share their pattern, as compressed sparse rows.

    Args:
        values: (N, nnz), on disk or in memory: anything that is indexed like a NumPy array.
        indptr: Where each row begins, (m + 1,).
        indices: Columns, ascending within a row, (nnz,).
        columns: n.

    Attributes:
        indptr: The same.
        indices: The same.
    """

    def __init__(
        self, values: Any, indptr: NDArray[Any], indices: NDArray[Any], columns: int
    ) -> None:
        super().__init__(values, (len(indptr) - 1, columns))
        self.indptr, self.indices = indptr, indices

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each entry, (nnz,)."""
        return np.repeat(np.arange(self.shape[1]), np.diff(self.indptr))

    @property
    def coordinates(self) -> tuple[NDArray[np.integer[Any]], ...]:
        """Row and column of each entry, (nnz,) each."""
        return self.rows, self.indices

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

    def _to_scipy(self, values: NDArray[Any]) -> csr_array:
        try:
            from scipy.sparse import csr_array
        except ImportError as error:
            raise StoreError(INSTALL) from error
        return csr_array((values, self.indices, self.indptr), shape=self.shape[1:])
