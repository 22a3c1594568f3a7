"""Sparse derivatives of more than two indices and one pattern: for SciPy, torch, or filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.arrays.sparse_values import INSTALL, SparseValues

if TYPE_CHECKING:
    from scipy.sparse import coo_array
    from torch import Tensor


class SparseTensors(SparseValues):
    """N sparse arrays of three indices or more that share their pattern, by coordinates.

    Args:
        values: (N, nnz), on disk or in memory: anything that is indexed like a NumPy array.
        entries: Where each entry lies in the flattened array, ascending, (nnz,).
        shape: Of one array, such as (m, n, n).
    """

    def __init__(self, values: Any, entries: NDArray[Any], shape: tuple[int, ...]) -> None:
        super().__init__(values, shape)
        self._coordinates = tuple(np.unravel_index(entries, shape))

    @property
    def coordinates(self) -> tuple[NDArray[np.integer[Any]], ...]:
        """Index of each entry along every axis, (nnz,) each."""
        return self._coordinates

    def to_torch(self, index: int | slice) -> Tensor:
        """Give arrays to torch.

        Args:
            index: A point, or a slice of points.

        Returns:
            A sparse COO tensor of the shape of one array, or of B points with these first.
        """
        import torch

        values = torch.from_numpy(np.asarray(self.values[index]))
        places = torch.from_numpy(np.stack(self.coordinates).astype(np.int64))
        if values.ndim > 1:
            points = torch.arange(len(values)).repeat_interleave(self.nnz)
            places = torch.cat([points[None], places.repeat(1, len(values))])
        shape = (*values.shape[:-1], *self.shape[1:])
        return torch.sparse_coo_tensor(
            places, values.reshape(-1), shape, is_coalesced=True, check_invariants=False
        )

    def _to_scipy(self, values: NDArray[Any]) -> coo_array:
        try:
            from scipy.sparse import coo_array
        except ImportError as error:
            raise StoreError(INSTALL) from error
        try:
            return coo_array((values, self.coordinates), shape=self.shape[1:])
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"this SciPy has no sparse arrays of {len(self.shape) - 1} indices; use SciPy 1.15 or "
                "later, or to_torch or to_dense"
            ) from error
