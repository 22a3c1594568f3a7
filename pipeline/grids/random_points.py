"""Uniform and normal random points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.function import Space
from pipeline.grids.base import Grid
from pipeline.grids.counter import stream_key, uniform
from pipeline.grids.sizes import require_count, resolve_bounds, resolve_n, spread


class RandomGrid(Grid):
    """Independent random points, each coordinate ``shift + scale * z``.

    Args:
        count: N.
        shift: float64 (n,).
        scale: float64 (n,).
        normal: z is standard normal; else uniform in (0, 1).
        spec: How they came about, with the seed.
    """

    def __init__(
        self, count: int, shift: Tensor, scale: Tensor, normal: bool, spec: Mapping[str, Any]
    ) -> None:
        self._count, self._shift, self._scale, self._normal = count, shift, scale, normal
        self._spec = dict(spec)
        self._key = stream_key(spec["seed"], spec["kind"], spec["distribution"])

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self._shift)

    def __len__(self) -> int:
        return self._count

    @property
    def spec(self) -> Mapping[str, Any]:
        """Distribution, count and seed."""
        return self._spec

    def rows(self, start: int, stop: int) -> Tensor:
        """Draw by index.

        Returns:
            float64 (stop - start, n).
        """
        z = uniform(self._key, start, stop, self.n)
        return self._shift + self._scale * (torch.special.ndtri(z) if self._normal else z)


def build_random(
    space: Space,
    /,
    count: int = 1000,
    distribution: Literal["uniform", "normal"] = "uniform",
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    mean: float | list[float] = 0.0,
    std: float | list[float] = 1.0,
    seed: int | None = None,
    n: int | None = None,
) -> RandomGrid:
    """Random points, the same for the same seed, whoever computes which of them.

    Args:
        space: What the grid has to cover.
        count: N.
        distribution: uniform between lower and upper, or normal with mean and std.
        lower: By default the function's domain.
        upper: By default the function's domain.
        mean: Of each coordinate.
        std: Of each coordinate.
        seed: By default the seed of the job.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.

    Raises:
        GridError: The options do not make a grid.
    """
    size = resolve_n(space, n, {"lower": lower, "upper": upper, "mean": mean, "std": std})
    seed = space.seed if seed is None else seed
    common = {
        "kind": "random",
        "distribution": distribution,
        "count": require_count(count),
        "seed": seed,
    }
    if distribution == "uniform":
        low, high = resolve_bounds(space, size, lower, upper)
        spec = {**common, "lower": low.tolist(), "upper": high.tolist()}
        return RandomGrid(count, low, high - low, False, spec)
    centre = torch.tensor(spread(mean, size), dtype=torch.float64)
    width = torch.tensor(spread(std, size), dtype=torch.float64)
    if not bool((width >= 0).all() and width.isfinite().all() and centre.isfinite().all()):
        raise GridError(f"expected a finite grid.mean and grid.std >= 0, got {mean} and {std}")
    spec = {**common, "mean": centre.tolist(), "std": width.tolist()}
    return RandomGrid(count, centre, width, True, spec)
