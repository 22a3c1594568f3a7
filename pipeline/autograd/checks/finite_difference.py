"""Finite differences: the oracle that does not trust automatic differentiation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.methods.extrapolation import Estimate, noise_of, ridders
from pipeline.autograd.methods.nearby import beside, random_signs, scale_of
from pipeline.autograd.reference import directional, directional_value
from pipeline.autograd.request import Request

STEP = 2.0**-10  # first step of extrapolation, in units of the directions


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
