"""The directions that jvp, vjp and hvp are taken along: a grid of one of them, or of one per point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.autograd.definitions.contractions import Direction
from pipeline.errors import ConfigurationError, GridError
from pipeline.functions.parameters import bind
from pipeline.grids.base import Grid
from pipeline.grids.directed import Directed
from pipeline.grids.kind import GridKind, Space
from pipeline.grids.making import make_grid

SEED = 0x64697265  # added to the seed of the job: points and directions are drawn apart


def direction_of(grid: Grid) -> Direction | None:
    """Where the direction of a point is found.

    Args:
        grid: The points of a job.

    Returns:
        The direction that all have, or its columns in `pipeline.grids.directed.rows_of`; None where
        there are none.
    """
    if not isinstance(grid, Directed):
        return None
    if grid.common is not None:
        return Direction(grid.common)
    return Direction(columns=(grid.n, grid.n + grid.directions.n))


def with_directions(
    grid: Grid, kind: GridKind, options: Mapping[str, Any], size: int, seed: int
) -> Directed:
    """Put directions beside the points of a grid.

    Args:
        grid: The points.
        kind: Kind of grid that the directions are made by.
        options: Its options; a number of points that is not given is that of the grid.
        size: Entries of a direction.
        seed: Of the job.

    Returns:
        The points, with directions.

    Raises:
        ConfigurationError: There can be no such directions.
    """
    given = {"count": len(grid)} if "count" in kind.options else {}
    values, faults = bind(kind.options, {**given, **options}, "directions")
    if faults:
        raise ConfigurationError(faults)
    try:
        return Directed(grid, make_grid(kind, Space(size, -1.0, 1.0, seed + SEED), values))
    except GridError as error:
        raise ConfigurationError([str(error).replace("grid.", "directions.")]) from error
