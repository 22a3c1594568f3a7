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
AT_REST = 1e-3  # relative error of a quotient that says something
NOISE_STEP = 2.0**-20  # so small that what is smooth is a polynomial, and larger than any quantum


@dataclass(frozen=True)
class Estimate:
    """A derivative with its own error estimate; both infinite where it cannot be had."""

    value: float
    error: float


def extrapolate(
    quotient: Callable[[float], Tensor],
    step: float,
    noise: Callable[[float], float | Tensor] = lambda h: 0.0,
    least: int = 6,
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
    phi: Callable[[float], float], step: float, levels: int = 6, noise: float = 0.0
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
    return point + 1e-3 * scale_of(point, points) * signs


def scale_of(point: Tensor, points: Tensor) -> Tensor:
    """What every input changes by: its size, or how far the points of the grid are apart.

    Args:
        point: (n,).
        points: (P, n).

    Returns:
        (n,), positive.
    """
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
    here, scale = beside(z, zs, generator), scale_of(z, zs)
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
