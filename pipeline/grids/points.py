"""Points that are given one by one."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.grids.base import Grid
from pipeline.grids.kind import Space
from pipeline.grids.options import Claim, resolve_n

DIGEST_ROWS = 2**16


class PointsGrid(Grid):
    """Points held in memory, on the device of the given tensor.

    The tensor is not copied: leave it as it is while the grid is in use.

    Args:
        points: (N, n) real and finite: a tensor, an array or nested sequences.

    Raises:
        GridError: The points have another shape, are not real numbers or not finite.
    """

    def __init__(self, points: Any) -> None:
        self._points = points.detach() if isinstance(points, Tensor) else _tensor(points)
        if self._points.layout != torch.strided:
            self._points = self._points.to_dense()
        if self._points.dtype == torch.bool or self._points.is_complex():
            raise GridError(f"points: expected real numbers, got {self._points.dtype}")
        _require_shape(tuple(self._points.shape))
        _require_finite(self._points)

    @property
    def n(self) -> int:
        """Number of inputs."""
        return int(self._points.shape[1])

    def __len__(self) -> int:
        """Number of points."""
        return int(self._points.shape[0])

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Shape and digest of the points as float64."""
        digest = hashlib.sha256()
        for start in range(0, len(self), DIGEST_ROWS):
            rows = self.rows(start, min(start + DIGEST_ROWS, len(self)))
            digest.update(rows.cpu().numpy().astype("<f8").tobytes())
        return {"name": "points", "n": self.n, "count": len(self), "sha256": digest.hexdigest()}

    def rows(self, start: int, stop: int) -> Tensor:
        """Copy points start … stop - 1, so that the caller may write into them.

        Returns:
            (stop - start, n) float64.
        """
        return self._points[start:stop].to(torch.float64, copy=True)


def _tensor(points: Any) -> Tensor:
    try:
        array = np.asarray(points)
    except ValueError as error:
        raise GridError(
            f"points: expected (N, n) numbers, the rows differ in length: {error}"
        ) from error
    if array.dtype.kind not in "iuf":
        raise GridError(f"points: expected real numbers, got an array of {array.dtype}")
    return torch.from_numpy(array.astype(np.float64, order="C"))


def _require_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise GridError(
            f"points: expected shape (N, n), got {shape}; a single point p is given as [p], "
            "points of a function of one input as [[a], [b], …]"
        )
    if 0 in shape:
        raise GridError(f"a grid needs at least one point of at least one input, got shape {shape}")


def _require_finite(points: Tensor) -> None:
    finite = torch.isfinite(points).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).to(torch.uint8).argmax())
        raise GridError(
            f"points: row {row} (counted from 0) is {points[row].tolist()}; every coordinate has "
            "to be finite, remove the point"
        )


def build_points(space: Space, /, values: tuple[tuple[float, ...], ...] = ()) -> PointsGrid:
    """Build a grid of points that are written out in the configuration.

    Args:
        space: Inputs of the function.
        values: One list of n numbers per point.

    Returns:
        The grid.

    Raises:
        GridError: There is no point, or the points have different lengths.
    """
    if not values:
        raise GridError(
            "a grid needs at least one point, grid.values is empty; "
            "give grid.values=[[0.0,1.0],[2.0,3.0]]"
        )
    width = len(values[0])
    for row, point in enumerate(values):
        if len(point) != width:
            raise GridError(
                f"grid.values: row {row} (counted from 0) has {len(point)} numbers, row 0 has "
                f"{width}; give every point the same number of inputs"
            )
    text = f"each row of grid.values has {width} numbers"
    resolve_n(space, None, [Claim(text, width, "give {n} numbers per row")])
    return PointsGrid(values)
