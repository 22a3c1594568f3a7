"""Assembles the shards of a finished run into one result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import StoreError
from pipeline.store.evidence import gather
from pipeline.store.integrity import check_file
from pipeline.store.layout import (
    Layout,
    create_dimensions,
    describe_dataset,
    write_group,
    write_root,
)
from pipeline.store.new_file import new_file
from pipeline.store.shard import new_shard
from pipeline.store.trust import open_checked

SMALL = 64 << 20  # bytes up to which a result is one self-contained file


def assemble(path: Path, layout: Layout, shards: Sequence[Path], attrs: Mapping[str, Any]) -> None:
    """Make the result of a run from its shards: a real file when small, else virtual datasets.

    Args:
        path: The result file.
        layout: What it holds.
        shards: The shards in order, each complete.
        attrs: Attributes of the root group, with start and stop of the whole run.

    Raises:
        StoreError: A shard cannot be read or does not fit.
    """
    points = int(attrs["stop"])
    try:
        if points * layout.row_bytes() <= SMALL:
            _copy(path, layout, shards, attrs)
        else:
            _virtual(path, layout, shards, attrs)
    except (OSError, KeyError) as error:
        raise StoreError(
            f"the result cannot be put together: {error}; remove the shard that is named and run the same command again"
        ) from error


def _copy(path: Path, layout: Layout, shards: Sequence[Path], attrs: Mapping[str, Any]) -> None:
    for fault in (fault for shard in shards for fault in check_file(shard)):
        raise OSError(fault)
    with new_shard(path, layout, int(attrs["stop"]), attrs) as writer:
        for shard in shards:
            with open_checked(shard) as file:
                writer.append(
                    {dataset.name: file[dataset.name][()] for dataset in layout.datasets()}
                )
        for group, entries in gather(shards).items():
            writer.describe(group, entries)


def _virtual(path: Path, layout: Layout, shards: Sequence[Path], attrs: Mapping[str, Any]) -> None:
    points = int(attrs["stop"])
    groups = gather(shards)  # looks at every seal
    lengths = [_length(shard) for shard in shards]
    stops = np.cumsum(lengths)
    with new_file(path) as new:
        file = new.file
        write_root(file, layout, attrs)
        create_dimensions(file, layout, points)
        for dataset in layout.datasets():
            virtual = h5py.VirtualLayout((points, *dataset.shape), dataset.dtype)
            for shard, length, stop in zip(shards, lengths, stops, strict=True):
                name = str(shard.relative_to(path.parent))
                source = h5py.VirtualSource(name, dataset.name, (length, *dataset.shape))
                virtual[stop - length : stop] = source
            fill = np.nan if dataset.dtype.kind == "f" else 0
            file.create_virtual_dataset(dataset.name, virtual, fillvalue=fill)
            describe_dataset(file, dataset)
        for group, entries in groups.items():
            write_group(file, group, entries)
        write_group(file, "checksums", {"location": "in each shard"})


def _length(shard: Path) -> int:
    with h5py.File(shard) as file:
        return int(file.attrs["stop"]) - int(file.attrs["start"])
