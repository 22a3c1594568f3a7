"""Whether files still hold what was written: parts, points, checksums."""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError
from pipeline.store.files.checksum import spell_crc32
from pipeline.store.files.run_directory import SHARD_NAME
from pipeline.store.files.trust import open_checked, readable, require_view
from pipeline.store.layout import read_group
from pipeline.store.reading.reader import Results

BLOCK = 16 << 20  # bytes read at a time


def check_files(results: Results) -> list[str]:
    """Read every dataset of every file and compare it with its checksum.

    Args:
        results: Open results.

    Returns:
        One sentence per fault.
    """
    faults = [f"points {start} to {stop - 1} are missing" for start, stop in results.missing()]
    for path in results.files:
        faults += check_file(path, results.edited)
    return [*faults, *_check_views(results)]


def _check_views(results: Results) -> list[str]:
    """Look at the files that stand between a result and many shards, by which other programs read."""
    faults = []
    with open_checked(results.account, results.edited) as file, readable(results.account):
        status = file["status"]
        shown = [each.file_name for each in status.virtual_sources()] if status.is_virtual else []
    for name in shown:
        if SHARD_NAME.fullmatch(Path(name).name):
            continue
        try:
            require_view(results.account.parent / name, results.edited)
        except StoreError as error:
            faults.append(str(error))
    return faults


def check_file(path: Path, edited: bool = False) -> list[str]:
    """Read every dataset of one file and compare it with its checksum.

    Args:
        path: A shard, or a result that holds its rows itself.
        edited: Whether it may have been changed since it was written, in anything but its rows.

    Returns:
        One sentence per fault.
    """
    faults = []
    try:
        with open_checked(path, edited) as file, readable(path):
            for name, expected in read_group(file, "checksums").items():
                seen = spell_crc32(_checksum(file[name]))
                if seen != expected:
                    faults.append(
                        f"{path.name}: {name} has changed: expected {expected}, got {seen}"
                    )
    except StoreError as error:
        faults.append(f"{path.name} cannot be read: {error}")
    return faults


def _checksum(dataset: h5py.Dataset) -> int:
    rows = max(BLOCK // max(dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])), 1), 1)
    checksum = 0
    for start in range(0, len(dataset), rows):
        block = np.ascontiguousarray(dataset[start : start + rows])
        checksum = zlib.crc32(block.data, checksum)
    return checksum
