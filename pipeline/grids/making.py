"""A grid from its kind: what a plugin gives is looked at before anything relies on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import GridError, PipelineError, told
from pipeline.grids.base import Grid
from pipeline.grids.kind import GridKind, Space


def make_grid(kind: GridKind, space: Space, options: Mapping[str, Any]) -> Grid:
    """Build a grid.

    Args:
        kind: What a plugin contributes.
        space: What has to be covered.
        options: All of its options, checked.

    Returns:
        A grid of at least one point with at least one input.

    Raises:
        PipelineError: The plugin refuses the options, in its own words.
        GridError: It raises anything else, or gives no such grid.
    """
    try:
        grid: object = kind.build(space, **options)
        found = (grid.n, len(grid)) if isinstance(grid, Grid) else None
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:  # the plugin's own code may raise anything
        raise GridError(
            f"grid {kind.name!r}: it raises with options {dict(options)}: {told(error)}"
        ) from error
    if not isinstance(grid, Grid) or found is None:
        raise GridError(
            f"grid {kind.name!r}: its builder has to return a pipeline.Grid, got {type(grid).__name__} {grid!r:.80}"
        )
    for name, size in zip(("n", "len()"), found, strict=True):
        if not isinstance(size, int) or size < 1:
            raise GridError(
                f"grid {kind.name!r}: its {name} has to be a whole number, at least 1, got {size!r} with "
                f"options {dict(options)}"
            )
    return grid
