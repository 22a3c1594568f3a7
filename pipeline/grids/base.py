"""The grid: a lazy, ordered set of points addressed by index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import GridError, PipelineError, told


class Grid(ABC):
    """N points of n inputs, computed only where asked.

    Laws that every grid keeps:
        - ``grid[a:b]`` is float64 of shape (b - a, n), and depends on a and b only through the
          indices: ``grid[a:c][b - a:]`` equals ``grid[b:c]`` bit for bit, whoever computes it;
        - memory grows with the slice, not with N;
        - `spec` holds everything that determines the points, as JSON values.
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of inputs of a point."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of points N."""

    @property
    @abstractmethod
    def spec(self) -> Mapping[str, Any]:
        """What determines the points: JSON values, digests in place of data."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """Compute the points start … stop - 1 for 0 <= start <= stop <= N.

        Returns:
            float64 of shape (stop - start, n).
        """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes of a product grid; (N,) for other grids."""
        return (len(self),)

    @property
    def axes(self) -> tuple[Tensor, ...] | None:
        """The axes of a product grid, first one slowest; None for other grids."""
        return None

    def __getitem__(self, index: slice) -> Tensor:
        """Give the points of a slice with step 1.

        Args:
            index: start:stop.

        Returns:
            float64 of shape (stop - start, n).

        Raises:
            TypeError: The index is not a slice of step 1.
            GridError: The grid gives something else.
        """
        if not isinstance(index, slice) or index.step not in (None, 1):
            raise TypeError(f"a grid takes slices start:stop of step 1, got {index!r}")
        start, stop, _ = index.indices(len(self))
        stop = max(start, stop)
        points = self._rows(start, stop)
        if not isinstance(points, Tensor) or points.shape != (stop - start, self.n):
            got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise GridError(
                f"grid {type(self).__name__} has to give points of shape {(stop - start, self.n)} for "
                f"[{start}:{stop}], got {got}; correct its rows()"
            )
        return points.to(torch.float64)

    def _rows(self, start: int, stop: int) -> object:
        try:
            return self.rows(start, stop)
        except PipelineError:
            raise
        except (Exception, SystemExit) as error:  # the plugin's own code may raise anything
            raise GridError(
                f"grid {type(self).__name__}: its rows({start}, {stop}) raises {told(error)}"
            ) from error
