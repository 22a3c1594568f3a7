"""A dataset as it lies on disk, of which what is asked for is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.arrays.buffers import as_numpy
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.arrays.selection import Positions, flat_entries
from pipeline.store.layout import Dataset
from pipeline.store.parts.part import Part
from pipeline.store.parts.parts import Parts

NEAR = 16 << 10  # bytes between two rows or entries that are read rather than skipped
SCRATCH = 1 << 20  # bytes read at a time where not all of them are wanted; stays in the cache
PIECE = 8 << 20  # bytes that a thread reads at a time
THREADS = min(4, os.cpu_count() or 1)
AT_ONCE = 1 << 20  # rows whose positions are held at a time
Piece = tuple[Part, int, int]  # rows of a file, counted from the start of the result


class StoredArray(RowArray):
    """A dataset as the files hold it.

    Args:
        dataset: What the files hold.
        points: N.
        parts: The files that are there, in order.
    """

    def __init__(self, dataset: Dataset, points: int, parts: Parts) -> None:
        self.name, self.dtype = dataset.name, dataset.dtype
        self.dims, self.attrs = dataset.dims, dict(dataset.attrs)
        self.shape: tuple[int, ...] = (points, *dataset.shape)
        self._dataset, self._parts = dataset, parts

    def read(self, start: int, stop: int, out: Any = None) -> Any:
        """Read rows start … stop - 1, as `RowArray.read` says.

        Returns:
            `out`, or a new NumPy array.

        Raises:
            StoreError: Some of the rows have not been computed, or the buffer does not fit.
        """
        self.require_rows(start, stop)
        shape = (stop - start, *self.shape[1:])
        block = np.empty(shape, self.dtype) if out is None else out
        memory = as_numpy(block, self.name, shape, self.dtype)
        width = self._dataset.row_bytes // self.dtype.itemsize

        def read(piece: Piece) -> None:
            part, low, high = piece
            fill = part.reader(self._dataset)
            fill((low - part.start) * width, memory[low - start : high - start])

        _do_all(read, self._pieces(start, stop))
        return block

    def read_box(self, box: Sequence[Positions], fill: Any = None) -> NDArray[Any]:
        """Read the entries at chosen positions, as `RowArray.read_box` says.

        Returns:
            A new array.
        """
        rows, *within = box
        entries = flat_entries(within, self.shape[1:])
        if entries is None and fill is None and isinstance(rows, range) and rows.step == 1:
            return np.asarray(self.read(rows.start, max(rows.start, rows.stop)))
        width = self._dataset.row_bytes // self.dtype.itemsize if entries is None else len(entries)
        found = np.empty((len(rows), width), self.dtype)
        for low in range(0, len(rows), AT_ONCE):
            some = _numbers(rows[low : low + AT_ONCE])
            self._gather(some, entries, found[low : low + AT_ONCE], fill)
        return found.reshape([len(positions) for positions in box])

    def _gather(
        self,
        rows: NDArray[np.int64],
        entries: NDArray[np.int64] | None,
        out: NDArray[Any],
        fill: Any,
    ) -> None:
        owners = self._parts.owners(rows)
        bounds = [0, *(np.flatnonzero(np.diff(owners)) + 1), len(rows)]
        for low, high in pairwise(bounds if len(rows) else []):
            part = self._parts[max(int(owners[low]), 0)]
            known = np.searchsorted(rows[low:high], part.stop) if owners[low] >= 0 else 0
            middle = low + int(known)
            _pick(part, self._dataset, rows[low:middle] - part.start, entries, out[low:middle])
            if middle < high:
                if fill is None:
                    raise self._not_computed(int(rows[middle]), f"{high - low} rows")
                out[middle:high] = fill

    def _pieces(self, start: int, stop: int) -> list[Piece]:
        """Cut rows start … stop - 1 into pieces of one file each."""
        rows = max(PIECE // max(self._dataset.row_bytes, 1), 1)
        pieces, done = list[Piece](), start
        for part in self._parts.between(start, stop):
            end = min(part.stop, stop)
            pieces += [(part, low, min(low + rows, end)) for low in range(done, end, rows)]
            done = max(done, end)
        if done < stop:
            raise self._not_computed(done, f"{start}:{stop}")
        return pieces

    def _not_computed(self, row: int, asked: str) -> StoreError:
        return StoreError(
            f"{self.name}: rows {row} and on have not been computed (asked for {asked}); "
            "run the same command again to finish the run, or read what .missing() leaves out"
        )


def _do_all(task: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
    """Do a task for every piece; copying into new memory keeps more than one core busy."""
    if len(pieces) == 1:
        task(pieces[0])
        return
    with ThreadPoolExecutor(THREADS, thread_name_prefix="reader") as threads:
        for _ in threads.map(task, pieces):
            pass


def _numbers(rows: Positions) -> NDArray[np.int64]:
    return np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, range) else rows


def _pick(
    part: Part,
    dataset: Dataset,
    rows: NDArray[np.int64],
    entries: NDArray[np.int64] | None,
    out: NDArray[Any],
) -> None:
    """Read entries of rows, both ascending, of one part."""
    if out.size == 0:
        return
    width = dataset.row_bytes // dataset.dtype.itemsize
    read = part.reader(dataset)
    if entries is not None:
        first, last = int(entries[0]), int(entries[-1]) + 1
        if (width - last + first) * dataset.dtype.itemsize >= NEAR:
            stretch = np.empty(last - first, dataset.dtype)
            for position, row in enumerate(rows.tolist()):
                read(row * width + first, stretch)
                out[position] = stretch[entries - first]
            return
    for low, high in _stretches(rows, dataset.row_bytes, whole=entries is None):
        count = int(rows[high - 1] - rows[low]) + 1
        if entries is None and count == high - low:
            read(int(rows[low]) * width, out[low:high])
            continue
        block = np.empty((count, width), dataset.dtype)
        read(int(rows[low]) * width, block)
        wanted = block if count == high - low else block[rows[low:high] - rows[low]]
        out[low:high] = wanted if entries is None else wanted[:, entries]


def _stretches(rows: NDArray[np.int64], row_bytes: int, whole: bool) -> Iterator[tuple[int, int]]:
    """Cut ascending rows into stretches that are read at once, whole ones up to any length."""
    gaps = np.flatnonzero((np.diff(rows) - 1) * row_bytes > NEAR) + 1
    most = max(SCRATCH // max(row_bytes, 1), 1)
    for low, stop in pairwise([0, *gaps.tolist(), len(rows)] if len(rows) else []):
        dense = whole and rows[stop - 1] - rows[low] == stop - 1 - low
        while low < stop:
            high = stop if dense else low + int(np.searchsorted(rows[low:stop], rows[low] + most))
            yield low, high
            low = high
