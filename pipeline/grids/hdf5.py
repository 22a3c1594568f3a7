"""Tables in HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import GridError
from pipeline.grids.locations import opened
from pipeline.grids.tables import Floats, Table, choose, table_shape


@dataclass(frozen=True)
class H5Table(Table):
    """A dataset of an HDF5 file, opened for each range.

    Attributes:
        path: The file.
        key: Name of the dataset.
        size: Number of rows and width.
        parts: Files that a virtual dataset takes its rows from.
    """

    path: str
    key: str
    size: tuple[int, int]
    parts: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and width."""
        return self.size

    def read(self, start: int, stop: int) -> Floats:
        """Read rows start … stop - 1.

        Returns:
            (stop - start, width) float64.
        """
        with opened(self.path) as path, h5py.File(path, "r") as file:
            rows = file[self.key][start:stop]
            return np.asarray(rows, dtype=np.float64).reshape(stop - start, self.size[1])

    @property
    def dataset(self) -> str | None:
        """Name of the dataset."""
        return self.key

    @property
    def sources(self) -> Sequence[str]:
        """Files that a virtual dataset takes its rows from."""
        return self.parts


def open_h5(path: str, place: Path, dataset: str | None) -> H5Table:
    """Find a dataset in an HDF5 file.

    Args:
        path: What `locate` gives.
        place: Where the file is now.
        dataset: Name of the dataset; default: the only one, or ``x``.

    Returns:
        The table.

    Raises:
        GridError: There is no such table, or its numbers are in a file elsewhere.
    """
    with h5py.File(place, "r") as file:
        key = choose(dataset, _dataset_names(file), path)
        stored = file[key]
        if stored.file.filename != file.filename or stored.external:
            raise GridError(f"grid.path: {path}: {key!r} is stored in another file; copy it here")
        shape = table_shape(stored.shape, stored.dtype, f"{path}, dataset {key!r}")
        return H5Table(path, key, shape, _virtual_parts(path, place, stored))


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_dataset(item) else None)
    return names


def _is_dataset(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def _virtual_parts(path: str, place: Path, stored: h5py.Dataset) -> tuple[str, ...]:
    """Files behind a virtual dataset; HDF5 silently fills in for those that are missing."""
    if not stored.is_virtual:
        return ()
    folder = place.resolve().parent
    direct = _sources(path, folder, place, stored)
    behind = set[Path]()
    # the result of very many shards refers to files that refer to them
    for part, name in direct.items():
        with h5py.File(part, "r") as file:
            if name in file and file[name].is_virtual:
                behind |= _sources(path, folder, part, file[name]).keys()
    return tuple(map(str, sorted({*direct, *behind})))


def _sources(path: str, folder: Path, place: Path, stored: h5py.Dataset) -> dict[Path, str]:
    """Each file that a virtual dataset refers to, with the name of the dataset there."""
    sources = {each.file_name: each.dset_name for each in stored.virtual_sources()}
    sources.pop(".", None)
    for name in sources:
        part = (place.parent / name).resolve()
        if not part.is_relative_to(folder) or not part.is_file():
            raise GridError(
                f"grid.path: {path}: dataset {stored.name} takes rows from {name}, which is not "
                f"a file below {folder}; put it back"
            )
    return {place.resolve().parent / name: dataset for name, dataset in sources.items()}
