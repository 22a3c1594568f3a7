"""The whole of a dataset of which the file holds some entries, each where it lies in the whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.arrays.buffers import as_numpy
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.arrays.selection import Positions, flat_entries
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.layout import Dataset

AT_ONCE = 4 << 20  # bytes filled at a time: they stay in the caches on their way


class GatheredArray(RowArray):
    """All entries of a dataset, filled in while they are read; every subclass is final.

    Args:
        dataset: The whole.
        stored: What the files hold.
        axes: Number of axes at the end of the whole that are one axis of what is stored.

    Attributes:
        stored: The same.
        gathered: The same as `axes`.
    """

    def __init__(self, dataset: Dataset, stored: StoredArray, axes: int) -> None:
        self.name, self.dtype, self.dims = dataset.name, dataset.dtype, dataset.dims
        self.attrs = dict(dataset.attrs)
        self.shape = (len(stored), *dataset.shape)
        self.stored, self.gathered = stored, axes

    @property
    @abstractmethod
    def entries(self) -> NDArray[np.integer[Any]]:
        """Where each stored entry lies in the flattened gathered axes, ascending."""

    @abstractmethod
    def fill(self, stored: NDArray[Any], flat: NDArray[Any]) -> None:
        """Fill in the whole.

        Args:
            stored: Rows as the files hold them, (B, …, entries).
            flat: Filled with the whole, its gathered axes flattened, (B, …, length).
        """

    @abstractmethod
    def sources(self, wanted: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Find the stored entries that entries of the whole come from.

        Args:
            wanted: Positions in the flattened gathered axes; None for all.

        Returns:
            For each, which of the stored entries it is; -1 where it is zero.
        """

    def read(self, start: int, stop: int, out: Any = None) -> Any:
        """Read rows start … stop - 1, as `RowArray.read` says.

        Returns:
            `out`, or a new NumPy array.
        """
        self.require_rows(start, stop)
        shape = (stop - start, *self.shape[1:])
        block = np.empty(shape, self.dtype) if out is None else out
        memory = as_numpy(block, self.name, shape, self.dtype)
        flat = memory.reshape(*shape[: -self.gathered], -1)
        step = max(AT_ONCE // max(self.row_bytes, 1), 1)
        for low in range(start, stop, step):
            high = min(low + step, stop)
            self.fill(self.stored.read(low, high), flat[low - start : high - start])
        return block

    def read_box(self, box: Sequence[Positions], fill: Any = None) -> NDArray[Any]:
        """Read the entries at chosen positions, as `RowArray.read_box` says.

        Returns:
            A new array.
        """
        split = len(box) - self.gathered
        sources = self.sources(flat_entries(box[split:], self.shape[split:]))
        there = sources >= 0
        wanted, back = np.unique(sources[there], return_inverse=True)
        lengths = [len(positions) for positions in box]
        found = np.zeros((*lengths[:split], len(sources)), self.dtype)
        if len(wanted):
            found[..., there] = self.stored.read_box([*box[:split], wanted], fill)[
                ..., back.reshape(-1)
            ]
        return found.reshape(lengths)
