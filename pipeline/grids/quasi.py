"""Points that fill a box evenly: Sobol sequences and Latin hypercubes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from pipeline.errors import GridError
from pipeline.function import Space
from pipeline.grids.base import Grid
from pipeline.grids.counter import permute, stream_key, uniform
from pipeline.grids.sizes import require_count, resolve_bounds, resolve_n


class BoxGrid(Grid):
    """Points of the unit cube, stretched to a box.

    Args:
        lower: float64 (n,).
        upper: float64 (n,).
        spec: How they came about: kind, count, seed.
    """

    def __init__(self, lower: Tensor, upper: Tensor, spec: Mapping[str, Any]) -> None:
        self._lower, self._upper = lower, upper
        self._spec = {**spec, "lower": lower.tolist(), "upper": upper.tolist()}

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self._lower)

    def __len__(self) -> int:
        return int(self._spec["count"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """Kind, count, seed and bounds."""
        return self._spec

    def rows(self, start: int, stop: int) -> Tensor:
        """Stretch the points of the unit cube.

        Returns:
            float64 (stop - start, n).
        """
        return self._lower + (self._upper - self._lower) * self.unit(start, stop)

    @abstractmethod
    def unit(self, start: int, stop: int) -> Tensor:
        """Points of the unit cube, float64 (stop - start, n)."""


class SobolGrid(BoxGrid):
    """A Sobol sequence, as `torch.quasirandom.SobolEngine` draws it, entered at any index.

    Source: S. Joe and F. Y. Kuo, SIAM J. Sci. Comput. 30 (2008) 2635; jumps by the Gray code:
    I. A. Antonov and V. M. Saleev, USSR Comput. Math. Math. Phys. 19 (1980) 252.
    """

    def unit(self, start: int, stop: int) -> Tensor:
        """Set the engine to the state that it has after `start` points.

        Returns:
            float64 (stop - start, n).
        """
        engine = SobolEngine(self.n, scramble=self._spec["scramble"], seed=self._spec["seed"])
        if start > 0:
            gray = (start - 1) ^ ((start - 1) >> 1)
            for bit in range(gray.bit_length()):
                if gray >> bit & 1:
                    engine.quasi ^= engine.sobolstate[:, bit]
            engine.num_generated = start
        return engine.draw(stop - start, dtype=torch.float64)


class LatinHypercubeGrid(BoxGrid):
    """N points with exactly one in each of the N strata of every axis, in a random place of it.

    Source: M. D. McKay, R. J. Beckman and W. J. Conover, Technometrics 21 (1979) 239.
    """

    def unit(self, start: int, stop: int) -> Tensor:
        """Permute the strata by index and place the points in them.

        Returns:
            float64 (stop - start, n).
        """
        seed, count = self._spec["seed"], len(self)
        index = torch.arange(start, stop)
        keys = [stream_key(seed, "latin_hypercube", str(axis)) for axis in range(self.n)]
        strata = torch.stack([permute(index, count, key) for key in keys], dim=1)
        place = uniform(stream_key(seed, "latin_hypercube", "place"), start, stop, self.n)
        return (strata + place) / count


def build_sobol(
    space: Space,
    /,
    count: int = 1024,
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    scramble: bool = True,
    seed: int | None = None,
    n: int | None = None,
) -> SobolGrid:
    """The first points of a Sobol sequence.

    Args:
        space: What the grid has to cover.
        count: N; powers of two are balanced.
        lower: By default the function's domain.
        upper: By default the function's domain.
        scramble: Scramble by the seed.
        seed: By default the seed of the job.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.

    Raises:
        GridError: The options do not make a grid.
    """
    size = resolve_n(space, n, {"lower": lower, "upper": upper})
    low, high = resolve_bounds(space, size, lower, upper)
    most = 1 << SobolEngine.MAXBIT
    if require_count(count) > most or size > SobolEngine.MAXDIM:
        raise GridError(
            f"a Sobol sequence has at most {most} points of {SobolEngine.MAXDIM} inputs, "
            f"got {count} of {size}; use grid=random"
        )
    seed = space.seed if seed is None else seed
    return SobolGrid(
        low, high, {"kind": "sobol", "count": count, "scramble": scramble, "seed": seed}
    )


def build_latin_hypercube(
    space: Space,
    /,
    count: int = 1000,
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    seed: int | None = None,
    n: int | None = None,
) -> LatinHypercubeGrid:
    """A Latin hypercube sample.

    Args:
        space: What the grid has to cover.
        count: N, also the number of strata per axis.
        lower: By default the function's domain.
        upper: By default the function's domain.
        seed: By default the seed of the job.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.
    """
    size = resolve_n(space, n, {"lower": lower, "upper": upper})
    low, high = resolve_bounds(space, size, lower, upper)
    seed = space.seed if seed is None else seed
    spec = {"kind": "latin_hypercube", "count": require_count(count), "seed": seed}
    return LatinHypercubeGrid(low, high, spec)
