"""Finite differences: the oracle that does not trust automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pipeline.autograd.methods.extrapolation import LEVELS, Estimate, noise_of, ridders
from pipeline.autograd.methods.nearby import beside, random_signs, scale_of
from pipeline.autograd.methods.together import Places, Views, directional_values
from pipeline.autograd.reference import directional, directional_value
from pipeline.autograd.request import Request

STEP = 2.0**-10  # first step of extrapolation, in units of the directions
NOTHING: Mapping[float, float] = {}
UNEVEN = 1e-3  # of what one input makes of the largest, below which it is looked at for itself
FAINT = 1e-5  # and what it is raised to


@dataclass(frozen=True)
class FiniteDifferences:
    """Outcome of the comparison with finite differences."""

    residual: float | None
    checks: int
    unchecked: tuple[str, ...]
    disagreements: tuple[str, ...]
    confirmed: frozenset[int] = frozenset()  # points at which the highest order agrees


@dataclass(frozen=True)
class Line:
    """A line through a place beside a point, along which a derivative is compared.

    Attributes:
        point: (d,).
        here: The place, (n,).
        weights: w, of `output_shape`.
        vectors: v_1 … v_j, each (n,); the line goes along the last.
    """

    point: Tensor
    here: Tensor
    weights: Tensor
    vectors: tuple[Tensor, ...]

    @classmethod
    def draw(cls, request: Request, point: Tensor, points: Tensor, order: int, seed: int) -> Line:
        """Draw one for derivatives of an order j, at a place close to a point (d,) of the points (P, d)."""
        generator = torch.Generator().manual_seed(seed)
        z, zs = request.at(point)[1], request.variables(points)
        here, scale = beside(z, zs, generator), scale_of(z, zs)
        weights = random_signs(request.output_shape, generator).to(point.device)
        vectors = [
            scale * random_signs((request.n,), generator).to(point.device) for _ in range(order)
        ]
        return cls(point, here, weights, tuple(vectors))

    def at(self, t: float) -> Tensor:
        """A place on it."""
        return self.here + t * self.vectors[-1]


def compare_with_finite_differences(
    request: Request, points: Tensor, width: int = 1
) -> FiniteDifferences:
    """Check the reference itself: automatic against extrapolated central differences.

    At each point, and for each order j up to k, the derivative of
    ``t -> w · D^(j-1) f(x + t v_j)[v_1, …, v_(j-1)]`` along random v is compared at a place close
    to the point (kinks often lie on the points of a grid). What does not converge is not
    checked; a disagreement counts when a second place and direction confirm it.

    Args:
        request: What is evaluated.
        points: (P, n), float64.
        width: Places that may be evaluated in one call. Where what comes out does not agree with
            the reference, they are evaluated one after the other.

    Returns:
        The worst difference and what could not be checked.
    """
    residuals, unchecked, disagreements, confirmed = [], [], [], set()
    request = _evened_outputs(request, points)
    orders = range(1, request.order + 1)
    known = {order: _known(request, points, order, width) for order in orders}
    for index, point in enumerate(points):
        for order in orders:
            outcome = _confirmed(request, point, points, order, index, known[order][index])
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


def _evened_outputs(request: Request, points: Tensor) -> Request:
    """Take every output in units of what it changes by over the points: none hides behind a larger one."""
    if request.m == 1:
        return request
    with torch.no_grad():
        values = torch.stack([request.f(point) for point in points]).nan_to_num(0, 0, 0)
    largest = values.abs().amax(dim=0)
    size = torch.maximum(values.amax(dim=0) - values.amin(dim=0), 1e-6 * largest)
    unit = torch.where(size > 0, size, torch.ones_like(size))
    return replace(request, f=lambda x: request.f(x) / unit)


def _known(request: Request, points: Tensor, order: int, width: int) -> list[dict[float, float]]:
    """Per point, t -> the number on its line, at all steps of the extrapolation; nothing where that fails."""
    steps = [sign * STEP / 2**level for level in range(LEVELS) for sign in (1, -1)]
    lines = [Line.draw(request, point, points, order, i) for i, point in enumerate(points)]
    pairs = [(line, t) for line in lines for t in steps]
    vectors = zip(*(line.vectors[:-1] for line, _ in pairs), strict=True)
    views = Views(
        torch.stack([line.weights for line, _ in pairs]), tuple(map(torch.stack, vectors))
    )
    places = Places(
        torch.stack([line.point for line, _ in pairs]),
        torch.stack([line.at(t) for line, t in pairs]),
    )
    values = directional_values(request, places, views, width)
    if values is None:
        return [{} for _ in points]
    rows = [values[start : start + len(steps)] for start in range(0, len(values), len(steps))]
    return [dict(zip(steps, row, strict=True)) for row in rows]


def _confirmed(
    request: Request,
    point: Tensor,
    points: Tensor,
    order: int,
    seed: int,
    known: Mapping[float, float] = NOTHING,
) -> tuple[float, bool] | None:
    first = _directional_check(request, point, points, order, seed, known)
    if known and (first is None or first[1]):  # what a batch says is not believed alone
        first = _directional_check(request, point, points, order, seed)
    if first is None or not first[1]:
        return first
    second = _directional_check(request, point, points, order, seed + 1000)
    return second if second is None or not second[1] else first


def _directional_check(
    request: Request,
    point: Tensor,
    points: Tensor,
    order: int,
    seed: int,
    known: Mapping[float, float] = NOTHING,
) -> tuple[float, bool] | None:
    line = Line.draw(request, point, points, order, seed)
    g, others = request.at(point)[0], line.vectors[:-1]

    def phi(vector: Tensor, t: float) -> float:
        if vector is line.vectors[-1] and t in known:
            return known[t]
        return float(directional_value(g, line.here + t * vector, line.weights, others))

    try:
        value, gradient = directional(g, line.here, line.weights, others)
        found = [
            _along(partial(phi, vector), float(gradient @ vector), float(value))
            for vector in (line.vectors[-1], *_evened(gradient, line.vectors[-1]))
        ]
    except Exception:  # beside the grid the function may raise: then nothing can be said here
        return None
    outcomes = [outcome for outcome in found if outcome is not None]
    return max(outcomes, key=lambda outcome: (outcome[1], outcome[0])) if found[0] else None


def _evened(gradient: Tensor, vector: Tensor) -> list[Tensor]:
    """A direction along which all inputs matter alike, where they do not: none hides behind another."""
    terms = (gradient * vector).abs()
    largest = terms.max()
    if not terms.min() < UNEVEN * largest < float("inf"):
        return []
    target = terms[terms > 0].min().clamp_min(FAINT * largest)
    # terms of one size and of either sign would cancel to nothing
    uphill = torch.where(gradient * vector < 0, -vector, vector)
    return [uphill * (target / terms).clamp_max(1.0)]


def _along(
    phi: Callable[[float], float], automatic: float, value: float
) -> tuple[float, bool] | None:
    verdict = _verdict(automatic, ridders(phi, STEP, LEVELS), value)
    if verdict is not None and verdict[1]:  # noise can look like convergence
        verdict = _verdict(automatic, ridders(phi, STEP, LEVELS, noise=noise_of(phi)), value)
    return verdict


def _verdict(automatic: float, estimate: Estimate, value: float) -> tuple[float, bool] | None:
    size = max(abs(automatic), abs(estimate.value))
    floor = 1e-10 * abs(value)
    if not size < float("inf") or not estimate.error <= 1e-2 * size + floor:
        return None
    difference = abs(automatic - estimate.value)
    disagrees = difference > 10 * estimate.error + 1e-6 * size + floor
    return (difference / max(size, floor) if difference > 0 else 0.0), disagrees
