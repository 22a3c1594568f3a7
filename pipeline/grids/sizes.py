"""How many inputs a grid has, and its bounds: shared by all kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.function import AnySize, Space

Numbers = float | Sequence[float]


def resolve_n(space: Space, n: int | None, listed: Mapping[str, Any]) -> int:
    """Find the number of inputs that the function, the option n and listed options agree on.

    Args:
        space: What the grid has to cover.
        n: The option `n`.
        listed: Options that may be lists with one entry per input.

    Returns:
        n.

    Raises:
        GridError: They do not agree.
    """
    wanted = space.n if isinstance(space.n, int) else None
    for name, length in (("n", n), *((name, _length(value)) for name, value in listed.items())):
        if length is None:
            continue
        if wanted is not None and length != wanted:
            got = f"is {length}" if name == "n" else f"has {length} entries"
            raise GridError(
                f"grid.{name} {got}, but there are n = {wanted} inputs; make it {wanted}"
                + ("" if name == "n" else " entries, or one number for all")
            )
        wanted = length
    if wanted is None:
        assert isinstance(space.n, AnySize)
        wanted = space.n.default
    if isinstance(space.n, AnySize) and not space.n.fits(wanted):
        raise GridError(f"the function needs {space.n}; the grid has n = {wanted}")
    return wanted


def spread(value: Any, n: int) -> list[Any]:
    """One entry per input, from a list or from one number for all."""
    return list(value) if _length(value) is not None else [value] * n


def resolve_bounds(space: Space, n: int, lower: Any, upper: Any) -> tuple[Tensor, Tensor]:
    """Find the bounds of a box: the options, or the domain of the function.

    Args:
        space: What the grid has to cover.
        n: Number of inputs.
        lower: The option `lower`, or None.
        upper: The option `upper`, or None.

    Returns:
        Lower and upper ends, float64 (n,).

    Raises:
        GridError: They are not finite, in the wrong order, or not n.
    """
    ends = []
    for name, given, domain in (("lower", lower, space.lower), ("upper", upper, space.upper)):
        values = spread(domain if given is None else given, n)
        if len(values) != n:
            raise GridError(
                f"the function's domain has {len(values)} entries for n = {n} inputs; give grid.{name}"
            )
        if not all(math.isfinite(value) for value in values):
            raise GridError(f"grid.{name}: expected finite numbers, got {values}")
        ends.append(torch.tensor(values, dtype=torch.float64))
    low, high = ends
    if bool((low > high).any()):
        raise GridError(
            f"grid.lower has to be at most grid.upper, got {low.tolist()} and {high.tolist()}"
        )
    return low, high


def require_count(count: int) -> int:
    """Refuse an empty grid.

    Args:
        count: The option `count`.

    Returns:
        The same.

    Raises:
        GridError: It is less than 1.
    """
    if count < 1:
        raise GridError(f"a grid needs at least one point; grid.count is {count}")
    return count


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list | tuple) else None
