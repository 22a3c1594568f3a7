"""One self-contained file of a result that lies in many."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.job import Storage
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.files.checksum import joined_crc32, spell_crc32
from pipeline.store.files.compression import storage_of
from pipeline.store.files.new_file import NewFile, new_file
from pipeline.store.files.trust import open_checked, readable
from pipeline.store.layout import KNOWN, read_group, write_group
from pipeline.store.reading.ahead import read_ahead
from pipeline.store.reading.reader import Results

PIECE = 4 << 20  # bytes that a thread reads, sums and writes at a time
THREADS = min(4, os.cpu_count() or 1)
SETTLED = 64 << 20  # bytes after which the disk is asked to begin with what it has been given


@dataclass(frozen=True)
class _Piece:
    """Consecutive rows of a dataset, in one file.

    Attributes:
        path: The file.
        array: The dataset.
        start: First row.
        stop: Row after the last.
        expected: The checksum of all rows of the dataset in that file.
        crc32: That of these rows, once they are copied.
    """

    path: Path
    array: RowArray
    start: int
    stop: int
    expected: str | None
    crc32: int = 0

    @property
    def bytes(self) -> int:
        """How many."""
        return (self.stop - self.start) * self.array.row_bytes


def consolidate(results: Results, target: Path, storage: Storage | None = None) -> None:
    """Copy a finished result into one file without virtual datasets, and check it on the way.

    Every byte is read once: the same memory is compared with its checksum and written.

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
    with new_file(target, shared=False) as new:
        if storage is None:
            with open_checked(results.files[0], results.edited) as first:
                storage = storage_of(first[results.stored[0]])
        for name in results.stored:
            new.create(results[name].dataset, results.points, storage)
        with open_checked(results.account, results.edited) as original:
            _copy_structure(original, new, results.stored)
        # HDF5 packs one chunk at a time, fastest in the order in which they lie
        threads = THREADS if storage.compression == "none" else 1
        write_group(new.file, "checksums", _copy_rows(results, new, threads))


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
    others = [name for name in original if name not in (*rows, "checksums", KNOWN)]
    for name in others:
        original.copy(name, copy)
        if "REFERENCE_LIST" in copy[name].attrs:  # of datasets in the other file
            del copy[name].attrs["REFERENCE_LIST"]
    for name in rows:
        stored, made = original[name], copy[name]
        made.attrs.update({k: v for k, v in stored.attrs.items() if k != "DIMENSION_LIST"})
        for axis, dimension in enumerate(stored.dims):
            made.dims[axis].attach_scale(copy[dimension[0].name])


def _copy_rows(results: Results, new: NewFile, threads: int) -> Mapping[str, str]:
    """Copy all rows, and give the checksum of each dataset; raise where one of a file is wrong."""
    sums = dict.fromkeys(results.stored, 0)
    copying = read_ahead(_Copier(new), _pieces(results), 2 * threads, threads)
    with _Settling(new) as settling, closing(copying) as copied:
        for (path, array), pieces in groupby(copied, attrgetter("path", "array")):
            found, length, expected = 0, 0, None
            for piece in pieces:
                found = joined_crc32(found, piece.crc32, piece.bytes)
                length, expected = length + piece.bytes, piece.expected
                settling.after(piece.bytes)
            if expected not in (None, spell_crc32(found)):
                raise StoreError(
                    f"{path.name}: {array.name} has changed: expected {expected}, got "
                    f"{spell_crc32(found)}; what is consolidated has to be sound"
                )
            sums[array.name] = joined_crc32(sums[array.name], found, length)
    return {name: spell_crc32(value) for name, value in sums.items()}


def _pieces(results: Results) -> Iterator[_Piece]:
    for path, (start, stop) in zip(results.files, results.present(), strict=True):
        sums = _known_sums(path, results)
        for name in results.stored:
            array = results[name]
            step = max(PIECE // max(array.row_bytes, 1), 1)
            for low in range(start, stop, step):
                yield _Piece(path, array, low, min(low + step, stop), sums.get(name))


def _known_sums(path: Path, results: Results) -> Mapping[str, Any]:
    """Read the checksums of a file; only one that was edited may have datasets without."""
    with open_checked(path, results.edited) as file, readable(path):
        sums = read_group(file, "checksums")
    lacking = set(sums).symmetric_difference(results.stored)
    if results.edited:
        lacking -= set(results.stored)
    if lacking:
        raise StoreError(
            f"{path.name}: expected one checksum for each of {', '.join(results.stored)}, got "
            f"{', '.join(sums)}; what is consolidated has to be sound"
        )
    return sums


class _Copier:
    """Copies pieces through memory that each thread keeps: new memory costs as much as the rest."""

    def __init__(self, new: NewFile) -> None:
        self._new, self._kept = new, threading.local()

    def __call__(self, piece: _Piece) -> _Piece:
        rows = piece.array.read(piece.start, piece.stop, out=self._rows(piece))
        crc32 = zlib.crc32(rows.data)
        self._new.write(piece.array.name, piece.start, rows)
        return replace(piece, crc32=crc32)

    def _rows(self, piece: _Piece) -> NDArray[Any]:
        memory = getattr(self._kept, "memory", None)
        if memory is None or memory.nbytes < piece.bytes:
            memory = self._kept.memory = np.empty(max(piece.bytes, PIECE), np.uint8)
        array = piece.array
        shape = piece.stop - piece.start, *array.shape[1:]
        return memory[: piece.bytes].view(array.dtype).reshape(shape)


class _Settling:
    """Lets the disk write what it has been given, while more is copied."""

    def __init__(self, new: NewFile) -> None:
        self._new, self._thread = new, ThreadPoolExecutor(1, thread_name_prefix="settling")
        self._bytes = 0
        self._last: Future[None] | None = None

    def after(self, count: int) -> None:
        """Take note of bytes that have been written."""
        self._bytes += count
        if self._bytes >= SETTLED and (self._last is None or self._last.done()):
            self._wait()
            self._bytes, self._last = 0, self._thread.submit(self._new.settle)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def __enter__(self) -> _Settling:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._thread.shutdown()
        if error is None:
            self._wait()
