"""Writes a shard: a contiguous range of points in one file, committed as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.store.files.checksum import spell_crc32
from pipeline.store.files.new_file import NewFile, new_file
from pipeline.store.layout import (
    Layout,
    create_dimensions,
    describe_dataset,
    write_group,
    write_root,
)

Rows = Mapping[str, NDArray[Any]]


class ShardWriter:
    """An open shard to which batches are appended in the order of their points.

    Args:
        new: The open file, with all datasets created.
        names: Datasets with a row per point.
        summing: A thread in which checksums are taken while the rows are written.
    """

    def __init__(self, new: NewFile, names: Iterable[str], summing: Executor) -> None:
        self._new, self._summing = new, summing
        self._rows = 0
        self._checksums = dict.fromkeys(names, 0)

    def append(self, rows: Rows) -> None:
        """Write the next batch.

        Args:
            rows: Dataset -> C-contiguous (B, …) of the layout's dtype.
        """
        length = len(rows["status"])
        summing = self._summing.submit(self._sum, rows)
        for name, values in rows.items():
            self._new.write(name, self._rows, values)
        summing.result()
        self._rows += length

    def _sum(self, rows: Rows) -> None:
        for name, values in rows.items():
            self._checksums[name] = zlib.crc32(values.data, self._checksums[name])

    def describe(self, group: str, entries: Mapping[str, Any]) -> None:
        """Write a group of named values, such as the provenance."""
        write_group(self._new.file, group, entries)

    def finish(self) -> None:
        """Write the checksums; nothing is appended afterwards.

        Raises:
            StoreError: Fewer rows were appended than the file has.
        """
        expected = len(self._new.file["status"])
        if self._rows != expected:
            raise StoreError(f"a shard of {expected} points was given {self._rows}; it is not kept")
        sums = {name: spell_crc32(value) for name, value in self._checksums.items()}
        write_group(self._new.file, "checksums", sums)


@contextmanager
def new_shard(
    path: Path, layout: Layout, points: int, attrs: Mapping[str, Any]
) -> Iterator[ShardWriter]:
    """Write a file of derivatives that appears under its name only when it is complete.

    Args:
        path: Its final name.
        layout: What it holds.
        points: Number of rows.
        attrs: Attributes of the root group: run_id, start, stop, created, history.

    Yields:
        The writer.
    """
    with new_file(path) as new:
        write_root(new.file, layout, attrs)
        create_dimensions(new.file, layout, points)
        for dataset in layout.datasets():
            new.create(dataset, points, layout.storage)
            describe_dataset(new.file, dataset)
        with ThreadPoolExecutor(1, thread_name_prefix="checksums") as summing:
            names = [dataset.name for dataset in layout.datasets()]
            writer = ShardWriter(new, names, summing)
            yield writer
        writer.finish()
