"""Files with one point per row, read where asked: .npy, .npz, .csv, .h5."""

from __future__ import annotations

import csv
import zipfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GridError

Floats = NDArray[np.float64]
PACKAGE = "pkg://"
SUFFIXES = (".npy", ".npz", ".csv", ".h5", ".hdf5")
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, csv.Error)


class Table(ABC):
    """N rows of numbers in a file, of which any range can be read.

    Laws: ``read(a, b)`` is float64 of shape (b - a, width); nothing stays open between calls, so
    that a table can be pickled.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Number of rows and width."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Floats:
        """Read rows start … stop - 1.

        Returns:
            (stop - start, width) float64.
        """

    @property
    def names(self) -> Sequence[str]:
        """Name of each column, or empty."""
        return ()

    @property
    def dataset(self) -> str | None:
        """Name of the array inside the file, or None where a file holds one table."""
        return None

    @property
    def sources(self) -> Sequence[str]:
        """Further files that hold the numbers."""
        return ()


@dataclass(frozen=True)
class MemoryTable(Table):
    """A file that can only be read as a whole.

    Attributes:
        values: (N, width) float64.
        header: Name of each column, or empty.
        key: Name of the array inside the file, or None.
    """

    values: Floats = field(repr=False)
    header: tuple[str, ...] = ()
    key: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and width."""
        return self.values.shape[0], self.values.shape[1]

    def read(self, start: int, stop: int) -> Floats:
        """Copy rows start … stop - 1.

        Returns:
            (stop - start, width) float64.
        """
        return self.values[start:stop].copy()

    @property
    def names(self) -> Sequence[str]:
        """Name of each column, or empty."""
        return self.header

    @property
    def dataset(self) -> str | None:
        """Name of the array inside the file."""
        return self.key


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
            return np.array(rows, dtype=np.float64).reshape(stop - start, -1)


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
            return np.asarray(rows, dtype=np.float64).reshape(stop - start, -1)

    @property
    def dataset(self) -> str | None:
        """Name of the dataset."""
        return self.key

    @property
    def sources(self) -> Sequence[str]:
        """Files that a virtual dataset takes its rows from."""
        return self.parts


@contextmanager
def opened(path: str) -> Iterator[Path]:
    """Give a path on the file system for a path or a resource, and name the file in all errors.

    Args:
        path: A path, or ``pkg://package/folder/file`` for a file inside an installed package.

    Yields:
        Where the file is, while the context lasts.

    Raises:
        GridError: There is no such file, or reading it fails.
    """
    try:
        if path.startswith(PACKAGE):
            with resources.as_file(_resource(path)) as place:
                yield place
        else:
            yield Path(path)
    except UNREADABLE as error:
        raise GridError(f"grid.path: {path} cannot be read: {error}") from error


def locate(path: str) -> str:
    """Make a path independent of the current directory and make sure that the file exists.

    Args:
        path: As the user writes it.

    Returns:
        The absolute path, or the ``pkg://`` path unchanged.

    Raises:
        GridError: There is no such file.
    """
    if path.startswith(PACKAGE):
        if not _resource(path).is_file():
            raise GridError(f"grid.path: {path}: the package has no such file; check the spelling")
        return path
    place = Path(path).expanduser().absolute()
    if not place.is_file():
        raise GridError(
            f"grid.path: there is no file {path} (looked for {place}); relative paths start at "
            "the current directory"
        )
    return str(place)


def _resource(path: str) -> Any:
    package, *parts = path.removeprefix(PACKAGE).split("/")
    try:
        return resources.files(package).joinpath(*parts)
    except (ImportError, TypeError, ValueError) as error:
        raise GridError(
            f"grid.path: {path}: package {package!r} cannot be imported ({error}); write "
            "pkg://package/folder/file"
        ) from error


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
            return _read_csv(path, place)
        return _open_h5(path, place, dataset)


def _open_npy(path: str, place: Path) -> NpyTable:
    stored = np.load(place, mmap_mode="r", allow_pickle=False)
    return NpyTable(path, _table_shape(stored.shape, stored.dtype, path))


def _open_npz(path: str, place: Path, dataset: str | None) -> MemoryTable:
    with np.load(place, allow_pickle=False) as archive:
        key = _choose(dataset, archive.files, path)
        stored = archive[key]
    shape = _table_shape(stored.shape, stored.dtype, f"{path}, dataset {key!r}")
    return MemoryTable(stored.astype(np.float64).reshape(shape), key=key)


def _open_h5(path: str, place: Path, dataset: str | None) -> H5Table:
    with h5py.File(place, "r") as file:
        key = _choose(dataset, _dataset_names(file), path)
        stored = file[key]
        if stored.file.filename != file.filename or stored.external:
            raise GridError(f"grid.path: {path}: {key!r} is stored in another file; copy it here")
        shape = _table_shape(stored.shape, stored.dtype, f"{path}, dataset {key!r}")
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
    names = sorted({source.file_name for source in stored.virtual_sources()} - {"."})
    folder = place.resolve().parent
    for name in names:
        part = (folder / name).resolve()
        if not part.is_relative_to(folder) or not part.is_file():
            raise GridError(
                f"grid.path: {path}: dataset {stored.name} takes rows from {name}, which is not "
                f"a file below {folder}; put it back"
            )
    return tuple(str(folder / name) for name in names)


def _choose(dataset: str | None, names: Sequence[str], path: str) -> str:
    if dataset is None:
        dataset = names[0] if len(names) == 1 else "x"
        wanted = "grid.dataset is not given and there is no 'x'"
    else:
        dataset = dataset.strip("/")
        wanted = f"there is no dataset {dataset!r}"
    if dataset not in names:
        raise GridError(
            f"grid.path: {path}: {wanted}; set grid.dataset to one of "
            f"{', '.join(names) if names else '(the file holds none)'}"
        )
    return dataset


def _table_shape(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> tuple[int, int]:
    if dtype.kind not in "iuf":
        raise GridError(f"grid.path: {where} holds {dtype}; expected real numbers")
    if len(shape) not in (1, 2):
        raise GridError(
            f"grid.path: {where} has shape {tuple(shape)}; expected (N, n), or (N,) for n = 1"
        )
    return int(shape[0]), int(shape[1]) if len(shape) == 2 else 1


def _read_csv(path: str, place: Path) -> MemoryTable:
    numbers, header, width = array("d"), (), 0
    with place.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"grid.path: {path}, line {reader.line_num}"
            if width == 0:
                width, header = len(cells), _header(cells)
                if header:
                    continue
            if len(cells) != width:
                raise GridError(
                    f"{where} has {len(cells)} values, the first line has {width}; "
                    "give every row the same number"
                )
            numbers.extend(_number(cell, where) for cell in cells)
    values = np.frombuffer(numbers, dtype=np.float64).reshape(-1, max(width, 1))
    return MemoryTable(values, header)


def _header(cells: Sequence[str]) -> tuple[str, ...]:
    """Names, if no cell is a number; a row with one number in it is a row of numbers."""
    names = tuple(cell.strip().lstrip("#").strip() for cell in cells)
    return () if any(_is_number(cell) for cell in cells) else names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise GridError(
            f"{where}: {cell.strip()!r} is not a number; separate numbers by commas and put names "
            "in the first line only"
        ) from None
