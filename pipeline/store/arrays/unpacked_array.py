"""A symmetric dataset as a whole, of which the file holds the distinct entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.arrays.gathered_array import GatheredArray
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.layout import Dataset
from pipeline.store.packed import PACKED, packed_index, places


class UnpackedArray(GatheredArray):
    """All entries of a symmetric dataset.

    Args:
        dataset: The whole, as `whole` describes it.
        packed: What is stored.
    """

    def __init__(self, dataset: Dataset, packed: StoredArray) -> None:
        super().__init__(dataset, packed, len(dataset.shape) - len(packed.shape) + 2)
        self._places = places(dataset.shape[-1], self.gathered)

    @property
    def entries(self) -> NDArray[np.integer[Any]]:
        """Where each distinct entry lies in the flattened tensor, as `packed_index` says."""
        return packed_index(self.shape[-1], self.gathered)

    def fill(self, stored: NDArray[Any], flat: NDArray[Any]) -> None:
        """Repeat the distinct entries, as `GatheredArray.fill` says."""
        # of the modes, only those that do not raise fill the buffer without a copy
        np.take(stored, self._places, -1, flat, mode="clip")

    def sources(self, wanted: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Find the distinct entries, as `GatheredArray.sources` says.

        Returns:
            Which of them each is.
        """
        return self._places if wanted is None else self._places[wanted]


def whole(dataset: Dataset, n: int) -> Dataset:
    """Describe the whole of which a dataset holds the distinct entries.

    Args:
        dataset: What is stored, with ``layout = "packed"``.
        n: Length of every axis.

    Returns:
        The whole.
    """
    axes = tuple(str(dataset.attrs["symmetric"]).split())
    return replace(
        dataset,
        name=dataset.name.removesuffix(PACKED),
        shape=(*dataset.shape[:-1], *(n,) * len(axes)),
        dims=(*dataset.dims[:-1], *axes),
        attrs={**dataset.attrs, "layout": "dense"},
    )
