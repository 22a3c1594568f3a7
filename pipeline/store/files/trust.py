"""Opens files from anybody: each has to be what this project writes, and nothing outside it is read.

HDF5 follows external links, external storage and the sources of virtual datasets to any file of
the machine, and has no switch against it; so everything is looked at before anything is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from pipeline.errors import StoreError, one_line
from pipeline.store.files.compression import INSTALL, ZSTD, has_zstd, storage_of
from pipeline.store.files.run_directory import SHARDS
from pipeline.store.files.seal import require_seal
from pipeline.store.layout import GROUPS, SCHEMA

ATTRIBUTES = ("schema", "title", "history", "run_id", "start", "stop")
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, ZSTD}
# bytes that one byte of a compressed chunk can stand for, and a little more
DENSEST = {"none": 1, "gzip": 1100, "zstd": 40_000}
MOST_ENTRIES = 1 << 20  # numbers of an entry of a group
SOURCE = re.compile(rf"{SHARDS}/(shard|view-\d{{5,}})-\d{{5,}}\.h5")
SHARD_BESIDE = re.compile(r"shard-\d{5,}\.h5")
REMEDY = "take it from a copy, or remove it and run the same command again"
# what h5py raises for damaged files: nearly anything
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)


def open_checked(path: Path, edited: bool = False) -> h5py.File:
    """Open a file that is of this schema, whole, and refers to nothing outside its own directory.

    Args:
        path: The file.
        edited: Whether it may have been changed since it was written; HDF5 may then crash on it.

    Returns:
        The open file.

    Raises:
        StoreError: It cannot be read, has another schema, or cannot be trusted; it is closed.
    """
    if not edited:
        require_seal(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        remedy = f"; {REMEDY}" if path.exists() else ""
        raise StoreError(f"{path} cannot be opened: {one_line(error)}{remedy}") from error
    try:
        with readable(path):
            _check(file, path)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one sentence that a file is damaged, whatever h5py says.

    Args:
        path: The file that is read inside the block.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        yield
    except (*DAMAGE, MemoryError) as error:
        raise StoreError(
            f"{path} is damaged: {type(error).__name__}: {one_line(error)}; {REMEDY}"
        ) from error


def _check(file: h5py.File, path: Path) -> None:
    schema = file.attrs.get("schema")
    if not isinstance(schema, str) or schema != SCHEMA:
        raise StoreError(f"{path}: expected a file of schema {SCHEMA!r}, got {schema!r}")
    lacking = [name for name in ATTRIBUTES if name not in file.attrs]
    if lacking:
        raise StoreError(f"{path} lacks the attributes {', '.join(lacking)}")
    rows = int(file.attrs["stop"]) - int(file.attrs["start"])
    if int(file.attrs["start"]) < 0 or rows < 1:
        raise StoreError(f"{path} holds no points: stop - start is {rows}")
    for name in ("x", "status"):
        if name not in file:
            raise StoreError(f"{path} has no dataset {name!r}")
    _check_group(file, path, rows)
    for name in GROUPS:
        if name in file:
            _require_hard_link(file, name, path)
            _check_entries(file[name], path)


def require_view(path: Path, edited: bool = False) -> None:
    """Refuse a view of many shards that is damaged, or shows anything but the shards beside it.

    Args:
        path: The view: only other programs read by it.
        edited: Whether it may have been changed since it was written.

    Raises:
        StoreError: It cannot be trusted.
    """
    if not edited:
        require_seal(path)
    with readable(path), h5py.File(path, "r") as file:
        for name in file:
            _require_hard_link(file, name, path)
            stored = file[name]
            shown = stored.virtual_sources() if stored.is_virtual else []
            if not shown or not all(
                SHARD_BESIDE.fullmatch(each.file_name) and each.dset_name == name for each in shown
            ):
                raise StoreError(
                    f"{path}: {name!r} has to show {name!r} of the shards beside it alone; {REMEDY}"
                )


def _check_group(file: h5py.File, path: Path, rows: int) -> None:
    for name in file:
        _require_hard_link(file, name, path)
        stored = file[name]
        if not isinstance(stored, h5py.Dataset):
            continue  # a group of somebody else is never looked into
        _require_own_storage(stored, path)
        if is_rows(stored):
            _require_rows(stored, path, rows)


def is_rows(stored: Any) -> bool:
    """Tell whether an object of a file is a dataset with a row per point.

    Args:
        stored: What was found.

    Returns:
        False for dimensions, names along them, and groups.
    """
    return (
        isinstance(stored, h5py.Dataset)
        and stored.ndim > 0
        and not stored.is_scale
        and not stored.name.endswith("_name")
    )


def _require_hard_link(group: h5py.Group, name: str, path: Path) -> None:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"{path}: {name!r} refers to another place; such files are not opened")


def _require_own_storage(stored: h5py.Dataset, path: Path) -> None:
    name = stored.name.removeprefix("/")
    properties = stored.id.get_create_plist()
    if properties.get_external_count():
        raise StoreError(f"{path}: {name!r} refers to another file; such files are not opened")
    if stored.is_virtual:
        foreign = [
            source.file_name
            for source in stored.virtual_sources()
            if not SOURCE.fullmatch(source.file_name)
        ]
        if foreign:
            raise StoreError(f"{path}: {name!r} refers to another file; such files are not opened")
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if not filters <= FILTERS:
        raise StoreError(
            f"{path}: {name!r} needs filters that this project does not write: {sorted(filters)}"
        )
    if ZSTD in filters and not has_zstd():
        raise StoreError(f"{path}: {name!r} is compressed by zstd, which {INSTALL}")


def _require_rows(stored: h5py.Dataset, path: Path, rows: int) -> None:
    name = stored.name.removeprefix("/")
    expected = ["uint8"] if name == "status" else ["float64", "float32"]
    if stored.dtype.name not in expected:  # of either byte order
        raise StoreError(f"{path}: {name!r} has to be {' or '.join(expected)}, got {stored.dtype}")
    if stored.shape[0] != rows:
        raise StoreError(
            f"{path}: {name!r} has {stored.shape[0]} rows, start and stop make it {rows}"
        )
    size = math.prod(stored.shape) * stored.dtype.itemsize
    there = stored.id.get_storage_size()
    densest = DENSEST[storage_of(stored).compression]
    if not stored.is_virtual and (size > there * densest or there > path.stat().st_size):
        raise StoreError(
            f"{path}: {name!r} claims {size} bytes, the file holds {there} of them: it is cut off"
        )


def _check_entries(group: Any, path: Path) -> None:
    if not isinstance(group, h5py.Group):
        raise StoreError(f"{path}: {group.name!r} has to be a group")
    for name in group:
        _require_hard_link(group, name, path)
        entry = group[name]
        if not isinstance(entry, h5py.Dataset):
            raise StoreError(f"{path}: {entry.name!r} has to be a dataset")
        _require_own_storage(entry, path)
        text = h5py.check_string_dtype(entry.dtype) is not None
        if entry.is_virtual or entry.ndim > 1 or entry.size is None or entry.size > MOST_ENTRIES:
            raise StoreError(f"{path}: {entry.name!r} is no text, number or row of numbers")
        if not text and entry.dtype.kind not in "iufb":
            raise StoreError(
                f"{path}: {entry.name!r} has the type {entry.dtype}, which is not read"
            )
