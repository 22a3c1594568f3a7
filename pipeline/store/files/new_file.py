"""A file that is being written: HDF5 sees a disk that never fails, this project the one that does."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.store.files.commit import committed
from pipeline.store.files.compression import creation
from pipeline.store.files.seal import row_ranges, seal
from pipeline.store.layout import Dataset

PAGE = 4096
LARGE = 64 << 10  # bytes of what is worth a page of its own


class Disk(io.RawIOBase):
    """What HDF5 writes to, through h5py's driver for Python files.

    HDF5 may crash the process when it closes a file that it could not write. So it is told that all
    is well; the first error is kept, nothing is written after it, and `require_well` raises it.

    Args:
        path: A file that does not exist yet.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._position = self._end = 0
        self._error: BaseException | None = None

    def put(self, offset: int, memory: memoryview) -> None:
        """Write bytes at an offset.

        Raises:
            OSError: The disk fails.
        """
        self._end = max(self._end, offset + len(memory))
        while memory:
            done = os.pwrite(self.descriptor, memory, offset)
            memory, offset = memory[done:], offset + done

    def require_well(self) -> None:
        """Raise the first error that HDF5 was not told of.

        Raises:
            BaseException: That error.
        """
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Tell the position."""
        return self._position

    def write(self, data: Any) -> int:
        """Write at the position; what goes wrong is kept."""
        memory = memoryview(data)
        try:
            if self._error is None:
                self.put(self._position, memory)
        except BaseException as error:  # even Ctrl-C must not reach HDF5 here
            self._error = error
        self._position += len(memory)
        self._end = max(self._end, self._position)
        return len(memory)

    def readinto(self, buffer: Any) -> int:
        """Read back what HDF5 has written itself; what goes wrong is kept, and reads as zeros."""
        memory, data = memoryview(buffer), b""
        try:
            data = os.pread(self.descriptor, len(memory), self._position)
        except BaseException as error:
            self._error = self._error or error
        memory[:] = data.ljust(len(memory), b"\0")
        self._position += len(memory)
        return len(memory)

    def truncate(self, size: int | None = None) -> int:
        """Give the file its length; what goes wrong is kept."""
        self._end = self._position if size is None else size
        try:
            if self._error is None:
                os.ftruncate(self.descriptor, self._end)
        except BaseException as error:
            self._error = error
        return self._end

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self.descriptor)
        super().close()


class NewFile:
    """An open file into which rows are written.

    Args:
        file: As HDF5 sees it.
        disk: What it is written to.

    Attributes:
        file: As HDF5 sees it, for everything but rows.
    """

    def __init__(self, file: h5py.File, disk: Disk) -> None:
        self.file, self._disk = file, disk
        self._offsets: dict[str, int | None] = {}
        self._made: dict[str, Dataset] = {}

    def create(self, dataset: Dataset, points: int, storage: Storage) -> None:
        """Make a dataset for rows.

        Args:
            dataset: Its name, shape and dtype.
            points: Number of rows.
            storage: How it lies on disk.
        """
        shape = (points, *dataset.shape)
        stored = creation(shape, dataset.dtype.itemsize, storage)
        plain = h5p.create(h5p.DATASET_CREATE)
        if not stored:  # its place is known at once, and HDF5 never touches what lies there
            plain.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            plain.set_fill_time(h5d.FILL_TIME_NEVER)
        made = self.file.create_dataset(
            dataset.name, shape=shape, dtype=dataset.dtype, dcpl=plain, **stored
        )
        self._offsets[dataset.name] = None if stored else made.id.get_offset()
        self._made[dataset.name] = dataset

    def write(self, name: str, row: int, values: NDArray[Any]) -> None:
        """Write rows of a dataset.

        Args:
            name: Which.
            row: The first one.
            values: (B, …), C-contiguous, of the dataset's dtype.

        Raises:
            StoreError: The values do not fit.
        """
        dataset, offset = self._made[name], self._offsets[name]
        if values.shape[1:] != dataset.shape or values.dtype != dataset.dtype:
            raise StoreError(
                f"{name}: expected rows of {dataset.dtype} {dataset.shape}, got {values.dtype} "
                f"{values.shape[1:]}"
            )
        if offset is not None:
            memory = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
            self._disk.put(offset + row * dataset.row_bytes, memory)
        elif len(values):
            self.file[name].write_direct(values, dest_sel=np.s_[row : row + len(values)])
            self._disk.require_well()

    def settle(self) -> None:
        """Wait until the disk has what was written so far.

        Raises:
            OSError: The disk fails.
        """
        os.fsync(self._disk.descriptor)

    def row_ranges(self) -> Any:
        """Find where the rows lie, for the seal."""
        self.file.flush()
        return row_ranges(self.file[name] for name in self._made)


@contextmanager
def new_file(path: Path, *, shared: bool = True) -> Iterator[NewFile]:
    """Write a file that appears under its name only when it is complete, and sealed.

    Args:
        path: Its final name; never replaced.
        shared: Whether whoever else writes it writes the same; else the one who comes late is told.

    Yields:
        The file.

    Raises:
        StoreError: It cannot be written: no space, no permission, a failing disk.
    """
    with committed(path, shared=shared) as temporary, Disk(temporary) as disk:
        try:
            with h5py.File(disk, "w", alignment_threshold=LARGE, alignment_interval=PAGE) as file:
                new = NewFile(file, disk)
                yield new
                rows = new.row_ranges()
        finally:
            disk.require_well()  # it is the cause of whatever else went wrong
        seal(disk.descriptor, rows)
