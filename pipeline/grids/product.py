"""Product grids: every combination of the points of n axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import GridError
from pipeline.grids.base import Grid
from pipeline.grids.elementary import Floats, log, scaled_exp
from pipeline.grids.kind import Space
from pipeline.grids.options import (
    MOST_POINTS,
    claims_of,
    per_input,
    require_count,
    resolve_box,
    resolve_n,
)

Spacing = Literal["linear", "log"]


@dataclass(frozen=True)
class Axis:
    """One axis: `count` points from `lower` to `upper`, both included and met bit for bit.

    Each half is counted from its own end: the end points are exact and an axis from -a to a is
    exactly symmetric. An axis of one point holds `lower`, as in `torch.linspace` and
    `numpy.linspace`.

    Attributes:
        lower: First point.
        upper: Last point.
        count: Number of points.
        spacing: ``linear``, or ``log`` for equal ratios of neighbours.

    Raises:
        GridError: No point, or a logarithmic axis that is not positive.
    """

    lower: float
    upper: float
    count: int
    spacing: Spacing = "linear"

    def __post_init__(self) -> None:
        require_count(self.count)
        if self.spacing == "log" and not self.lower > 0.0:
            raise GridError(
                f"grid.spacing = log needs positive bounds, got {self.lower} … {self.upper}; "
                "give grid.lower > 0 or grid.spacing = linear"
            )

    def at(self, index: NDArray[np.int64]) -> Floats:
        """Compute points of the axis.

        Args:
            index: Indices below `count`, shape (B,).

        Returns:
            (B,) points.
        """
        from_upper = index >= self.count - self.count // 2
        steps = np.where(from_upper, self.count - 1 - index, index)
        near = np.where(from_upper, self.upper, self.lower)
        far = np.where(from_upper, self.lower, self.upper)
        t = steps.astype(np.float64) / max(self.count - 1, 1)
        return np.clip(self._between(near, far, t), self.lower, self.upper)

    def _between(self, near: Floats, far: Floats, t: Floats) -> Floats:
        if self.spacing == "log":
            return scaled_exp(near, t * (log(far) - log(near)))
        return near * (1.0 - t) + far * t  # `far - near` may overflow


@dataclass(frozen=True)
class ProductGrid(Grid):
    """Every combination of the points of n axes, the first axis slowest (row-major).

    Attributes:
        parts: The n axes.

    Raises:
        GridError: There are more than 2^63 - 1 combinations.
    """

    parts: tuple[Axis, ...]

    def __post_init__(self) -> None:
        digits = sum(math.log10(axis.count) for axis in self.parts)
        # the product itself would take minutes where there are very many axes
        if digits > 20 or math.prod(self.shape) > MOST_POINTS:
            raise GridError(
                f"grid.count makes about 10^{digits:.0f} points in n = {self.n} inputs, "
                "at most 2^63 - 1 can be numbered; give fewer points per axis, or grid=sobol, "
                "where grid.count is the number of all points"
            )

    @property
    def n(self) -> int:
        """Number of axes."""
        return len(self.parts)

    def __len__(self) -> int:
        """Product of the lengths of the axes."""
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(axis.count for axis in self.parts)

    @property
    def spec(self) -> dict[str, Any]:
        """Ends, length and spacing of every axis."""
        return {
            "name": "linspace",
            "n": self.n,
            "count": list(self.shape),
            "lower": [axis.lower for axis in self.parts],
            "upper": [axis.upper for axis in self.parts],
            "spacing": [axis.spacing for axis in self.parts],
        }

    def rows(self, start: int, stop: int) -> Tensor:
        """Compute points start … stop - 1 from the digits of their indices.

        Returns:
            (stop - start, n) float64.
        """
        rest = np.arange(start, stop, dtype=np.int64)
        points = np.empty((stop - start, self.n))
        for column, axis in reversed(list(enumerate(self.parts))):
            rest, digit = np.divmod(rest, axis.count)
            points[:, column] = axis.at(digit)
        return torch.from_numpy(points)

    @property
    def axes(self) -> tuple[Tensor, ...]:
        """The points of each axis, first one slowest; as large as the axes are."""
        return tuple(torch.from_numpy(axis.at(np.arange(axis.count))) for axis in self.parts)


def build_linspace(
    space: Space,
    /,
    count: int | list[int] = 101,
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    spacing: Spacing | list[Spacing] = "linear",
    n: int | None = None,
) -> ProductGrid:
    """Build a product grid.

    Args:
        space: Inputs of the function.
        count: Points per axis.
        lower: First point of each axis; default: the function's domain.
        upper: Last point of each axis; default: the function's domain.
        spacing: ``linear`` or ``log``, for all axes or each.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.
    """
    claims = claims_of(count=count, lower=lower, upper=upper, spacing=spacing)
    size = resolve_n(space, n, claims)
    box = resolve_box(space, lower, upper, size)
    spacings: Sequence[Spacing] = [spacing] * size if isinstance(spacing, str) else spacing
    each = zip(box.lower, box.upper, per_input(count, size), spacings, strict=True)
    return ProductGrid(tuple(Axis(*parts) for parts in each))
