"""Derivatives of functions of one variable at 0: difference quotients, extrapolated, and their noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 6  # steps that are taken at least
AT_REST = 1e-3  # relative error of a quotient that says something
NOISE_STEP = 2.0**-20  # so small that what is smooth is a polynomial, and larger than any quantum
NOISE_VALUES = 8  # that tell noise, on either side
NOISE_STEPS = [
    sign * NOISE_STEP * i for sign in (1, -1) for i in range(1, NOISE_VALUES + 1)
]  # where they are


@dataclass(frozen=True)
class Estimate:
    """A derivative with its own error estimate; both infinite where it cannot be had."""

    value: float
    error: float


def extrapolate(
    quotient: Callable[[float], Tensor],
    step: float,
    noise: Callable[[float], float | Tensor] = lambda h: 0.0,
    least: int = LEVELS,
    most: int = 18,
    power: int = 2,
) -> tuple[Tensor, Tensor]:
    """Extrapolate difference quotients to step 0, each entry with its own error estimate.

    The steps shrink by 2, Neville's scheme removes the powers of the step one by one; of the
    tableau the entry that differs least from its neighbours is taken, unless smaller steps agree
    on another one: large ones may be multiples of a period.

    Source: C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in
    Engineering Software 4 (1982) 75-76.

    Args:
        quotient: Step -> quotients, of any shape, float64; where one is not finite, it is left out.
        step: First, largest step.
        noise: Step -> least error of a quotient, from the rounding of the values that it is made of.
        least: Number of steps that are taken in any case.
        most: Number of steps after which it ends, where it has not come to rest before.
        power: 2 where the error is a series in the square of the step, else 1.

    Returns:
        The values, and their errors; infinite where nothing could be had.
    """
    above: list[Tensor] = []
    for level in range(most):
        h = step / 2**level
        row, better = [quotient(h)], False
        if level == 0:
            best, error = torch.full_like(row[0], math.inf), torch.full_like(row[0], math.inf)
        for column, older in enumerate(above, 1):
            factor = 2.0 ** (power * column)
            row.append((factor * row[-1] - older) / (factor - 1))
            gap = torch.maximum((row[-1] - row[-2]).abs(), (row[-1] - older).abs())
            gap = gap.clamp_min(noise(h))
            settled = (gap < AT_REST * row[-1].abs()) & (
                (row[-1] - best).abs() > 10 * (gap + error)
            )
            closer = (gap < error) | settled  # never where something is not finite
            best, error = torch.where(closer, row[-1], best), torch.where(closer, gap, error)
            better = better or bool(closer.any())
        above = row
        rough = (error > AT_REST * best.nan_to_num(0, 0, 0).abs().max()).any()
        if level + 1 >= least and not better and not rough:
            break
    return best, error


def ridders(
    phi: Callable[[float], float], step: float, levels: int = LEVELS, noise: float = 0.0
) -> Estimate:
    """Derivative of a function of one variable at 0, by extrapolated central differences.

    Args:
        phi: The function.
        step: First, largest step.
        levels: Number of steps.
        noise: Standard deviation of the values of the function, where it is known.

    Returns:
        The estimate with the smallest error.
    """

    def quotient(h: float) -> Tensor:
        return torch.tensor((phi(h) - phi(-h)) / (2 * h), dtype=torch.float64)

    value, error = extrapolate(quotient, step, lambda h: 2 * noise / h, levels, levels)
    return Estimate(float(value), float(error))


def noise_of(phi: Callable[[float], float]) -> float:
    """Noise in the values of a function of one variable beside 0: rounding, of whatever precision.

    Source: J. J. Moré & S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33
    (2011) 1292-1314: differences of order k of smooth functions vanish, those of noise do not. Nor do
    those across a kink or a jump, which are often at 0 itself: so there is noise on both sides of it.

    Args:
        phi: The function.

    Returns:
        The standard deviation of its values; 0 where their differences are not those of noise.
    """
    above = _noise_beside(phi, NOISE_STEP)
    return min(above, _noise_beside(phi, -NOISE_STEP)) if above else 0.0


def _noise_beside(phi: Callable[[float], float], step: float) -> float:
    values = torch.tensor([phi(step * i) for i in range(1, NOISE_VALUES + 1)], dtype=torch.float64)
    sizes = []
    for k in (3, 4, 5):
        gamma = math.factorial(k) ** 2 / math.factorial(2 * k)
        sizes.append(float((gamma * values.diff(n=k).square().mean()).sqrt()))
    return sizes[1] if max(sizes) <= 4 * min(sizes) else 0.0
