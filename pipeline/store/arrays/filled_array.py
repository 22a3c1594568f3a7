"""Derivatives of which the entries of one pattern are stored, and how they look in full.

The dimension along the entries says where each lies in the flattened derivative, as CF-1.11 describes
it in section 8.2, "Lossless compression by gathering"; the group `sparsity` says the same as
compressed sparse rows, or as coordinates where there are more than two indices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.arrays.gathered_array import GatheredArray
from pipeline.store.arrays.sparse_rows import SparseRows
from pipeline.store.arrays.sparse_tensors import SparseTensors
from pipeline.store.arrays.sparse_values import SparseValues
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.layout import Dataset


@dataclass(frozen=True, eq=False)
class Whole:
    """A dataset of which the entries of a pattern are stored.

    Attributes:
        dataset: The whole.
        entries: Where each stored entry lies in the flattened derivative, ascending.
    """

    dataset: Dataset
    entries: NDArray[np.int64]


class FilledArray(GatheredArray):
    """All entries of a sparse dataset.

    Args:
        whole: What it is.
        stored: The entries that are not zero.
    """

    def __init__(self, whole: Whole, stored: StoredArray) -> None:
        super().__init__(whole.dataset, stored, axes=len(whole.dataset.shape))
        self._entries = whole.entries

    @property
    def entries(self) -> NDArray[np.integer[Any]]:
        """Where each stored entry lies in the flattened derivative, ascending."""
        return self._entries

    def sparse(self) -> SparseValues:
        """Matrices as compressed sparse rows, what has more indices by coordinates."""
        if len(self.shape) > 3:
            return SparseTensors(self.stored, self._entries, self.shape[1:])
        m, n = self.shape[1:]
        indptr = np.searchsorted(self._entries, np.arange(m + 1) * n)
        return SparseRows(self.stored, indptr, self._entries % n, n)

    def fill(self, stored: NDArray[Any], flat: NDArray[Any]) -> None:
        """Fill in the zeros, as `GatheredArray.fill` says."""
        flat[...] = 0
        flat[..., self._entries] = stored

    def sources(self, wanted: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Find the stored entries, as `GatheredArray.sources` says.

        Returns:
            Which of them each is, -1 for zeros.
        """
        everything = np.arange(math.prod(self.shape[1:])) if wanted is None else wanted
        if not len(self._entries):
            return np.full(len(everything), -1)
        places = np.searchsorted(self._entries, everything).clip(max=len(self._entries) - 1)
        return np.where(self._entries[places] == everything, places, -1)


def whole(dataset: Dataset, shape: tuple[int, ...], entries: NDArray[Any]) -> Whole:
    """Describe the whole of which a dataset holds the entries of a pattern.

    Args:
        dataset: What is stored, with ``layout = "sparse"``.
        shape: (m, n), or of more indices.
        entries: Where each entry lies in the flattened derivative.

    Returns:
        The whole.

    Raises:
        ValueError: These are no such entries.
    """
    ascending = len(entries) == dataset.shape[0] and bool((np.diff(entries) > 0).all())
    if not ascending or (len(entries) and not 0 <= entries[0] <= entries[-1] < math.prod(shape)):
        raise ValueError(f"{dataset.name} does not hold ascending entries of an array {shape}")
    made = replace(
        dataset,
        name=str(dataset.attrs["whole"]),
        shape=shape,
        dims=("point", *str(dataset.attrs["axes"]).split()),
        attrs={**dataset.attrs, "layout": "dense"},
    )
    return Whole(made, entries.astype(np.int64))
