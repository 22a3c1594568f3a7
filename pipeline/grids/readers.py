"""Opens the table in a file by the suffix of its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import GridError
from pipeline.grids.csv_file import read_csv
from pipeline.grids.hdf5 import open_h5
from pipeline.grids.locations import opened
from pipeline.grids.tables import Floats, MemoryTable, Table, choose, table_shape

SUFFIXES = (".npy", ".npz", ".csv", ".h5", ".hdf5")


@dataclass(frozen=True)
class NpyTable(Table):
    """A .npy file, mapped into memory while it is read.

    Attributes:
        path: The file.
        size: Number of rows and width.
    """

    path: str
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and width."""
        return self.size

    def read(self, start: int, stop: int) -> Floats:
        """Read rows start … stop - 1.

        Returns:
            (stop - start, width) float64.
        """
        with opened(self.path) as path:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
            return np.array(rows, dtype=np.float64).reshape(stop - start, self.size[1])


def open_table(path: str, dataset: str | None = None) -> Table:
    """Open the table in a file by the suffix of its name.

    Args:
        path: What `locate` gives.
        dataset: Which array of an .npz or .h5 file; default: the only one, or ``x``.

    Returns:
        The table.

    Raises:
        GridError: The file has another suffix or holds no table of real numbers.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise GridError(
            f"grid.path: {path} has the suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}"
        )
    if dataset is not None and suffix in (".npy", ".csv"):
        raise GridError(
            f"grid.dataset is {dataset!r} but a {suffix} file holds one table; leave it out"
        )
    with opened(path) as place:
        if suffix == ".npy":
            return _open_npy(path, place)
        if suffix == ".npz":
            return _open_npz(path, place, dataset)
        if suffix == ".csv":
            return read_csv(path, place)
        return open_h5(path, place, dataset)


def _open_npy(path: str, place: Path) -> NpyTable:
    stored = np.load(place, mmap_mode="r", allow_pickle=False)
    return NpyTable(path, table_shape(stored.shape, stored.dtype, path))


def _open_npz(path: str, place: Path, dataset: str | None) -> MemoryTable:
    with np.load(place, allow_pickle=False) as archive:
        key = choose(dataset, archive.files, path)
        stored = archive[key]
    shape = table_shape(stored.shape, stored.dtype, f"{path}, dataset {key!r}")
    return MemoryTable(stored.astype(np.float64).reshape(shape), key=key)
