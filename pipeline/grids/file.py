"""Points of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import GridError, nearest
from pipeline.grids.base import Grid
from pipeline.grids.kind import Space
from pipeline.grids.locations import locate, opened
from pipeline.grids.options import Claim, require_count, resolve_n
from pipeline.grids.readers import open_table
from pipeline.grids.tables import Floats, MemoryTable, Table


class FileGrid(Grid):
    """The rows of a file: .npy and .h5 are read where asked, .npz and .csv as a whole.

    Args:
        path: The file, or ``pkg://package/folder/file`` for one inside an installed package.
        dataset: Which array of an .npz or .h5 file; default: the only one, or ``x``.
        columns: Which columns, by index from 0 or by name in the header of a .csv file.

    Raises:
        GridError: The file cannot be read, or holds no table of real finite numbers.
    """

    def __init__(
        self,
        path: str,
        dataset: str | None = None,
        columns: Sequence[int] | Sequence[str] | None = None,
    ) -> None:
        self._path = locate(path)
        self._table = open_table(self._path, dataset)
        require_count(self._table.shape[0], f"the number of rows of {path}")
        self._columns = _resolve_columns(columns, self._table, path)
        self._stamps = self._stamp()
        self._digest = _digest([self._path, *self._table.sources])
        if isinstance(self._table, MemoryTable):
            self._require_finite(self._read(0, len(self)), 0)

    @property
    def n(self) -> int:
        """Number of columns taken."""
        return len(self._columns)

    def __len__(self) -> int:
        """Number of rows."""
        return self._table.shape[0]

    @property
    def spec(self) -> dict[str, Any]:
        """Digest of the file, and what is taken from it; not where it lies."""
        return {
            "name": "file",
            "n": self.n,
            "count": len(self),
            "dataset": self._table.dataset,
            "columns": list(self._columns),
            "sha256": self._digest,
        }

    def rows(self, start: int, stop: int) -> Tensor:
        """Read points start … stop - 1.

        Returns:
            (stop - start, n) float64.

        Raises:
            GridError: A coordinate is not finite, or the file was changed.
        """
        if not isinstance(self._table, MemoryTable) and self._stamp() != self._stamps:
            raise GridError(f"grid.path: {self._path} was changed while it was in use; start again")
        points = self._read(start, stop)
        self._require_finite(points, start)
        return torch.from_numpy(points)

    def _read(self, start: int, stop: int) -> Floats:
        return np.ascontiguousarray(self._table.read(start, stop)[:, self._columns])

    def _stamp(self) -> list[tuple[int, int]]:
        stamps = []
        for path in (self._path, *self._table.sources):
            with opened(path) as place:
                facts = place.stat()
                stamps.append((facts.st_size, facts.st_mtime_ns))
        return stamps

    def _require_finite(self, points: Floats, start: int) -> None:
        finite = np.isfinite(points).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise GridError(
                f"grid.path: {self._path}, row {start + row} (counted from 0) is "
                f"{points[row].tolist()}; every coordinate has to be finite, remove the point"
            )


def _digest(paths: Sequence[str]) -> str:
    digests: list[str] = []
    for path in paths:
        with opened(path) as place, place.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _resolve_columns(
    columns: Sequence[int] | Sequence[str] | None, table: Table, path: str
) -> list[int]:
    width = table.shape[1]
    if columns is None:
        return list(range(width))
    if not columns:
        raise GridError("grid.columns is empty; name at least one column or leave it out")
    return [_resolve_column(column, table, path) for column in columns]


def _resolve_column(column: int | str, table: Table, path: str) -> int:
    width = table.shape[1]
    if isinstance(column, int):
        if not 0 <= column < width:
            raise GridError(
                f"grid.columns: there is no column {column}; {path} has {width}, 0 … {width - 1}"
            )
        return column
    if not table.names:
        raise GridError(
            f"grid.columns: {path} has no names of columns, got {column!r}; give indices 0 … "
            f"{width - 1}"
        )
    if table.names.count(column) != 1:
        raise GridError(
            f"grid.columns: {path} has {table.names.count(column)} columns {column!r}. "
            f"{nearest(column, table.names)}"
        )
    return list(table.names).index(column)


def build_file(
    space: Space,
    /,
    path: str = "",
    dataset: str | None = None,
    columns: list[int] | list[str] | None = None,
    n: int | None = None,
) -> FileGrid:
    """Build a grid of the points of a file.

    Args:
        space: Inputs of the function.
        path: The file, or ``pkg://package/folder/file`` for one inside an installed package.
        dataset: Which array of an .npz or .h5 file; default: the only one, or ``x``.
        columns: Which columns; default: all.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.

    Raises:
        GridError: No file is named.
    """
    if not path:
        raise GridError(
            "grid.path is empty; name a .npy, .npz, .csv or .h5 file, as in grid.path=points.csv"
        )
    grid = FileGrid(path, dataset, columns)
    if columns is None:
        claim = Claim(f"{path} has {grid.n} columns", grid.n, "choose {n} of them in grid.columns")
    else:
        claim = Claim(f"grid.columns has {grid.n} entries", grid.n, "choose {n} columns")
    resolve_n(space, n, [claim])
    return grid
