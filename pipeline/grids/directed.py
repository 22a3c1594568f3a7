"""Points with a direction beside each, or one direction for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.grids.base import Grid


class Directed(Grid):
    """The points of a grid, with directions that belong to them.

    Args:
        points: N points.
        directions: One direction, or N: a grid as well.

    Attributes:
        points: As given.
        directions: As given.

    Raises:
        GridError: There are neither one nor N directions.
    """

    def __init__(self, points: Grid, directions: Grid) -> None:
        if len(directions) not in (1, len(points)):
            raise GridError(
                f"directions: expected one for all points, or one for each of the {len(points)}, "
                f"got {len(directions)}"
            )
        self.points, self.directions = points, directions

    @property
    def n(self) -> int:
        """Number of inputs of a point."""
        return self.points.n

    def __len__(self) -> int:
        """Number of points."""
        return len(self.points)

    @property
    def spec(self) -> dict[str, Any]:
        """Of the points, and of the directions."""
        return {**self.points.spec, "directions": dict(self.directions.spec)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the points."""
        return self.points.shape

    @property
    def axes(self) -> tuple[Tensor, ...] | None:
        """Of the points."""
        return self.points.axes

    @property
    def common(self) -> Tensor | None:
        """The direction that all points have, (size,); None where each has its own."""
        return self.directions[0:1][0] if len(self.directions) == 1 else None

    def rows(self, start: int, stop: int) -> Tensor:
        """The points alone.

        Returns:
            (stop - start, n) float64.
        """
        return self.points[start:stop]


def rows_of(grid: Grid, start: int, stop: int) -> Tensor:
    """Points start … stop - 1, each with its direction behind it where it has its own.

    Args:
        grid: Any.
        start: First point.
        stop: Point after the last.

    Returns:
        float64 (stop - start, n), or (stop - start, n + size).
    """
    if not isinstance(grid, Directed) or grid.common is not None:
        return grid[start:stop]
    points = grid[start:stop]
    return torch.cat([points, grid.directions[start:stop].to(points)], dim=1)
