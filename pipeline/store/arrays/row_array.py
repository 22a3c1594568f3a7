"""A dataset with a row per point that is indexed like a NumPy array."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.arrays.selection import Positions, select, select_outer, take_outer
from pipeline.store.layout import Dataset


class RowArray(ABC):
    """A dataset on disk with a row per point; every subclass is final.

    Indexing gives what NumPy would give, as a new array. Any number of threads may read, and so
    may forked processes.

    Attributes:
        name: Name of the dataset.
        shape: (N, …).
        dtype: NumPy dtype.
        dims: Names of the dimensions, `point` first.
        attrs: units, long_name and what else the file says.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    attrs: Mapping[str, Any]

    @abstractmethod
    def read(self, start: int, stop: int, out: Any = None) -> Any:
        """Read rows start … stop - 1.

        Args:
            start: First row.
            stop: Row after the last.
            out: Buffer to read into: a C-contiguous NumPy array or torch tensor in CPU memory, pinned
                or not, of the dataset's dtype and of shape (stop - start, …).

        Returns:
            `out`, or a new NumPy array.

        Raises:
            StoreError: Some of the rows have not been computed, or the buffer does not fit.
        """

    @abstractmethod
    def read_box(self, box: Sequence[Positions], fill: Any = None) -> NDArray[Any]:
        """Read the entries at chosen positions along every axis.

        Args:
            box: Ascending positions along each axis, the points first.
            fill: Value of points that have not been computed; None: they are an error.

        Returns:
            A new array, as long along every axis as there are positions.
        """

    @property
    def dataset(self) -> Dataset:
        """The same as a record."""
        return Dataset(self.name, self.shape[1:], self.dtype, self.dims, self.attrs)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return self.shape[0] * self.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Read what an index asks for, and not much more.

        Args:
            index: Ints, slices, arrays and lists of indices, boolean masks, ``...``, None.

        Returns:
            What NumPy gives for an array in memory; an index that does not fit raises what NumPy
            raises.

        Raises:
            StoreError: Some of the rows have not been computed, or cannot be read.
        """
        selection = select(index, self.shape)
        return self.read_box(selection.box)[selection.inner]

    def outer(self, key: Sequence[Any], fill: Any = None) -> NDArray[Any]:
        """Read what a key asks for whose arrays each select along their own axis.

        Args:
            key: An int, a slice or ints (k,) for every axis.
            fill: Value of points that have not been computed; None: they are an error.

        Returns:
            A new array; ints have removed their axes.
        """
        selection = select_outer(key, self.shape)
        return take_outer(self.read_box(selection.box, fill), selection.inner)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.name} is on disk: an array of it is always a copy")
        return np.asarray(self.read(0, len(self)), dtype=dtype)

    def require_rows(self, start: int, stop: int) -> None:
        """Refuse rows that are not there.

        Args:
            start: First row.
            stop: Row after the last.

        Raises:
            StoreError: They are beyond the ends.
        """
        if not 0 <= start <= stop <= len(self):
            raise StoreError(
                f"{self.name}: expected 0 <= start <= stop <= {len(self)}, got {start}, {stop}"
            )

    def __repr__(self) -> str:
        return f"<{self.name} {self.shape} {self.dtype}>"
