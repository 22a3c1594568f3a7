"""Products of equally or logarithmically spaced axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.function import Space
from pipeline.grids.base import Grid
from pipeline.grids.sizes import require_count, resolve_bounds, resolve_n, spread

Spacing = Literal["linear", "log"]
MOST = 1 << 62


class ProductGrid(Grid):
    """Every combination of the points of n axes; the first axis varies slowest.

    Args:
        axes: The points of each axis, float64.
        spec: How they came about.
    """

    def __init__(self, axes: Sequence[Tensor], spec: Mapping[str, Any]) -> None:
        self._axes, self._spec = tuple(axes), dict(spec)
        self._count = math.prod(len(axis) for axis in axes)
        if self._count > MOST:
            raise GridError(
                f"the grid has {self._count:.1e} points; at most {MOST:.1e} can be counted"
            )

    @property
    def n(self) -> int:
        """Number of axes."""
        return len(self._axes)

    def __len__(self) -> int:
        return self._count

    @property
    def spec(self) -> Mapping[str, Any]:
        """Bounds, counts and spacing of the axes."""
        return self._spec

    @property
    def axes(self) -> tuple[Tensor, ...]:
        """The points of each axis."""
        return self._axes

    def rows(self, start: int, stop: int) -> Tensor:
        """Take the index apart into one index per axis.

        Returns:
            float64 (stop - start, n).
        """
        rest = torch.arange(start, stop)
        columns = []
        for axis in reversed(self._axes):
            columns.append(axis[rest % len(axis)])
            rest = rest // len(axis)
        return torch.stack(columns[::-1], dim=1)


def build_linspace(
    space: Space,
    /,
    count: int | list[int] = 101,
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    spacing: Spacing | list[Spacing] = "linear",
    n: int | None = None,
) -> ProductGrid:
    """A product of axes from lower to upper, both included; one point is the lower end.

    Args:
        space: What the grid has to cover.
        count: Points per axis.
        lower: First point of each axis; by default the function's domain.
        upper: Last point of each axis.
        spacing: linear, or log for equal ratios.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.

    Raises:
        GridError: The options do not make a grid.
    """
    listed = {"count": count, "lower": lower, "upper": upper, "spacing": spacing}
    size = resolve_n(space, n, listed)
    low, high = resolve_bounds(space, size, lower, upper)
    counts = [require_count(entry) for entry in spread(count, size)]
    spacings = spread(spacing, size)
    ends = zip(low.tolist(), high.tolist(), counts, spacings, strict=True)
    spec = {
        "kind": "linspace", "lower": low.tolist(), "upper": high.tolist(),
        "count": counts, "spacing": spacings,
    }  # fmt: skip
    return ProductGrid([_axis(*end) for end in ends], spec)


def _axis(low: float, high: float, count: int, spacing: Spacing) -> Tensor:
    if spacing == "linear":
        axis = torch.linspace(low, high, count, dtype=torch.float64)
    elif low > 0:
        axis = torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64).exp()
    else:
        raise GridError(f"an axis with spacing=log needs positive bounds, got {low} … {high}")
    axis[-1] = high
    axis[0] = low
    return axis
