"""A part of a result: consecutive points in one file, checked when it is first read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5t
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.layout import Dataset
from pipeline.store.open_files import Descriptor, OpenFiles, Stamp, stamp_of

HDF5_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError)


@dataclass(frozen=True)
class Content:
    """Which points a file holds, of which run.

    Attributes:
        run_id: Of the run.
        start: First point.
        stop: Point after the last.
    """

    run_id: str
    start: int
    stop: int


@dataclass(frozen=True)
class _Checked:
    """What a look into the file has shown: byte offsets, where the values can be read as they lie."""

    stamp: Stamp
    offsets: Mapping[str, int | None]


class Part:
    """Rows `start` … `stop` - 1 of a result, in one file.

    Args:
        path: The file.
        start: First row.
        content: What the file has to hold.
        datasets: Datasets that it has to hold, by name.
        files: Which of them are open.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        content: Content,
        datasets: Mapping[str, Dataset],
        files: OpenFiles,
    ) -> None:
        self.path, self.start = path, start
        self.stop = start + content.stop - content.start
        self._content, self._datasets, self._files = content, datasets, files
        self._checked: _Checked | None = None

    def read(self, dataset: Dataset, low: int, out: NDArray[Any]) -> None:
        """Read consecutive rows.

        Args:
            dataset: Which.
            low: First row, counted from the start of the file.
            out: C-contiguous; as many rows are read as fill it.

        Raises:
            StoreError: The file is gone, is not what it has to be, or cannot be read.
        """
        descriptor, offset = self._find(dataset)
        if offset is None:
            self._read_by_hdf5(dataset, low, out.reshape(-1, *dataset.shape))
        else:
            descriptor.read(offset + low * dataset.row_bytes, out)

    def read_within(self, dataset: Dataset, row: int, skip: int, out: NDArray[Any]) -> None:
        """Read a stretch of one row.

        Args:
            dataset: Which.
            row: Counted from the start of the file.
            skip: Elements of the row that come before.
            out: C-contiguous; as many elements are read as fill it.
        """
        descriptor, offset = self._find(dataset)
        if offset is None:
            whole = np.empty((1, *dataset.shape), dataset.dtype)
            self._read_by_hdf5(dataset, row, whole)
            out[...] = whole.reshape(-1)[skip : skip + out.size]
        else:
            first = row * dataset.row_bytes + skip * dataset.dtype.itemsize
            descriptor.read(offset + first, out)

    @property
    def is_checked(self) -> bool:
        """Whether somebody has looked into the file."""
        return self._checked is not None

    def check(self) -> Part:
        """Look into the file, unless it has been done.

        Returns:
            This part.
        """
        self._look()
        return self

    def _read_by_hdf5(self, dataset: Dataset, low: int, out: NDArray[Any]) -> None:
        try:
            stored = self._files.hdf5(self.path)[dataset.name]
            stored.read_direct(out, np.s_[low : low + len(out)])
        except HDF5_ERRORS as error:
            raise StoreError(
                f"{self.path}: {dataset.name} cannot be read: {error}; "
                "remove the file and run the same command again"
            ) from error

    def _find(self, dataset: Dataset) -> tuple[Descriptor, int | None]:
        descriptor, checked = self._look()
        return descriptor, checked.offsets[dataset.name]

    def _look(self) -> tuple[Descriptor, _Checked]:
        descriptor, checked = self._files.descriptor(self.path), self._checked
        if checked is None or checked.stamp != descriptor.stamp:
            checked = self._checked = _look_into(self.path, self._content, self._datasets)
        return descriptor, checked


def _look_into(path: Path, content: Content, datasets: Mapping[str, Dataset]) -> _Checked:
    """Check all that is used of a file when values are read as they lie: no other object is touched."""
    try:
        with h5py.File(path, "r") as file:
            found = read_content(file)
            if found != content:
                raise StoreError(
                    f"{path} is not the part that belongs here: expected {content}, got {found}; "
                    "remove it and run the same command again"
                )
            rows = content.stop - content.start
            offsets = {
                name: _offset(file, path, rows, dataset) for name, dataset in datasets.items()
            }
            return _Checked(stamp_of(path.stat()), offsets)
    except HDF5_ERRORS as error:
        raise StoreError(
            f"{path} cannot be read: {error}; remove it and run the same command again"
        ) from error


def read_content(file: h5py.File) -> Content:
    """Read which points a file holds, of which run.

    Args:
        file: An open file.

    Returns:
        What its root attributes say.
    """
    return Content(
        str(_attribute(file, "run_id")),
        int(_attribute(file, "start")),
        int(_attribute(file, "stop")),
    )


def _attribute(file: h5py.File, name: str) -> Any:
    # a third of the time that file.attrs takes, and there may be thousands of files
    attribute = h5a.open(file.id, name.encode())
    if attribute.shape != ():
        raise ValueError(f"attribute {name!r} is no single value")
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    single = value.item()
    return single.decode() if isinstance(single, bytes) else single


def _offset(file: h5py.File, path: Path, rows: int, dataset: Dataset) -> int | None:
    """Where the values lie, or None where only HDF5 can read them."""
    if file.id.links.get_info(dataset.name.encode()).type != h5l.TYPE_HARD:
        raise StoreError(f"{path}: {dataset.name!r} refers to another file; it is not read")
    stored = h5d.open(file.id, dataset.name.encode())
    found, expected = (stored.dtype, stored.shape), (dataset.dtype, (rows, *dataset.shape))
    if found != expected:
        raise StoreError(
            f"{path}: {dataset.name} has to be {expected[0]} {expected[1]}, got {found[0]} {found[1]}; "
            "remove it and run the same command again"
        )
    storage = stored.get_create_plist()
    if storage.get_external_count() or storage.get_layout() == h5d.VIRTUAL:
        raise StoreError(f"{path}: {dataset.name!r} refers to another file; it is not read")
    plain = (
        storage.get_layout() == h5d.CONTIGUOUS
        and stored.get_space_status() == h5d.SPACE_STATUS_ALLOCATED
        and stored.get_type().equal(h5t.py_create(dataset.dtype))
        and stored.get_storage_size() == rows * dataset.row_bytes
        and hasattr(os, "preadv")
    )
    return stored.get_offset() if plain else None
