"""A part of a result: consecutive points in one file, checked when it is first read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5l, h5t
from numpy.typing import NDArray

from pipeline.errors import StoreError, one_line
from pipeline.store.files.open_files import Descriptor, OpenFiles, Stamp, stamp_of
from pipeline.store.files.seal import require_seal
from pipeline.store.layout import Dataset

DIRECT = hasattr(os, "preadv")  # whether rows are read as they lie
HDF5_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError)
REMEDY = "remove it and run the same command again"


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


@dataclass(frozen=True)
class Known:
    """What was seen of a file when the run ended.

    Attributes:
        mark: What tells it from others: of its seal.
        offsets: Dataset -> the byte from which on its rows lie.
    """

    mark: int
    offsets: Mapping[str, int]


Reader = Callable[[int, NDArray[Any]], None]


class Part:
    """Rows `start` … `stop` - 1 of a result, in one file.

    Args:
        path: The file.
        start: First row.
        content: What the file has to hold.
        files: Which of them are open.
        known: What was seen of the file when the run ended; None where nobody has written it down.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        content: Content,
        files: OpenFiles,
        known: Known | None = None,
    ) -> None:
        self.path, self.start = path, start
        self.stop = start + content.stop - content.start
        self._content, self._files, self._known = content, files, known
        self._checked: _Checked | None = None

    def reader(self, dataset: Dataset) -> Reader:
        """Look into the file, unless it has been done, and prepare to read.

        Args:
            dataset: Which.

        Returns:
            A function that fills a C-contiguous buffer with consecutive entries, of which the first
            one is counted from the start of the file; a `StoreError` where they cannot be read.
        """
        descriptor, checked = self._files.descriptor(self.path), self._checked
        if checked is None or checked.stamp != descriptor.stamp:
            checked = _Checked(descriptor.stamp, {})
        if dataset.name not in checked.offsets:
            checked = self._checked = self._look(dataset, descriptor, checked)
        offset = checked.offsets[dataset.name]
        if offset is None:
            return partial(self._read_by_hdf5, dataset)
        size, read = dataset.dtype.itemsize, descriptor.read
        return lambda first, out: read(offset + first * size, out)

    def _look(self, dataset: Dataset, descriptor: Descriptor, checked: _Checked) -> _Checked:
        if not self._files.edited:
            seal, known = descriptor.seal(), self._known
            # the same bytes as when the run ended: HDF5 has nothing to tell that is not known
            if DIRECT and known is not None and known.mark == seal.mark:
                offset = known.offsets.get(dataset.name, -1)
                if seal.covers(offset, (self.stop - self.start) * dataset.row_bytes):
                    return replace(checked, offsets={**checked.offsets, dataset.name: offset})
        return _look_into(self.path, self._content, dataset, checked)

    def _read_by_hdf5(self, dataset: Dataset, first: int, out: NDArray[Any]) -> None:
        if out.size == 0:  # a pattern without entries has rows of no width
            return
        width = math.prod(dataset.shape)
        low, skip = divmod(first, width)
        rows = -(-(skip + out.size) // width)
        whole = out.size == rows * width
        block = out if whole else np.empty(rows * width, dataset.dtype)
        block = block.reshape(rows, *dataset.shape)
        try:
            stored = self._files.hdf5(self.path)[dataset.name]
            stored.read_direct(block, np.s_[low : low + rows])
        except HDF5_ERRORS as error:
            raise StoreError(
                f"{self.path}: {dataset.name} cannot be read: {one_line(error)}; "
                "remove the file and run the same command again"
            ) from error
        if not whole:
            out[...] = block.reshape(-1)[skip : skip + out.size]


def _look_into(path: Path, content: Content, dataset: Dataset, known: _Checked) -> _Checked:
    """Check all that is used of a file when values are read as they lie: no other object is touched."""
    try:
        with opened(path) as file:
            found = content if known.offsets else read_content(file)
            if found != content:
                raise StoreError(
                    f"{path} is not the part that belongs here: expected {content}, got {found}; {REMEDY}"
                )
            offset = offset_of_rows(file, path, content.stop - content.start, dataset)
            return _Checked(stamp_of(path.stat()), {**known.offsets, dataset.name: offset})
    except HDF5_ERRORS as error:
        raise StoreError(f"{path} cannot be read: {one_line(error)}; {REMEDY}") from error


@contextmanager
def opened(path: Path) -> Iterator[h5f.FileID]:
    """Open a file below h5py's own classes: there may be 10⁵, of which a few objects are looked at.

    Args:
        path: The file, whose seal has been checked.

    Yields:
        Its identifier; objects that were opened by it are to be let go before it is left.
    """
    file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY)
    try:
        yield file
    finally:
        file.close()


