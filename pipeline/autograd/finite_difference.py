"""Finite differences: the oracle that does not trust automatic differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.reference import directional, directional_value
from pipeline.autograd.request import Request

STEP = 2.0**-10  # first step of extrapolation, in units of the directions
NOISE_STEP = 2.0**-20  # so small that what is smooth is a polynomial, and larger than any quantum


@dataclass(frozen=True)
class Estimate:
    """A derivative with its own error estimate; both infinite where it cannot be had."""

    value: float
    error: float


def ridders(
    phi: Callable[[float], float], step: float, levels: int = 6, noise: float = 0.0
) -> Estimate:
    """Derivative of a function of one variable at 0, by extrapolated central differences.

    Central differences with steps shrinking by 2, extrapolated to step 0 by Neville's scheme;
    the entry of the tableau that differs least from its neighbours is taken.

    Source: C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in
    Engineering Software 4 (1982) 75-76.

    Args:
        phi: The function.
        step: First, largest step.
        levels: Number of steps.
        noise: Standard deviation of the values of the function, where it is known.

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
            error = max(abs(row[-1] - row[-2]), abs(row[-1] - above), 2 * noise / h)
            if error < best.error:
                best = Estimate(row[-1], error)
        tableau.append(row)
    return best


def noise_of(phi: Callable[[float], float]) -> float:
    """Noise in the values of a function of one variable at 0: rounding, of whatever precision.

    Source: J. J. Moré & S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33
    (2011) 1292-1314: differences of order k of smooth functions vanish, those of noise do not.

    Args:
        phi: The function.

    Returns:
        The standard deviation of its values; 0 where their differences are not those of noise.
    """
    values = torch.tensor([phi(NOISE_STEP * i) for i in range(8)], dtype=torch.float64)
    sizes = []
    for k in (3, 4, 5):
        gamma = math.factorial(k) ** 2 / math.factorial(2 * k)
        sizes.append(float((gamma * values.diff(n=k).square().mean()).sqrt()))
    return sizes[1] if max(sizes) <= 4 * min(sizes) else 0.0


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


@dataclass(frozen=True)
class FiniteDifferences:
    """Outcome of the comparison with finite differences."""

    residual: float | None
    checks: int
    unchecked: tuple[str, ...]
    disagreements: tuple[str, ...]
    confirmed: frozenset[int] = frozenset()  # points at which the highest order agrees


def compare_with_finite_differences(request: Request, points: Tensor) -> FiniteDifferences:
    """Check the reference itself: automatic against extrapolated central differences.

    At each point, and for each order j up to k, the derivative of
    ``t -> w · D^(j-1) f(x + t v_j)[v_1, …, v_(j-1)]`` along random v is compared at a place close
    to the point (kinks often lie on the points of a grid). What does not converge is not
    checked; a disagreement counts when a second place and direction confirm it.

    Args:
        request: What is evaluated.
        points: (P, n), float64.

    Returns:
        The worst difference and what could not be checked.
    """
    residuals, unchecked, disagreements, confirmed = [], [], [], set()
    for index, point in enumerate(points):
        for order in range(1, request.order + 1):
            outcome = _confirmed(request, point, points, order, seed=index)
            if outcome is None:
                unchecked.append(
                    f"finite differences of order {order} did not converge near probe point {index}"
                )
                continue
            residual, disagrees = outcome
            residuals.append(residual)
            if not disagrees and order == request.order:
                confirmed.add(index)
            if disagrees:
                disagreements.append(
                    f"derivative of order {order} near x = {point[:4].tolist()}{'…' if len(point) > 4 else ''}: "
                    f"automatic and finite differences differ by {residual:.1e} relative"
                )
    worst = max(residuals) if residuals else None
    return FiniteDifferences(
        worst, len(residuals), tuple(unchecked), tuple(disagreements), frozenset(confirmed)
    )


def beside(point: Tensor, points: Tensor, generator: torch.Generator) -> Tensor:
    """A place close to a point: kinks often lie on the points of a grid.

    Args:
        point: (n,).
        points: (P, n): they give the scale of every input.
        generator: Source of randomness, on the CPU.

    Returns:
        (n,).
    """
    signs = random_signs(tuple(point.shape), generator).to(point.device)
    return point + 1e-3 * _scale(point, points) * signs


def _scale(point: Tensor, points: Tensor) -> Tensor:
    scale = torch.maximum(point.abs(), (points.amax(dim=0) - points.amin(dim=0)).abs())
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _confirmed(
    request: Request, point: Tensor, points: Tensor, order: int, seed: int
) -> tuple[float, bool] | None:
    first = _directional_check(request, point, points, order, seed)
    if first is None or not first[1]:
        return first
    second = _directional_check(request, point, points, order, seed + 1000)
    return second if second is None or not second[1] else first


def _directional_check(
    request: Request, point: Tensor, points: Tensor, order: int, seed: int
) -> tuple[float, bool] | None:
    generator = torch.Generator().manual_seed(seed)
    g, z = request.at(point)
    zs = request.variables(points)
    here, scale = beside(z, zs, generator), _scale(z, zs)
    weights = random_signs(request.output_shape, generator).to(point.device)
    vectors = [scale * random_signs((request.n,), generator).to(point.device) for _ in range(order)]

    def phi(t: float) -> float:
        return float(directional_value(g, here + t * vectors[-1], weights, vectors[:-1]))

    try:
        value, gradient = directional(g, here, weights, vectors[:-1])
        automatic, floor = float(gradient @ vectors[-1]), float(value)
        verdict = _verdict(automatic, ridders(phi, step=STEP), floor)
        if verdict is not None and verdict[1]:  # noise can look like convergence
            estimate = ridders(phi, STEP, noise=noise_of(phi))
            verdict = _verdict(automatic, estimate, floor)
    except Exception:  # beside the grid the function may raise: then nothing can be said here
        return None
    return verdict


def _verdict(automatic: float, estimate: Estimate, value: float) -> tuple[float, bool] | None:
    size = max(abs(automatic), abs(estimate.value))
    floor = 1e-10 * abs(value)
    if not size < float("inf") or not estimate.error <= 1e-2 * size + floor:
        return None
    difference = abs(automatic - estimate.value)
    disagrees = difference > 10 * estimate.error + 1e-6 * size + floor
    return (difference / max(size, floor) if difference > 0 else 0.0), disagrees
