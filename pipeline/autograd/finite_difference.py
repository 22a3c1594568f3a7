"""Finite differences: the oracle that does not trust automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Estimate:
    """A derivative with its own error estimate; both infinite where it cannot be had."""

    value: float
    error: float


def ridders(phi: Callable[[float], float], step: float, levels: int = 6) -> Estimate:
    """Derivative of a function of one variable at 0, by extrapolated central differences.

    Central differences with steps shrinking by 2, extrapolated to step 0 by Neville's scheme;
    the entry of the tableau that differs least from its neighbours is taken.

    Source: C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in
    Engineering Software 4 (1982) 75-76.

    Args:
        phi: The function.
        step: First, largest step.
        levels: Number of steps.

    Returns:
        The estimate with the smallest error.
    """
    tableau: list[list[float]] = []
    best = Estimate(float("inf"), float("inf"))
    for level in range(levels):
        h = step / 2**level
        row = [(phi(h) - phi(-h)) / (2 * h)]
        for column in range(1, level + 1):
            above = tableau[-1][column - 1]
            factor = 4.0**column
            row.append((factor * row[-1] - above) / (factor - 1))
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - above))
            if error < best.error:
                best = Estimate(row[-1], error)
        tableau.append(row)
    return best


def random_signs(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Random directions whose entries all matter: of size 0.5 to 1, of either sign.

    Args:
        shape: Any shape.
        generator: Source of randomness, on the CPU.

    Returns:
        float64 of that shape.
    """
    size = 0.5 + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    sign = torch.randint(0, 2, shape, generator=generator, dtype=torch.float64) * 2 - 1
    return size * sign
