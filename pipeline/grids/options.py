"""Turns the options of a grid into one value per input, and refuses what cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import GridError
from pipeline.functions.record import Bound
from pipeline.grids.kind import Space

T = TypeVar("T")

MOST_POINTS = 2**63 - 1  # the largest index that int64 arithmetic and len() can hold


@dataclass(frozen=True)
class Claim:
    """A choice of the user that implies a number of inputs.

    Attributes:
        text: The choice, e.g. ``grid.lower has 3 entries``.
        n: The number of inputs it implies.
        remedy: What to do when ``{n}`` inputs are needed instead.
    """

    text: str
    n: int
    remedy: str


def claims_of(**options: object) -> list[Claim]:
    """Read the numbers of inputs that list-valued options imply.

    Returns:
        One claim per option that is a list.
    """
    remedy = "give {n} entries or one number"
    return [
        Claim(f"grid.{name} has {len(value)} entries", len(value), remedy)
        for name, value in options.items()
        if isinstance(value, Sequence) and not isinstance(value, str)
    ]


def resolve_n(space: Space, n: int | None, claims: Iterable[Claim]) -> int:
    """Settle the number of inputs between the function, ``grid.n`` and the other options.

    Args:
        space: What the function allows.
        n: The option ``grid.n``.
        claims: What the other options imply.

    Returns:
        The number of inputs; the default of `AnySize` if nobody says one.

    Raises:
        GridError: Two of them contradict each other.
    """
    asked = [] if n is None else [Claim(f"grid.n is {n}", n, "set it to {n} or leave it out")]
    every = [*asked, *claims]
    size, reason = _decide(space, every)
    if size < 1:
        raise GridError(f"{reason}; a point has at least one input")
    for claim in every:
        if claim.n != size:
            raise GridError(f"{claim.text} but {reason}; {claim.remedy.format(n=size)}")
    return size


def _decide(space: Space, claims: Sequence[Claim]) -> tuple[int, str]:
    if isinstance(space.n, int):
        return space.n, f"the function takes n = {space.n} inputs"
    if claims:
        return claims[0].n, claims[0].text
    return space.n.default, f"the function takes n = {space.n.default} inputs by default"


def per_input(value: T | Sequence[T], n: int) -> tuple[T, ...]:
    """Spread one value over n inputs; a list stays as it is.

    Returns:
        One value per input.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * n
    return tuple(value)


def require_count(count: int, name: str = "grid.count") -> None:
    """Refuse an empty grid and one whose points cannot be numbered.

    Raises:
        GridError: The count is not within 1 … 2^63 - 1.
    """
    if count < 1:
        raise GridError(f"a grid needs at least one point, {name} is {count}; give 1 or more")
    if count > MOST_POINTS:
        raise GridError(f"{name} is {count}; at most 2^63 - 1 points can be numbered, give fewer")


def resolve_seed(space: Space, seed: int | None) -> int:
    """Take the seed of the grid, or that of the run.

    Returns:
        The seed.

    Raises:
        GridError: The seed is negative or does not fit into 63 bits.
    """
    name, value = ("seed", space.seed) if seed is None else ("grid.seed", seed)
    if not 0 <= value <= MOST_POINTS:
        raise GridError(f"{name} is {value}; expected 0 … 2^63 - 1")
    return value


@dataclass(frozen=True)
class Box:
    """The box that a grid fills.

    Attributes:
        lower: Lower end per input, n floats.
        upper: Upper end per input, n floats, none below `lower`.

    Raises:
        GridError: A bound is not finite, or the lower one is above the upper one.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        for axis, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not (math.isfinite(low) and math.isfinite(high)):
                raise GridError(
                    f"input {axis}: the bounds {low} … {high} are not finite; "
                    "give finite grid.lower and grid.upper"
                )
            if low > high:
                raise GridError(
                    f"input {axis}: the lower end {low} is above the upper end {high}; "
                    "give grid.lower and grid.upper with lower <= upper"
                )

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.lower)

    @property
    def spec(self) -> dict[str, list[float]]:
        """The bounds as JSON values."""
        return {"lower": list(self.lower), "upper": list(self.upper)}

    def scale(self, unit: NDArray[np.float64]) -> Tensor:
        """Map points of the unit cube into the box.

        Convex combination, since ``upper - lower`` may overflow; the clip keeps rounding from
        leaving the box.

        Args:
            unit: (B, n), each entry in 0 … 1.

        Returns:
            (B, n) float64, ``lower <= x <= upper``.
        """
        low, high = np.array(self.lower), np.array(self.upper)
        return torch.from_numpy(np.clip(low * (1.0 - unit) + high * unit, low, high))


def resolve_box(space: Space, lower: Bound | None, upper: Bound | None, n: int) -> Box:
    """Take the bounds of the grid, or the function's domain where the user gives none.

    Args:
        space: Domain of the function.
        lower: The option ``grid.lower``.
        upper: The option ``grid.upper``.
        n: Number of inputs; lists among the options have n entries.

    Returns:
        The box.
    """
    low = _domain("lower", space.lower, n) if lower is None else lower
    high = _domain("upper", space.upper, n) if upper is None else upper
    ends = ([float(end) for end in per_input(bound, n)] for bound in (low, high))
    return Box(*map(tuple, ends))


def _domain(name: str, bound: Bound, n: int) -> Bound:
    if isinstance(bound, Sequence) and len(bound) != n:
        raise GridError(
            f"the {name} end of the function's domain has {len(bound)} entries but the grid has "
            f"n = {n} inputs; give grid.{name}"
        )
    return bound
