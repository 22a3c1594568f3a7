"""Tables: one point per row, in a file, read where asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GridError

Floats = NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
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


def choose(dataset: str | None, names: Sequence[str], path: str) -> str:
    """Choose an array of a file with several.

    Args:
        dataset: What the user names, or None.
        names: What the file holds.
        path: The file.

    Returns:
        The name: that of the user, the only one, or ``x``.

    Raises:
        GridError: The file does not hold it.
    """
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


def table_shape(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> tuple[int, int]:
    """Read an array's shape as that of a table; (N,) means one column.

    Args:
        shape: Shape of the array.
        dtype: Its type.
        where: What to call it.

    Returns:
        Number of rows and width.

    Raises:
        GridError: It is not a table of real numbers.
    """
    if dtype.kind not in "iuf":
        raise GridError(f"grid.path: {where} holds {dtype}; expected real numbers")
    if len(shape) not in (1, 2):
        raise GridError(
            f"grid.path: {where} has shape {tuple(shape)}; expected (N, n), or (N,) for n = 1"
        )
    return int(shape[0]), int(shape[1]) if len(shape) == 2 else 1