def content_of(path: Path) -> Content:
    """Read which points a file holds, of which run, and look at nothing else of it.

    Args:
        path: The file.

    Returns:
        What it says.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        require_seal(path)
        with opened(path) as file:
            return read_content(file)
    except HDF5_ERRORS as error:
        raise StoreError(f"{path} cannot be read: {one_line(error)}; {REMEDY}") from error


def read_content(file: h5g.GroupID) -> Content:
    """Read which points a file holds, of which run.

    Args:
        file: An open file, by its identifier.

    Returns:
        What its root attributes say.
    """
    return Content(
        str(_attribute(file, "run_id")),
        int(_attribute(file, "start")),
        int(_attribute(file, "stop")),
    )


def _attribute(file: h5g.GroupID, name: str) -> Any:
    # a third of the time that file.attrs takes, and there may be thousands of files
    attribute = h5a.open(file, name.encode())
    if attribute.shape != ():
        raise ValueError(f"attribute {name!r} is no single value")
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    single = value.item()
    return single.decode() if isinstance(single, bytes) else single


def offset_of_rows(file: h5f.FileID, path: Path, rows: int, dataset: Dataset) -> int | None:
    """Find where the values of a dataset lie, and refuse one of another form.

    Args:
        file: An open file.
        path: Where it is.
        rows: Length of the dataset.
        dataset: What a row has to be.

    Returns:
        The first byte; None where only HDF5 can read them.

    Raises:
        StoreError: It does not fit, or lies in another file.
    """
    stored = own_dataset(file, path, dataset.name)
    require_rows(stored, path, rows, dataset)
    plain = (
        stored.get_create_plist().get_layout() == h5d.CONTIGUOUS
        and stored.get_space_status() == h5d.SPACE_STATUS_ALLOCATED
        and stored.get_type().equal(h5t.py_create(dataset.dtype))
        and stored.get_storage_size() == rows * dataset.row_bytes
        and DIRECT
    )
    return stored.get_offset() if plain else None


def own_group(file: h5g.GroupID, path: Path, name: str) -> h5g.GroupID:
    """Open a group of a file.

    Args:
        file: The open file.
        path: Where it is.
        name: Of the group.

    Returns:
        The group.

    Raises:
        StoreError: It is in another file.
    """
    if file.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        raise StoreError(f"{path}: {name!r} refers to another file; {REMEDY}")
    return h5g.open(file, name.encode())


def own_dataset(group: h5g.GroupID, path: Path, name: str) -> h5d.DatasetID:
    """Open a dataset that lies in its own file, and look at no other object.

    Args:
        group: Of an open file.
        path: The file.
        name: Of the dataset.

    Returns:
        The dataset.

    Raises:
        StoreError: It is, or its values are, in another file.
    """
    if group.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        raise StoreError(f"{path}: {name!r} refers to another file; {REMEDY}")
    stored = h5d.open(group, name.encode())
    storage = stored.get_create_plist()
    if storage.get_external_count() or storage.get_layout() == h5d.VIRTUAL:
        raise StoreError(f"{path}: {name!r} refers to another file; {REMEDY}")
    return stored


def require_rows(stored: h5d.DatasetID, path: Path, rows: int, dataset: Dataset) -> None:
    """Refuse a dataset of another shape or type.

    Args:
        stored: What was found.
        path: Its file.
        rows: Its length.
        dataset: What a row has to be.

    Raises:
        StoreError: It does not fit.
    """
    found, expected = (stored.dtype, stored.shape), (dataset.dtype, (rows, *dataset.shape))
    if found != expected:
        raise StoreError(
            f"{path}: {dataset.name} has to be {expected[0]} {expected[1]}, got {found[0]} {found[1]}; "
            f"{REMEDY}"
        )
