"""Points that fill a box more evenly than random ones: Sobol sequence and Latin hypercube."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.quasirandom import SobolEngine

from pipeline.errors import GridError
from pipeline.grids.base import Grid
from pipeline.grids.kind import Space
from pipeline.grids.options import (
    Box,
    claims_of,
    require_count,
    resolve_box,
    resolve_n,
    resolve_seed,
)
from pipeline.grids.permutation import LARGEST, ROUNDS, permute
from pipeline.grids.streams import GENERATOR, Stream


@dataclass(frozen=True)
class SobolGrid(Grid):
    """The first points of a Sobol sequence, entered anywhere in constant time.

    Point i is the exclusive or of the direction numbers at the set bits of the Gray code of i:
    Antonov & Saleev (1979), "An economic method of computing LPtau-sequences", USSR Computational
    Mathematics and Mathematical Physics 19(1), 252-256. Direction numbers and scrambling are those
    of `torch.quasirandom.SobolEngine`, whose `draw` gives the same points of the unit cube (it
    rounds its first point to the default dtype). Without scrambling point 0 is `lower`.

    Attributes:
        box: Where.
        count: Number of points; powers of two are balanced.
        seed: Seed of the scrambling.
        scramble: Whether to scramble.

    Raises:
        GridError: More points or inputs than there are direction numbers for.
    """

    box: Box
    count: int
    seed: int
    scramble: bool = True

    def __post_init__(self) -> None:
        require_count(self.count)
        if self.count > 2**SobolEngine.MAXBIT:
            raise GridError(
                f"grid.count is {self.count}; a Sobol sequence has at most 2^{SobolEngine.MAXBIT} "
                "points here, give fewer or use grid=random"
            )
        if self.n > SobolEngine.MAXDIM:
            raise GridError(
                f"the points have n = {self.n} inputs; Sobol sequences are tabulated for at most "
                f"{SobolEngine.MAXDIM}, use grid=random or grid=latin_hypercube"
            )

    @property
    def n(self) -> int:
        """Number of inputs."""
        return self.box.n

    def __len__(self) -> int:
        """Number of points."""
        return self.count

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Bounds, number of points, seed, and a digest of the scrambled direction numbers."""
        table = torch.cat([self._engine.shift[:, None], self._engine.sobolstate], dim=1)
        return {
            "name": "sobol",
            "n": self.n,
            "count": self.count,
            "scramble": self.scramble,
            "seed": self.seed if self.scramble else None,
            "sha256": hashlib.sha256(table.numpy().astype("<i8").tobytes()).hexdigest(),
            **self.box.spec,
        }

    def rows(self, start: int, stop: int) -> Tensor:
        """Compute points start … stop - 1.

        Returns:
            (stop - start, n) float64.
        """
        if start == stop:
            return torch.empty(0, self.n, dtype=torch.float64)
        engine = copy.copy(self._engine)
        engine.quasi, engine.num_generated = self._state(start), start + 1
        first = engine.quasi.to(torch.float64) / 2**SobolEngine.MAXBIT
        following = engine.draw(stop - start - 1, dtype=torch.float64)
        return self.box.scale(torch.cat([first[None], following]).numpy())

    def _state(self, index: int) -> Tensor:
        """Point `index` as integers (n,): what `SobolEngine` holds after drawing it."""
        gray, state = index ^ (index >> 1), self._engine.shift.clone()
        for bit in range(gray.bit_length()):
            if gray >> bit & 1:
                state ^= self._engine.sobolstate[:, bit]
        return state

    @cached_property
    def _engine(self) -> SobolEngine:
        return SobolEngine(self.n, scramble=self.scramble, seed=self.seed)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class LatinHypercubeGrid(Grid):
    """Random points, one in each of N equal strata of every input.

    McKay, Beckman & Conover (1979), "A comparison of three methods for selecting values of input
    variables in the analysis of output from a computer code", Technometrics 21(2), 239-245. The
    strata of each input are visited in an order that is computed index by index, see `permute`,
    and the position inside the stratum is counter-based: a slice costs as much as its own points.

    Attributes:
        box: Where.
        count: Number of points N, at most 2^48.
        seed: Seed.

    Raises:
        GridError: More strata than float64 can tell apart.
    """

    box: Box
    count: int
    seed: int

    def __post_init__(self) -> None:
        require_count(self.count)
        if self.count > LARGEST:
            raise GridError(
                f"grid.count is {self.count}; a Latin hypercube has at most 2^48 strata per "
                "input, give fewer or use grid=random"
            )

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
        own = {"name": "latin_hypercube", "generator": f"{GENERATOR} feistel-{ROUNDS}"}
        return {**own, "n": self.n, "count": self.count, "seed": self.seed, **self.box.spec}

    def rows(self, start: int, stop: int) -> Tensor:
        """Compute points start … stop - 1.

        Returns:
            (stop - start, n) float64.
        """
        index = np.arange(start, stop, dtype=np.uint64)
        keys = Stream("latin_hypercube strata", self.seed).words(0, self.n * ROUNDS)
        unit = self._positions(start, stop)
        for column, own in enumerate(keys.reshape(self.n, ROUNDS)):
            unit[:, column] += permute(index, self.count, own)
        return self.box.scale(unit / self.count)

    def _positions(self, start: int, stop: int) -> NDArray[np.float64]:
        """Positions in the strata, (stop - start, n), in 0 … 1."""
        # so few bits that stratum + position is exact and the division cannot leave the stratum
        bits = 50 - self.count.bit_length()
        stream = Stream("latin_hypercube positions", self.seed)
        return stream.centred(start * self.n, stop * self.n, bits).reshape(-1, self.n)


def build_sobol(  # noqa: PLR0913 - the signature is the schema of grid.*
    space: Space,
    /,
    count: int = 1024,
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    scramble: bool = True,
    seed: int | None = None,
    n: int | None = None,
) -> SobolGrid:
    """Build a grid of points of a Sobol sequence.

    Args:
        space: Inputs of the function.
        count: Number of points.
        lower: Lower end of the box; default: the function's domain.
        upper: Upper end of the box; default: the function's domain.
        scramble: Whether to scramble.
        seed: Seed of the scrambling; default: that of the run.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.
    """
    size = resolve_n(space, n, claims_of(lower=lower, upper=upper))
    box = resolve_box(space, lower, upper, size)
    return SobolGrid(box, count, resolve_seed(space, seed), scramble)


def build_latin_hypercube(
    space: Space,
    /,
    count: int = 1000,
    lower: float | list[float] | None = None,
    upper: float | list[float] | None = None,
    seed: int | None = None,
    n: int | None = None,
) -> LatinHypercubeGrid:
    """Build a Latin hypercube.

    Args:
        space: Inputs of the function.
        count: Number of points, and of strata per input.
        lower: Lower end of the box; default: the function's domain.
        upper: Upper end of the box; default: the function's domain.
        seed: Seed; default: that of the run.
        n: Number of inputs, for functions of any n.

    Returns:
        The grid.
    """
    size = resolve_n(space, n, claims_of(lower=lower, upper=upper))
    box = resolve_box(space, lower, upper, size)
    return LatinHypercubeGrid(box, count, resolve_seed(space, seed))
