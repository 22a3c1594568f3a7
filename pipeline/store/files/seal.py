"""The seal of a file: it tells, before HDF5 opens the file, that nothing has changed since it was written.

HDF5 trusts the structures that it reads: where they are damaged it may crash the process or never
come back. So the bytes of a file are checked first, all but the rows themselves, which have
checksums of their own. The seal lies behind the end that HDF5 knows, where no reader looks.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d

from pipeline.errors import StoreError

MAGIC = b"PDSEAL1\n"
SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of HDF5
TAIL = struct.Struct("<QQII8s")  # bytes of HDF5, number of ranges, two sums, magic
RANGE = 16  # bytes of a range: offset and length, unsigned and little-endian
BLOCK = 1 << 20  # bytes read at a time
Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Seal:
    """What stands at the end of a file.

    Attributes:
        size: Bytes that belong to HDF5.
        rows: Offset and length of each stretch of rows, ascending.
        crc32: Of all other bytes that belong to HDF5, in order.
    """

    size: int
    rows: Ranges
    crc32: int

    def pack(self) -> bytes:
        """Write it as bytes: the ranges, then 32 bytes that end the file."""
        return self._head() + struct.pack("<I8s", self.mark, MAGIC)

    @property
    def mark(self) -> int:
        """What tells a file from others: the checksum of the seal itself."""
        return zlib.crc32(self._head())

    def covers(self, offset: int, length: int) -> bool:
        """Tell whether bytes are rows."""
        return any(low <= offset and offset + length <= low + size for low, size in self.rows)

    def _head(self) -> bytes:
        ranges = np.array(self.rows, "<u8").tobytes()
        return ranges + struct.pack("<QQI", self.size, len(self.rows), self.crc32)


def row_ranges(datasets: Iterable[h5py.Dataset]) -> Ranges:
    """Find where the rows of datasets lie.

    Args:
        datasets: Of an open file, flushed.

    Returns:
        Offset and length of each stretch, ascending, neighbours joined.
    """
    found = sorted(stretch for dataset in datasets for stretch in _stretches(dataset.id))
    joined: list[tuple[int, int]] = []
    for offset, length in found:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((offset, length))
    return joined


def _stretches(dataset: h5d.DatasetID) -> Iterator[tuple[int, int]]:
    layout = dataset.get_create_plist().get_layout()
    if layout == h5d.CONTIGUOUS and dataset.get_offset() is not None:
        yield dataset.get_offset(), dataset.get_storage_size()
    elif layout == h5d.CHUNKED:
        chunks = list[tuple[int, int]]()
        dataset.chunk_iter(lambda chunk: chunks.append((chunk.byte_offset, chunk.size)))
        yield from chunks


def seal(descriptor: int, rows: Ranges) -> None:
    """Write the seal behind everything else.

    Args:
        descriptor: Of a complete file of HDF5, open for reading and writing.
        rows: As `row_ranges` gives them.

    Raises:
        OSError: The disk fails.
    """
    size = os.fstat(descriptor).st_size
    crc32 = _crc32(descriptor, _others(rows, size))
    left = memoryview(Seal(size, rows, crc32).pack())
    while left:
        done = os.pwrite(descriptor, left, size)
        left, size = left[done:], size + done


def require_seal(path: Path) -> Seal:
    """Refuse a file whose bytes are not those that were written.

    Args:
        path: The file.

    Returns:
        Its seal.

    Raises:
        StoreError: It cannot be read, has no seal, or its seal is broken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return checked_seal(descriptor, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error}; check the path") from error


def checked_seal(descriptor: int, path: Path) -> Seal:
    """Read the seal of a file, and refuse the file where its bytes are others.

    Args:
        descriptor: Of the file, open for reading.
        path: Where it is.

    Returns:
        The seal.

    Raises:
        StoreError: It has none, or a broken one.
        OSError: The disk fails.
    """
    found = _read(descriptor)
    if found is None and os.pread(descriptor, len(SIGNATURE), 0) != SIGNATURE:
        raise StoreError(
            f"{path} is no HDF5 file; expected result.h5, a shard, or the folder of a run; if it was one, "
            f"{REMEDY}"
        )
    if found is None:
        raise StoreError(
            f"{path} has no seal at its end: it was cut off, changed since it was written, or written by "
            f"something else; {REMEDY}"
        )
    if _crc32(descriptor, _others(found.rows, found.size)) != found.crc32:
        raise StoreError(f"{path} is damaged: its seal is broken; {REMEDY}")
    return found


REMEDY = (
    "take it from a copy, or remove it and run the same command again; if it was edited on purpose, "
    "open_results(path, edited=True) and --edited open it all the same"
)


def _read(descriptor: int) -> Seal | None:
    """Read the seal of a file; None where there is none that is whole."""
    end = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL.size, max(end - TAIL.size, 0))
    if len(tail) < TAIL.size:
        return None
    size, count, crc32, own, magic = TAIL.unpack(tail)
    if magic != MAGIC or size + count * RANGE + TAIL.size != end:
        return None
    packed = _pread(descriptor, count * RANGE, size)
    if zlib.crc32(packed + tail[:20]) != own:
        return None
    ranges = np.frombuffer(packed, "<u8").reshape(-1, 2).tolist()
    return Seal(size, [(offset, length) for offset, length in ranges], crc32)


def _others(rows: Ranges, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of what lies between the rows."""
    done = 0
    for offset, length in [*rows, (size, 0)]:
        if offset > done:
            yield done, min(offset, size) - done
        done = max(done, offset + length)


def _crc32(descriptor: int, stretches: Iterable[tuple[int, int]]) -> int:
    value = 0
    for offset, length in stretches:
        for start in range(offset, offset + length, BLOCK):
            block = _pread(descriptor, min(BLOCK, offset + length - start), start)
            value = zlib.crc32(block, value)
    return value


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    """Read so many bytes, or as many as there are."""
    parts = list[bytes]()
    while length > 0 and (part := os.pread(descriptor, length, offset)):
        parts.append(part)
        length, offset = length - len(part), offset + len(part)
    return b"".join(parts)
