"""Independent random points, uniform in a box or normal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.functions.record import Bound
from pipeline.grids.base import Grid
from pipeline.grids.elementary import normal_quantile
from pipeline.grids.kind import Space
from pipeline.grids.options import (
    Box,
    claims_of,
    per_input,
    require_count,
    resolve_box,
    resolve_n,
    resolve_seed,
)
from pipeline.grids.streams import GENERATOR, Stream


@dataclass(frozen=True)
class UniformGrid(Grid):
    """Independent points, uniform in a box; coordinate j of point i is number i*n + j of a stream.

    Attributes:
        box: Where.
        count: Number of points.
        seed: Seed.
    """

    box: Box
    count: int
    seed: int

    def __post_init__(self) -> None:
        require_count(self.count)

    @property
    def n(self) -> int:
        """Number of inputs."""
        return self.box.n

    def __len__(self) -> int:
        """Number of points."""
        return self.count

    @property
    def spec(self) -> dict[str, Any]:
        """Bounds, number of points and seed."""
        own = {"name": "random", "distribution": "uniform", "generator": GENERATOR}
        return {**own, "n": self.n, "count": self.count, "seed": self.seed, **self.box.spec}

    def rows(self, start: int, stop: int) -> Tensor:
        """Compute points start … stop - 1.

        Returns:
            (stop - start, n) float64.
        """
        unit = Stream("random uniform", self.seed).centred(start * self.n, stop * self.n)
        return self.box.scale(unit.reshape(-1, self.n))


@dataclass(frozen=True)
class NormalGrid(Grid):
    """Independent normal points, |x - mean| < 8.3 std, by inversion of uniform numbers.

    Attributes:
        mean: Mean per input.
        std: Standard deviation per input.
        count: Number of points.
        seed: Seed.

    Raises:
        GridError: A mean or deviation is not finite, or a deviation is negative.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    count: int
    seed: int

    def __post_init__(self) -> None:
        require_count(self.count)
        for axis, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            if not (math.isfinite(mean) and math.isfinite(std) and std >= 0.0):
                raise GridError(
                    f"input {axis}: mean {mean} and standard deviation {std} are no normal "
                    "distribution; give finite grid.mean and grid.std >= 0"
                )

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.mean)

    def __len__(self) -> int:
        """Number of points."""
        return self.count

    @property
    def spec(self) -> dict[str, Any]:
        """Moments, number of points and seed."""
        own = {"name": "random", "distribution": "normal", "generator": GENERATOR}
        moments = {"mean": list(self.mean), "std": list(self.std)}
        return {**own, "n": self.n, "count": self.count, "seed": self.seed, **moments}

    def rows(self, start: int, stop: int) -> Tensor:
        """Compute points start … stop - 1.

        Returns:
            (stop - start, n) float64.
        """
        unit = Stream("random normal", self.seed).centred(start * self.n, stop * self.n)
        z = normal_quantile(unit).reshape(-1, self.n)
        return torch.from_numpy(np.array(self.mean) + np.array(self.std) * z)


def build_random(  # noqa: PLR0913 - the signature is the schema of grid.*
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
) -> UniformGrid | NormalGrid:
    """Build a grid of independent random points.

    Args:
        space: Inputs of the function.
        count: Number of points.
        distribution: ``uniform`` in lower … upper, or ``normal`` with mean and std.
        lower: Lower end of the box; default: the function's domain.
        upper: Upper end of the box; default: the function's domain.
        mean: Mean of the normal distribution.
        std: Standard deviation of the normal distribution.
        seed: Seed; default: that of the run.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.
    """
    _require_own_options(distribution, lower, upper, mean, std)
    size = resolve_n(space, n, claims_of(lower=lower, upper=upper, mean=mean, std=std))
    seed = resolve_seed(space, seed)
    if distribution == "uniform":
        return UniformGrid(resolve_box(space, lower, upper, size), count, seed)
    return NormalGrid(per_input(mean, size), per_input(std, size), count, seed)


def _require_own_options(
    distribution: str, lower: Bound | None, upper: Bound | None, mean: Bound, std: Bound
) -> None:
    foreign = {
        "uniform": {"mean": mean != 0.0, "std": std != 1.0},
        "normal": {"lower": lower is not None, "upper": upper is not None},
    }
    other = {"uniform": "normal", "normal": "uniform"}[distribution]
    for name, given in foreign[distribution].items():
        if given:
            raise GridError(
                f"grid.{name} belongs to the {other} distribution, grid.distribution is "
                f"{distribution}; leave it out or set grid.distribution={other}"
            )
