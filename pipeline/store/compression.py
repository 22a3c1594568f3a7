"""Compressed chunks: which filters there are, and how a dataset is cut into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py

from pipeline.errors import ConfigurationError
from pipeline.job import Storage

CHUNK = 512 << 10  # bytes of a chunk: 256 KiB to 1 MiB are written and read fastest
LEVELS: Mapping[str, range] = {"none": range(0), "gzip": range(10)}


def storage_faults(storage: Storage) -> list[str]:
    """Find what cannot be written as asked.

    Args:
        storage: How results are to lie on disk.

    Returns:
        One sentence per fault.
    """
    levels = LEVELS[storage.compression]
    if storage.level is None or storage.level in levels:
        return []
    expected = f"{levels[0]} to {levels[-1]} or null" if levels else "null"
    return [
        f"store.level: expected {expected} for compression {storage.compression}, got {storage.level}"
    ]


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
    """
    if storage.compression == "none":
        return {}
    level = {} if storage.level is None else {"compression_opts": storage.level}
    return {
        "chunks": chunk_shape(shape, itemsize),
        "compression": storage.compression,
        **level,
    }


def storage_of(dataset: h5py.Dataset) -> Storage:
    """Tell how a dataset lies on disk.

    Args:
        dataset: Of an open file.

    Returns:
        Its compression.
    """
    if dataset.compression is None:
        return Storage()
    return Storage(dataset.compression, dataset.compression_opts)


def chunk_shape(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Cut a dataset into chunks of as many whole trailing dimensions as fit.

    Args:
        shape: Of the dataset, points first.
        itemsize: Bytes of an entry.

    Returns:
        Shape of a chunk.

    Example:
        >>> chunk_shape((1000000, 10, 10), 8), chunk_shape((50, 1000, 1000), 8)
        ((655, 10, 10), (1, 65, 1000))
    """
    room, chunk = max(CHUNK // itemsize, 1), list[int]()
    for length in reversed(shape):
        chunk.append(max(min(length, room), 1))
        room //= chunk[-1]
    return tuple(reversed(chunk))
