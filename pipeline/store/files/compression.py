"""Compressed chunks: which filters there are, and how a dataset is cut into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import h5py
from h5py import h5z

from pipeline.errors import ConfigurationError, StoreError
from pipeline.job import Storage

CHUNK = 512 << 10  # bytes of a chunk: 256 KiB to 1 MiB are written and read fastest
ZSTD = 32015  # the number under which the HDF Group has registered it
LEVELS: Mapping[str, range] = {"none": range(0), "gzip": range(10), "zstd": range(1, 23)}
LEVEL = 1  # where none is given: higher ones take two to ten times as long for a few percent
INSTALL = "needs the package hdf5plugin: pip install 'pipeline-derivatives[compression]'"


def storage_faults(storage: Storage) -> list[str]:
    """Find what cannot be written as asked.

    Args:
        storage: How results are to lie on disk.

    Returns:
        One sentence per fault.
    """
    levels, faults = LEVELS[storage.compression], []
    if storage.level is not None and storage.level not in levels:
        expected = f"{levels[0]} to {levels[-1]} or null" if levels else "null"
        faults.append(
            f"store.level: expected {expected} for compression {storage.compression}, got {storage.level}"
        )
    if storage.compression == "zstd" and not has_zstd():
        faults.append(f"store.compression: zstd {INSTALL}; or take gzip")
    return faults


@cache
def has_zstd() -> bool:
    """Tell whether HDF5 can be taught zstd here, and teach it."""
    try:
        import hdf5plugin  # noqa: F401 - registers its filters
    except ImportError:
        return False
    return True


def resolve_storage(given: Mapping[str, Any]) -> Storage:
    """Check how results are to lie on disk.

    Args:
        given: Fields of `pipeline.job.Storage`.

    Returns:
        The record.

    Raises:
        ConfigurationError: Something cannot be written as asked; lists every fault.
    """
    storage = Storage.of(given)
    faults = storage_faults(storage)
    if faults:
        raise ConfigurationError(faults)
    return storage


def creation(shape: tuple[int, ...], itemsize: int, storage: Storage) -> dict[str, Any]:
    """Say how HDF5 is to store a dataset.

    Args:
        shape: Of the dataset.
        itemsize: Bytes of an entry.
        storage: How results lie on disk.

    Returns:
        Keywords of h5py's ``create_dataset``.

    Raises:
        StoreError: The filter is not there.
    """
    if storage.compression == "none":
        return {}
    if storage.compression == "zstd" and not has_zstd():
        raise StoreError(f"store.compression: zstd {INSTALL}")
    level = LEVEL if storage.level is None else storage.level
    gzip = {"compression": "gzip", "compression_opts": level}
    zstd = {"compression": ZSTD, "compression_opts": (level,)}
    chosen = gzip if storage.compression == "gzip" else zstd
    return {"chunks": chunk_shape(shape, itemsize), **chosen}


def storage_of(dataset: h5py.Dataset) -> Storage:
    """Tell how a dataset lies on disk.

    Args:
        dataset: Of an open file.

    Returns:
        Its compression.
    """
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        number, _, values, _ = properties.get_filter(index)
        if number in (h5z.FILTER_DEFLATE, ZSTD):
            return Storage("zstd" if number == ZSTD else "gzip", int(values[0]))
    return Storage()


def chunk_shape(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Cut a dataset into chunks of as many whole trailing dimensions as fit.

    Args:
        shape: Of the dataset, points first.
        itemsize: Bytes of an entry.

    Returns:
        Shape of a chunk.

    Examples:
        >>> chunk_shape((1000000, 10, 10), 8), chunk_shape((50, 1000, 1000), 8)
        ((655, 10, 10), (1, 65, 1000))
    """
    room, chunk = max(CHUNK // itemsize, 1), list[int]()
    for length in reversed(shape):
        chunk.append(max(min(length, room), 1))
        room //= chunk[-1]
    return tuple(reversed(chunk))
