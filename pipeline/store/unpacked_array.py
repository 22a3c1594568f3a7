"""A symmetric dataset as a whole, of which the file holds the distinct entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.buffers import as_numpy
from pipeline.store.layout import Dataset
from pipeline.store.packed import PACKED, places
from pipeline.store.row_array import RowArray
from pipeline.store.selection import Positions, flat_entries
from pipeline.store.stored_array import StoredArray

AT_ONCE = 4 << 20  # bytes read at a time: they stay in the caches on their way


class UnpackedArray(RowArray):
    """All entries of a symmetric dataset, filled in while they are read.

    Args:
        dataset: The whole, as `whole` describes it.
        packed: What is stored.
    """

    def __init__(self, dataset: Dataset, packed: StoredArray) -> None:
        self.name, self.dtype = dataset.name, dataset.dtype
        self.dims, self.attrs = dataset.dims, dict(dataset.attrs)
        self.shape = (len(packed), *dataset.shape)
        self._packed, self._order = packed, len(dataset.shape) - len(packed.shape) + 2
        self._places = places(dataset.shape[-1], self._order)

    def read(self, start: int, stop: int, out: Any = None) -> Any:
        """Read rows start … stop - 1, as `RowArray.read` says.

        Returns:
            `out`, or a new NumPy array.
        """
        self.require_rows(start, stop)
        shape = (stop - start, *self.shape[1:])
        block = np.empty(shape, self.dtype) if out is None else out
        memory = as_numpy(block, self.name, shape, self.dtype)
        flat = memory.reshape(*shape[: -self._order], -1)
        step = max(AT_ONCE // max(self.row_bytes, 1), 1)
        for low in range(start, stop, step):
            high = min(low + step, stop)
            entries = self._packed.read(low, high)
            # of the modes, only those that do not raise fill the buffer without a copy
            np.take(entries, self._places, -1, flat[low - start : high - start], mode="clip")
        return block

    def read_box(self, box: Sequence[Positions], fill: Any = None) -> NDArray[Any]:
        """Read the entries at chosen positions, as `RowArray.read_box` says.

        Returns:
            A new array.
        """
        split = len(box) - self._order
        within = flat_entries(box[split:], self.shape[split:])
        wanted = self._places if within is None else self._places[within]
        stored, back = np.unique(wanted, return_inverse=True)
        found = self._packed.read_box([*box[:split], stored], fill)
        return found[..., back.reshape(-1)].reshape([len(positions) for positions in box])


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
