"""Reads results: lazily, by slices, from a result file or a run directory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MissingShardsError, StoreError, nearest
from pipeline.store.layout import STATUS, read_group
from pipeline.store.run_directory import PLAN, RESULT, SHARDS
from pipeline.store.trust import is_rows, open_checked, readable

if TYPE_CHECKING:
    import torch
    import xarray

SCALES = ("DIMENSION_LIST", "_Netcdf4Dimid")  # HDF5's own, of use only inside a file
MOST_OPEN = 100  # files that stay open between reads


class Piece:
    """Rows start … stop - 1, in one file that is opened when they are first read."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.path, self.start, self.stop = path, start, stop
        self._file: h5py.File | None = None

    def file(self) -> h5py.File:
        """The open file; a `StoreError` if it is gone or refers to other files."""
        if self._file is None:
            self._file = open_checked(self.path)
        return self._file

    def rest(self, pieces: int) -> None:
        """Close the file where there are so many that they cannot all stay open."""
        if pieces > MOST_OPEN:
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class StoredArray:
    """A dataset on disk with a row per point; indexing reads what is asked for.

    Attributes:
        name: Name of the dataset.
        shape: (N, …).
        dtype: NumPy dtype.
        attrs: Units, long name and what else is written with it.
        dims: Names of its dimensions, `point` first.
    """

    def __init__(self, name: str, pieces: Sequence[Piece], points: int) -> None:
        with readable(pieces[0].path):
            first = pieces[0].file()[name]
            self.name, self.dtype = name, first.dtype
            self.shape: tuple[int, ...] = (points, *first.shape[1:])
            self.attrs = {key: value for key, value in first.attrs.items() if key not in SCALES}
            self.dims = tuple(axis[0].name.removeprefix("/") for axis in first.dims)
        self._pieces = pieces

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * int(self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read rows.

        Args:
            index: An int, a slice, or a tuple that begins with one of these.

        Returns:
            The rows, as NumPy would index them.

        Raises:
            StoreError: Some of the rows have not been computed.
        """
        rows, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step < 1:
                raise StoreError(f"{self.name}: slices need a positive step, got {step}")
            block = self.read(start, max(start, stop))[::step]
            return np.asarray(block[(slice(None), *rest)])
        row = range(len(self))[rows]
        return np.asarray(self.read(row, row + 1)[(0, *rest)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read rows start … stop - 1.

        Args:
            start: First row.
            stop: Row after the last.
            out: Buffer to read into, C-contiguous, of the dataset's dtype.

        Returns:
            (stop - start, …).

        Raises:
            StoreError: Some of the rows have not been computed, or the buffer does not fit.
        """
        shape = (stop - start, *self.shape[1:])
        block = np.empty(shape, self.dtype) if out is None else out
        if block.shape != shape or block.dtype != self.dtype:
            raise StoreError(
                f"{self.name}: the buffer has to be {self.dtype} {shape}, got {block.dtype} {block.shape}"
            )
        done = start
        for piece in self._pieces:
            low, high = max(start, piece.start), min(stop, piece.stop)
            if low >= high:
                continue
            if low > done:
                break
            source = np.s_[low - piece.start : high - piece.start]
            with readable(piece.path):
                stored = piece.file()[self.name]
                stored.read_direct(block, source, np.s_[low - start : high - start])
            piece.rest(len(self._pieces))
            done = high
        if done < stop:
            raise StoreError(
                f"{self.name}: rows {done} and on have not been computed (asked for {start}:{stop}); "
                "run the same command again to finish the run, or read what .missing() leaves out"
            )
        return block

    def __repr__(self) -> str:
        return f"<{self.name} {self.shape} {self.dtype}>"


class Results:
    """Derivatives on disk. Datasets are attributes: ``results.hessian[10:20]``.

    Args:
        path: Where they are.
        points: N.
        pieces: The files that are there, in order.
        account: The file that speaks for all of them; None where there is none yet.
    """

    def __init__(
        self, path: Path, points: int, pieces: Sequence[Piece], account: Path | None = None
    ) -> None:
        self.path, self.points = path, points
        self._pieces = pieces
        self._account = pieces[0] if account is None else Piece(account, 0, points)
        with readable(self._account.path):
            self.attrs = dict(self._account.file().attrs)
            root = pieces[0].file()
            self.names = tuple(name for name, stored in root.items() if is_rows(stored))

    def __getitem__(self, name: str) -> StoredArray:
        """Find a dataset.

        Args:
            name: Its name.

        Returns:
            The dataset; nothing has been read of it.

        Raises:
            StoreError: There is none of this name.
        """
        if name not in self.names:
            raise StoreError(f"{self.path} has no dataset {name!r}. {nearest(name, self.names)}")
        return StoredArray(name, self._pieces, self.points)

    def __getattr__(self, name: str) -> StoredArray:
        if name.startswith("_") or name == "names":
            raise AttributeError(name)
        try:
            return self[name]
        except StoreError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.names})

    def __len__(self) -> int:
        return self.points

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the rows, in order."""
        return tuple(piece.path for piece in self._pieces)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First row, and the row after the last, of each of the files."""
        return tuple((piece.start, piece.stop) for piece in self._pieces)

    @property
    def account(self) -> Path:
        """The file that speaks for all: with the attributes, the certificate, the provenance."""
        return self._account.path

    def labels(self, dimension: str) -> list[str]:
        """Names along a dimension: of the inputs or outputs where they have names, else numbers.

        Args:
            dimension: E.g. input_2, which has the names of input.

        Returns:
            One per index.
        """
        file, kind = self._account.file(), dimension.partition("_")[0]
        with readable(self._account.path):
            if f"{kind}_name" in file:
                return [name.decode() for name in file[f"{kind}_name"][()]]
            return [str(index) for index in range(len(file[dimension]))]

    @property
    def certificate(self) -> dict[str, Any]:
        """The evidence for the numbers."""
        return self._entries("certificate")

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return self._entries("provenance")

    @property
    def axes(self) -> tuple[NDArray[np.float64], ...]:
        """The axes of a product grid, first one slowest; empty for other grids and very long axes."""
        grid = self._entries("grid")
        return tuple(grid[f"axis_{column}"] for column in range(1, len(grid)))

    def _entries(self, group: str) -> dict[str, Any]:
        with readable(self._account.path):
            return read_group(self._account.file(), group)

    def missing(self) -> list[tuple[int, int]]:
        """Ranges of points that have not been computed.

        Returns:
            start, stop of each range.
        """
        gaps, done = [], 0
        for piece in self._pieces:
            if piece.start > done:
                gaps.append((done, piece.start))
            done = piece.stop
        return [*gaps, (done, self.points)] if done < self.points else gaps

    def count(self, status: str) -> int:
        """Number of computed points of a status: ok, nonfinite, failed or nonsmooth.

        Args:
            status: Which.

        Returns:
            The number.
        """
        total = 0
        for piece in self._pieces:
            with readable(piece.path):
                total += int(np.count_nonzero(piece.file()["status"][()] == STATUS[status]))
            piece.rest(len(self._pieces))
        return total

    def batches(self, rows: int, names: Sequence[str] = ()) -> Iterator[dict[str, torch.Tensor]]:
        """Read everything in order, a batch at a time.

        Args:
            rows: Points per batch.
            names: Datasets; all of them by default.

        Yields:
            Dataset -> tensor (B, …).
        """
        import torch

        arrays = [self[name] for name in (names or self.names)]
        for start in range(0, self.points, rows):
            stop = min(start + rows, self.points)
            yield {array.name: torch.from_numpy(array.read(start, stop)) for array in arrays}

    def to_xarray(self) -> xarray.Dataset:
        """Open as an xarray dataset with named dimensions, lazily.

        Returns:
            The dataset.

        Raises:
            StoreError: The run is not finished.
        """
        import xarray

        if self.missing():
            raise StoreError(
                f"{self.path} is not finished; run the same command again, then open it"
            )
        path = self.path / RESULT if self.path.is_dir() else self.path
        return xarray.open_dataset(path, engine="h5netcdf")

    def close(self) -> None:
        """Close all files."""
        for piece in (self._account, *self._pieces):
            piece.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        lines = [f"{self.attrs['title']}: {self.points} points, {self.path}"]
        lines += [f"  {array!r}" for array in map(self.__getitem__, self.names)]
        gaps = self.missing()
        return "\n".join(lines + ([f"  missing: {gaps}"] if gaps else []))


