"""Evidence: what the numbers were compared with, and how well they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.finite_difference import Estimate, random_signs, ridders
from pipeline.autograd.reference import derivatives, directional
from pipeline.autograd.routes.base import Request

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
FULL_COMPARISON = 4096  # backward passes per point that a comparison entry by entry may take


@dataclass(frozen=True)
class Certificate:
    """The evidence for the numbers of one evaluator.

    Errors are normwise per point, max|A - R| / max|R|, the worst over the points checked.

    Attributes:
        route: Route that was certified.
        mode: Its mode.
        points_checked: Points of the job's own grid that were compared with the reference.
        widths_checked: Batch sizes at which they were compared.
        reference: What the reference is.
        reference_error: Order -> error against the reference.
        rounding_error: Error of the reference itself at the job's precision.
        symmetry_residual: max|H - H^T| / max|H| over pairs of inputs; None below order 2.
        finite_difference_residual: Difference of automatic derivatives and extrapolated central
            differences along random directions near the points; None where none converged.
        finite_difference_checks: How many of these could be made.
        unchecked: What could not be checked, and why.
        disagreements: What was found and let pass by on_disagreement=warn.
    """

    route: str
    mode: str
    points_checked: int
    widths_checked: tuple[int, ...]
    reference: str
    reference_error: Mapping[int, float]
    rounding_error: float | None
    symmetry_residual: float | None
    finite_difference_residual: float | None
    finite_difference_checks: int
    unchecked: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The certificate as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Oracle:
    """The reference at a few points, entry by entry or, for large results, along directions.

    Attributes:
        request: What is evaluated.
        reference: What the reference is, in words.
        expected: Per point, per order asked for, the reference.
        slack: Per point and order, the absolute error that rounding of inputs explains.
        rounding: Error of the reference itself at the job's precision, normwise.
        tolerance: Largest normwise error that is no disagreement.
        weights: w of `output_shape` for comparisons along directions; None entry by entry.
        vectors: v_1 … v_{k-1}, likewise.
    """

    request: Request
    reference: str
    expected: Sequence[Sequence[Tensor]]
    slack: Sequence[Sequence[float]]
    rounding: float | None
    tolerance: float
    weights: Tensor | None = None
    vectors: Sequence[Tensor] = field(default_factory=tuple)

    def errors(self, levels: Sequence[Tensor]) -> dict[int, float]:
        """Compare a batch with the reference.

        Args:
            levels: Per order asked for, (B, …): point b of the batch is point b mod P.

        Returns:
            Order -> worst normwise error, infinite where finite and non-finite entries differ; errors that
            rounding of the inputs explains count as zero beyond it.
        """
        worst = dict.fromkeys(self.request.orders, 0.0)
        for position, order in enumerate(self.request.orders):
            for index, row in enumerate(levels[position]):
                point = index % len(self.expected)
                seen = _view(row.to(torch.float64), order, self.weights, self.vectors)
                error = _normwise(seen, self.expected[point][position], self.slack[point][position])
                worst[order] = max(worst[order], error)
        return worst


def build_oracle(request: Request, points: Tensor) -> Oracle:
    """Evaluate the reference at a few points.

    Args:
        request: What is evaluated.
        points: (P, n) of the job's dtype and device.

    Returns:
        The oracle, in float64 wherever the function can be evaluated in float64.
    """
    weights, vectors = _directions(request, points)
    dtype = torch.float64 if _runs_in_float64(request, points) else points.dtype

    def reference(point: Tensor) -> list[Tensor]:
        return _reference(request, point, weights, vectors)

    expected = [reference(point.to(dtype)) for point in points]
    slack = [
        _slack(reference, point.to(dtype), rows, points.dtype)
        for point, rows in zip(points, expected, strict=True)
    ]
    rounding = None
    if dtype != points.dtype:
        own = [reference(point) for point in points]
        rounding = max(
            _normwise(mine, true, 0.0)
            for rows in zip(own, expected, strict=True)
            for mine, true in zip(*rows, strict=True)
        )
    tolerance = max(TOLERANCE[points.dtype], 10 * rounding if rounding is not None else 0.0)
    words = f"loop over torch.autograd.grad in {str(dtype).removeprefix('torch.')}"
    words += "" if weights is None else ", contracted with random directions"
    return Oracle(request, words, expected, slack, rounding, tolerance, weights, vectors)


def _directions(request: Request, points: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    if request.m * request.n ** max(request.order - 1, 0) <= FULL_COMPARISON:
        return None, ()
    generator = torch.Generator().manual_seed(0)
    weights = random_signs(request.output_shape, generator).to(points.device)
    vectors = [
        random_signs((request.n,), generator).to(points.device) for _ in range(request.order - 1)
    ]
    return weights, tuple(vectors)


def _runs_in_float64(request: Request, points: Tensor) -> bool:
    if points.dtype == torch.float64:
        return True
    try:
        return request.f(points[0].to(torch.float64)).dtype == torch.float64
    except Exception:  # a function with float32 weights refuses float64 in its own way
        return False


def _reference(
    request: Request, point: Tensor, weights: Tensor | None, vectors: Sequence[Tensor]
) -> list[Tensor]:
    if weights is None:
        levels = derivatives(request.f, point, request.order)
        return [levels[order].to(torch.float64) for order in request.orders]
    weights, vectors = weights.to(point.dtype), [vector.to(point.dtype) for vector in vectors]
    views = []
    for order in request.orders:
        value, gradient = directional(request.f, point, weights, vectors[: max(order - 1, 0)])
        views.append((gradient if order else value).to(torch.float64))
    return views


def _view(row: Tensor, order: int, weights: Tensor | None, vectors: Sequence[Tensor]) -> Tensor:
    if weights is None:
        return row
    if weights.ndim:
        row = torch.tensordot(weights, row, dims=1)
    else:
        row = weights * row
    for vector in vectors[: max(order - 1, 0)]:
        row = torch.tensordot(vector, row, dims=1)
    return row


def _slack(
    reference: Callable[[Tensor], list[Tensor]],
    point: Tensor,
    rows: list[Tensor],
    dtype: torch.dtype,
) -> list[float]:
    """Change of the derivatives when the inputs change in their last digits: no disagreement."""
    step = 1e-7 if point.dtype == torch.float64 else 1e-3
    scale = point.abs().max().clamp_min(1e-30)
    signs = random_signs(tuple(point.shape), torch.Generator().manual_seed(1)).to(point)
    moved = reference(point + step * scale * signs)
    epsilon = torch.finfo(dtype).eps
    changes = [float((a - b).abs().max()) for a, b in zip(moved, rows, strict=True)]
    return [64 * epsilon * change / step if change < float("inf") else 0.0 for change in changes]


def _normwise(seen: Tensor, expected: Tensor, slack: float) -> float:
    finite = expected.isfinite()
    if not torch.equal(finite, seen.isfinite()):
        return float("inf")
    if not bool(finite.any()):
        return 0.0
    largest = float(expected[finite].abs().max())
    difference = max(float((seen[finite] - expected[finite]).abs().max()) - slack, 0.0)
    return difference / largest if largest > 0 else (0.0 if difference == 0 else float("inf"))


def symmetry_residual(level: Tensor, order: int) -> float | None:
    """How far the last two indices of an order-k derivative are from symmetric.

    Args:
        level: (B, …, n, n).
        order: k.

    Returns:
        max|H - H^T| / max|H|, the worst over the finite points; None below order 2.
    """
    if order < 2:
        return None
    rows = level.reshape(len(level), -1)
    kept = level[rows.isfinite().all(dim=1)]
    if len(kept) == 0:
        return None
    difference = (kept - kept.transpose(-1, -2)).abs().reshape(len(kept), -1).amax(dim=1)
    size = kept.abs().reshape(len(kept), -1).amax(dim=1)
    return float((difference / size.clamp_min(torch.finfo(level.dtype).tiny)).max())


@dataclass(frozen=True)
class FiniteDifferences:
    """Outcome of the comparison with finite differences."""

    residual: float | None
    checks: int
    unchecked: tuple[str, ...]
    disagreements: tuple[str, ...]


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
    spread = (points.amax(dim=0) - points.amin(dim=0)).abs()
    residuals, unchecked, disagreements = [], [], []
    for index, point in enumerate(points):
        for order in range(1, request.order + 1):
            outcome = _confirmed(request, point, spread, order, seed=index)
            if outcome is None:
                unchecked.append(
                    f"finite differences of order {order} did not converge near probe point {index}"
                )
                continue
            residual, disagrees = outcome
            residuals.append(residual)
            if disagrees:
                disagreements.append(
                    f"derivative of order {order} near x = {point[:4].tolist()}{'…' if len(point) > 4 else ''}: "
                    f"automatic and finite differences differ by {residual:.1e} relative"
                )
    worst = max(residuals) if residuals else None
    return FiniteDifferences(worst, len(residuals), tuple(unchecked), tuple(disagreements))


def _confirmed(
    request: Request, point: Tensor, spread: Tensor, order: int, seed: int
) -> tuple[float, bool] | None:
    first = _directional_check(request, point, spread, order, seed)
    if first is None or not first[1]:
        return first
    second = _directional_check(request, point, spread, order, seed + 1000)
    return second if second is None or not second[1] else first


def _directional_check(
    request: Request, point: Tensor, spread: Tensor, order: int, seed: int
) -> tuple[float, bool] | None:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.maximum(point.abs(), spread)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    here = point + 1e-3 * scale * random_signs(tuple(point.shape), generator).to(point.device)
    weights = random_signs(request.output_shape, generator).to(point.device)
    vectors = [scale * random_signs((request.n,), generator).to(point.device) for _ in range(order)]

    def phi(t: float) -> float:
        value, _ = directional(request.f, here + t * vectors[-1], weights, vectors[:-1])
        return float(value)

    try:
        value, gradient = directional(request.f, here, weights, vectors[:-1])
        estimate = ridders(phi, step=2.0**-10)
    except Exception:  # beside the grid the function may raise: then nothing can be said here
        return None
    return _verdict(float(gradient @ vectors[-1]), estimate, float(value))


def _verdict(automatic: float, estimate: Estimate, value: float) -> tuple[float, bool] | None:
    size = max(abs(automatic), abs(estimate.value))
    floor = 1e-10 * abs(value)
    if not size < float("inf") or not estimate.error <= 1e-2 * size + floor:
        return None
    difference = abs(automatic - estimate.value)
    disagrees = difference > 10 * estimate.error + 1e-4 * size + floor
    return (difference / max(size, floor) if difference > floor else 0.0), disagrees
