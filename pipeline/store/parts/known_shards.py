"""What a result knows of the shards that it refers to, so that HDF5 has to open none of them to read rows.

The group ``shards`` has an entry per shard: the mark of its seal, and where the rows of each dataset lie.
A shard whose seal has another mark is looked into by HDF5, like those of results without this group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5d, h5f, h5s
from numpy.typing import NDArray

from pipeline.store.layout import KNOWN, Dataset
from pipeline.store.parts.part import Known, own_dataset, own_group

MARK, OFFSET, MOST = "mark", "offset_", 1 << 20  # shards of which it is written down


@dataclass(frozen=True, eq=False)
class KnownShards:
    """What was seen of shards when the run ended.

    Attributes:
        marks: Of their seals, (k,).
        offsets: Dataset -> the first byte of its rows in each, -1 where only HDF5 can read them, (k,).
    """

    marks: NDArray[Any]
    offsets: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.marks)

    def __getitem__(self, index: int) -> Known:
        """Give what was seen of one.

        Args:
            index: Of the shard.

        Returns:
            Its mark and its offsets.
        """
        offsets = {name: int(offset[index]) for name, offset in self.offsets.items()}
        return Known(int(self.marks[index]), offsets)


def known_entries(
    datasets: Sequence[Dataset], marks: Sequence[int | None], offsets: Sequence[Sequence[int]]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Make the group of a result.

    Args:
        datasets: What the result holds.
        marks: Of the shards' seals, in order, (k,).
        offsets: Of each shard's datasets, (k, datasets).

    Returns:
        The group with its entries; nothing where there are too many shards.
    """
    if len(marks) > MOST:
        return {}
    columns = np.array(offsets, np.int64).T
    named = zip(datasets, columns, strict=True)
    of_datasets = {f"{OFFSET}{dataset.name}": column for dataset, column in named}
    return {KNOWN: {MARK: np.array(marks, np.uint32), **of_datasets}}


def read_known(file: h5f.FileID, path: Path) -> KnownShards | None:
    """Read what a result knows of its shards, and look at no other object.

    Args:
        file: The open result.
        path: Where it is.

    Returns:
        What it knows; None where it says nothing.

    Raises:
        StoreError: What it says is in another file.
        ValueError: What it says is no such thing.
    """
    if not file.links.exists(KNOWN.encode()):
        return None
    group = own_group(file, path, KNOWN)
    columns = {name.decode(): _column(own_dataset(group, path, name.decode())) for name in group}
    marks = columns.pop(MARK)
    if any(len(column) != len(marks) for column in columns.values()):
        raise ValueError(f"{KNOWN!r} has entries of different lengths")
    offsets = {name.removeprefix(OFFSET): column for name, column in columns.items()}
    return KnownShards(marks, offsets)


def _column(stored: h5d.DatasetID) -> NDArray[Any]:
    if len(stored.shape) != 1 or stored.shape[0] > MOST or stored.dtype.kind not in "iu":
        raise ValueError(f"{KNOWN!r} has entries that are no integers")
    values = np.empty(stored.shape, stored.dtype)
    stored.read(h5s.ALL, h5s.ALL, values)
    return values
