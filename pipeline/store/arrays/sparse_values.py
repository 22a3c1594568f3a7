"""Sparse derivatives of one pattern, a row of values per point: what all ways to see them share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "SciPy is not installed; pip install 'pipeline-derivatives[sparse]', or use to_torch or to_dense"


class SparseValues(ABC):
    """N sparse arrays that share their pattern; every subclass is final.

    Args:
        values: (N, nnz), on disk or in memory: anything that is indexed like a NumPy array.
        shape: Of one of them.

    Attributes:
        values: The same.
        shape: That of all of them, N first.
    """

    def __init__(self, values: Any, shape: tuple[int, ...]) -> None:
        self.values, self.shape = values, (len(values), *shape)

    @property
    @abstractmethod
    def coordinates(self) -> tuple[NDArray[np.integer[Any]], ...]:
        """Index of each entry along every axis, (nnz,) each."""

    @abstractmethod
    def to_torch(self, index: int | slice) -> Tensor:
        """Give them to torch.

        Args:
            index: A point, or a slice of points.

        Returns:
            A sparse tensor of one point, or of B points with these first.
        """

    @abstractmethod
    def _to_scipy(self, values: NDArray[Any]) -> Any:
        """One of them, (nnz,), for SciPy."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> Any:
        """Give them to SciPy.

        Args:
            index: A point, or a slice of points.

        Returns:
            A sparse array of SciPy, or a list of them; they share what says where the entries lie.
        """
        values = np.asarray(self.values[index])
        if values.ndim == 1:
            return self._to_scipy(values)
        return [self._to_scipy(row) for row in values]

    def to_dense(self, index: int | slice) -> NDArray[Any]:
        """Fill in the zeros.

        Args:
            index: A point, or a slice of points.

        Returns:
            A NumPy array of one point, or of B points with these first.
        """
        values = np.asarray(self.values[index])
        dense = np.zeros((*values.shape[:-1], *self.shape[1:]), values.dtype)
        places: tuple[Any, ...] = (..., *self.coordinates)
        dense[places] = values
        return dense

    def pattern(self) -> Any:
        """Give the pattern to SciPy.

        Returns:
            A sparse array of ones, of type int8.
        """
        return self._to_scipy(np.ones(self.nnz, np.int8))

    @property
    def nnz(self) -> int:
        """Entries of each of them."""
        return len(self.coordinates[-1])

    @property
    def density(self) -> float:
        """Part of each of them that the entries are."""
        return self.nnz / max(math.prod(self.shape[1:]), 1)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape[1:]))
        what = "matrices" if len(self.shape) == 3 else "arrays"
        return f"<{self.shape[0]} {what} {size} of {self.nnz} entries>"
