"""One self-contained file of a result that lies in many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py

from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.store.compression import storage_of
from pipeline.store.integrity import check_file
from pipeline.store.new_file import NewFile, new_file
from pipeline.store.reader import Results
from pipeline.store.shard import ShardWriter
from pipeline.store.trust import open_checked

BLOCK = 16 << 20  # bytes copied at a time


def consolidate(results: Results, target: Path, storage: Storage | None = None) -> None:
    """Copy a finished result into one file without virtual datasets, and check it on the way.

    Args:
        results: Open results.
        target: The file to write; never replaced.
        storage: How its datasets are to lie on disk; None: as they do now.

    Raises:
        StoreError: The result is not finished, a checksum is wrong, or the target is in the way.
    """
    require_finished(results)
    if target.exists():
        raise StoreError(f"{target} is in the way; choose another name or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        new_file(target) as new,
        ThreadPoolExecutor(1) as summing,
        ThreadPoolExecutor(1) as checking,
    ):
        if storage is None:
            with open_checked(results.files[0], results.edited) as first:
                storage = storage_of(first[results.stored[0]])
        for name in results.stored:
            new.create(results[name].dataset, results.points, storage)
        with open_checked(results.account, results.edited) as original:
            _copy_structure(original, new, results.stored)
        writer = ShardWriter(new, results.stored, summing)
        faults = checking.map(lambda path: check_file(path, results.edited), results.files)
        for (start, stop), found in zip(results.present(), faults, strict=True):
            for fault in found:
                raise StoreError(f"{fault}; what is consolidated has to be sound")
            _copy_rows(results, writer, start, stop)
        writer.finish()


def require_finished(results: Results) -> None:
    """Refuse results that have gaps.

    Args:
        results: Open results.

    Raises:
        StoreError: Points are missing, or the shards have not been put together.
    """
    missing = results.missing()
    if missing:
        start, stop = missing[0]
        raise StoreError(
            f"{results.path} is not finished: points {start} to {stop - 1} are missing"
            f"{' and others' if len(missing) > 1 else ''}; run the same command again to finish it"
        )
    if int(results.attrs["stop"]) - int(results.attrs["start"]) != results.points:
        raise StoreError(
            f"{results.path} has all of its shards but no result.h5; run the same command again"
        )


def _copy_structure(original: h5py.File, new: NewFile, rows: tuple[str, ...]) -> None:
    """Everything but the rows themselves and their checksums."""
    copy = new.file
    copy.attrs.update(original.attrs)
    others = [name for name in original if name not in (*rows, "checksums")]
    for name in others:
        original.copy(name, copy)
        if "REFERENCE_LIST" in copy[name].attrs:  # of datasets in the other file
            del copy[name].attrs["REFERENCE_LIST"]
    for name in rows:
        stored, made = original[name], copy[name]
        made.attrs.update({k: v for k, v in stored.attrs.items() if k != "DIMENSION_LIST"})
        for axis, dimension in enumerate(stored.dims):
            made.dims[axis].attach_scale(copy[dimension[0].name])


def _copy_rows(results: Results, writer: ShardWriter, start: int, stop: int) -> None:
    arrays = [results[name] for name in results.stored]
    row = sum(array.row_bytes for array in arrays)
    step = max(BLOCK // row, 1)
    for low in range(start, stop, step):
        high = min(low + step, stop)
        writer.append({array.name: array.read(low, high) for array in arrays})
