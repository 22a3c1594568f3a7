"""The files that are open, for reading bytes where they lie and for HDF5."""

from __future__ import annotations

import os
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.files.seal import Seal, checked_seal
from pipeline.store.files.trust import open_checked

MOST_OPEN = 100  # files that stay open between reads
MOST_BYTES = 1 << 30  # of one system call; Linux transfers 2 GiB at most
Stamp = tuple[int, int, int, int]


class Descriptor:
    """A file that is open for reading, until nobody holds it any more.

    Reads give the position themselves, so that threads and forked processes can share it.

    Raises:
        StoreError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be opened: {error}; bring it back, or run the same command again"
            ) from error
        weakref.finalize(self, os.close, self._number)
        self.path = path
        self.stamp = stamp_of(os.fstat(self._number))

    def seal(self) -> Seal:
        """Check the bytes of the file, and read its seal.

        Returns:
            The seal.

        Raises:
            StoreError: They are not those that were written, or cannot be read.
        """
        try:
            return checked_seal(self._number, self.path)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    def read(self, offset: int, out: NDArray[Any]) -> None:
        """Fill a buffer with the bytes from an offset on.

        Args:
            offset: In bytes.
            out: C-contiguous.

        Raises:
            StoreError: The disk fails, or the file ends before.
        """
        memory, done = out.reshape(-1).view(np.uint8).data, 0
        while done < len(memory):
            try:
                block = memory[done : done + MOST_BYTES]
                count = os.preadv(self._number, [block], offset + done)
            except OSError as error:
                raise StoreError(f"{self.path} cannot be read: {error}") from error
            if count == 0:
                raise StoreError(
                    f"{self.path} has been cut short: expected {len(memory) - done} bytes more at "
                    f"byte {offset + done}; bring it back, or remove it and run the same command again"
                )
            done += count


class OpenFiles:
    """The files that stay open between reads: never more than `MOST_OPEN` of each kind.

    A file that is given up closes when the last reader lets it go, so that several threads may
    read. HDF5 files are opened anew in a forked process.

    Args:
        edited: Whether the files may have been changed since they were written.
    """

    def __init__(self, edited: bool = False) -> None:
        self.edited = edited
        self.descriptor = lru_cache(MOST_OPEN)(Descriptor)
        self._hdf5 = lru_cache(MOST_OPEN)(self._open_hdf5)

    def hdf5(self, path: Path) -> h5py.File:
        """Open a file by HDF5, after every check."""
        return self._hdf5(path, os.getpid())

    def _open_hdf5(self, path: Path, _process: int) -> h5py.File:
        return open_checked(path, self.edited)

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, (self.edited,)  # another process opens its own

    def close(self) -> None:
        """Close all files that nobody is reading."""
        self.descriptor.cache_clear()
        self._hdf5.cache_clear()


def stamp_of(status: os.stat_result) -> Stamp:
    """What tells a file from another one of the same name."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
