"""Matrices of which the entries of one pattern are stored, and how they look in full.

The dimension along the entries says where each lies in the flattened matrix, as CF-1.11 describes
it in section 8.2, "Lossless compression by gathering"; the group `sparsity` says the same as
compressed sparse rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.buffers import as_numpy
from pipeline.store.layout import Dataset
from pipeline.store.row_array import RowArray
from pipeline.store.selection import Positions, flat_entries
from pipeline.store.sparse_rows import SparseRows
from pipeline.store.stored_array import StoredArray

AT_ONCE = 4 << 20  # bytes read at a time


@dataclass(frozen=True, eq=False)
class Whole:
    """A dataset of which the entries of a pattern are stored.

    Attributes:
        dataset: The whole.
        entries: Where each stored entry lies in the flattened matrix, ascending.
    """

    dataset: Dataset
    entries: NDArray[np.int64]


class FilledArray(RowArray):
    """All entries of a sparse dataset; zeros are filled in while they are read.

    Args:
        whole: What it is.
        stored: The entries that are not zero.
    """

    def __init__(self, whole: Whole, stored: StoredArray) -> None:
        dataset = whole.dataset
        self.name, self.dtype, self.dims = dataset.name, dataset.dtype, dataset.dims
        self.attrs = dict(dataset.attrs)
        self.shape = (len(stored), *dataset.shape)
        self._stored, self._entries = stored, whole.entries

    @property
    def entry_dimension(self) -> str:
        """Name of the dimension along the stored entries."""
        return self._stored.dims[-1]

    def rows(self) -> SparseRows:
        """The matrices as compressed sparse rows."""
        m, n = self.shape[1:]
        indptr = np.searchsorted(self._entries, np.arange(m + 1) * n)
        return SparseRows(self._stored, indptr, self._entries % n, n)

    def read(self, start: int, stop: int, out: Any = None) -> Any:
        """Read rows start … stop - 1, as `RowArray.read` says.

        Returns:
            `out`, or a new NumPy array.
        """
        self.require_rows(start, stop)
        shape = (stop - start, *self.shape[1:])
        block = np.empty(shape, self.dtype) if out is None else out
        flat = as_numpy(block, self.name, shape, self.dtype).reshape(stop - start, -1)
        flat[...] = 0
        step = max(AT_ONCE // max(self._stored.row_bytes, 1), 1)
        for low in range(start, stop, step):
            high = min(low + step, stop)
            flat[low - start : high - start, self._entries] = self._stored.read(low, high)
        return block

    def read_box(self, box: Sequence[Positions], fill: Any = None) -> NDArray[Any]:
        """Read the entries at chosen positions, as `RowArray.read_box` says.

        Returns:
            A new array.
        """
        within = flat_entries(box[1:], self.shape[1:])
        wanted = np.arange(self.shape[1] * self.shape[2]) if within is None else within
        places = np.searchsorted(self._entries, wanted).clip(max=max(len(self._entries) - 1, 0))
        there = (
            self._entries[places] == wanted if len(self._entries) else np.zeros(len(wanted), bool)
        )
        found = np.zeros((len(box[0]), len(wanted)), self.dtype)
        if there.any():
            stored, back = np.unique(places[there], return_inverse=True)
            found[:, there] = self._stored.read_box([box[0], stored], fill)[:, back.reshape(-1)]
        return found.reshape([len(positions) for positions in box])


def whole(dataset: Dataset, shape: tuple[int, int], entries: NDArray[Any]) -> Whole:
    """Describe the whole of which a dataset holds the entries of a pattern.

    Args:
        dataset: What is stored, with ``layout = "sparse"``.
        shape: (m, n).
        entries: Where each entry lies in the flattened matrix.

    Returns:
        The whole.

    Raises:
        ValueError: These are no such entries.
    """
    ascending = len(entries) == dataset.shape[0] and bool((np.diff(entries) > 0).all())
    if not ascending or (len(entries) and not 0 <= entries[0] <= entries[-1] < shape[0] * shape[1]):
        raise ValueError(f"{dataset.name} does not hold ascending entries of a {shape} matrix")
    made = replace(
        dataset,
        name=str(dataset.attrs["whole"]),
        shape=shape,
        dims=("point", *str(dataset.attrs["axes"]).split()),
        attrs={**dataset.attrs, "layout": "dense"},
    )
    return Whole(made, entries.astype(np.int64))