def open_results(path: str | Path) -> Results:
    """Open the results of a run.

    Args:
        path: A result file, a shard, or the directory of a run, finished or not.

    Returns:
        The results; nothing but metadata is read until it is asked for.

    Raises:
        StoreError: There is nothing to open, a part of it is missing, or it cannot be trusted.
    """
    place = Path(path)
    if place.is_dir():
        return _open_directory(place)
    file = open_checked(place)
    parts = _virtual_parts(file, place)
    start, stop = int(file.attrs["start"]), int(file.attrs["stop"])
    whole = Piece(place, 0, stop - start)
    file.close()
    return Results(place, stop - start, _pieces(parts) if parts else [whole], place)


def _virtual_parts(file: h5py.File, path: Path) -> list[Path]:
    if not file["status"].is_virtual:
        return []
    parts = [path.parent / source.file_name for source in file["status"].virtual_sources()]
    lost = [part.name for part in parts if not part.is_file()]
    if lost:
        raise MissingShardsError(
            f"{path} needs its shards, and {len(lost)} of {len(parts)} are missing ({', '.join(lost[:3])}…); "
            "keep result.h5 and shards/ together, or run the same command again"
        )
    return sorted(parts)


def _open_directory(path: Path) -> Results:
    if (path / RESULT).is_file():
        return open_results(path / RESULT)
    shards = sorted((path / SHARDS).glob("shard-*.h5"))
    if not shards:
        raise StoreError(f"{path}: expected result.h5 or shards of a run, found neither")
    try:
        points = int(json.loads((path / PLAN).read_text())["points"])
        if points < 1:
            raise ValueError(f"points is {points}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: the plan of the run cannot be read: {error}") from error
    return Results(path, points, _pieces(shards))


def _pieces(paths: Sequence[Path]) -> list[Piece]:
    pieces = []
    for path in paths:
        with open_checked(path) as file:
            pieces.append(Piece(path, int(file.attrs["start"]), int(file.attrs["stop"])))
    return sorted(pieces, key=lambda piece: piece.start)
