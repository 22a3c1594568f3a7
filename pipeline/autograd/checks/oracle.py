"""The reference at a few points, and how far a route is from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from pipeline.autograd.checks.conditioning import (
    TINY,
    natural_sizes,
    noises_above,
    power,
    sensitivities,
    size_and_difference,
    wobble,
)
from pipeline.autograd.checks.effort import fits_entry_by_entry, fits_together
from pipeline.autograd.checks.view import View, contracted
from pipeline.autograd.methods.reverse import plain
from pipeline.autograd.packing import symmetry_residual
from pipeline.autograd.precision import runs_in_float64
from pipeline.autograd.request import Key, Request, order_of
from pipeline.errors import FunctionError, one_line

NOISY = 1000  # units of rounding; what sums many terms may have a hundred
MOST = 0.1  # normwise error that no noise excuses
SPARSE_COMPARISON = 64  # the same where zeros are left out: these are seen in a contraction as well
FULL_COMPARISON = 4096  # backward passes per point that a comparison entry by entry may take


@dataclass(frozen=True)
class Deviation:
    """How far a result is from the reference.

    Attributes:
        error: Normwise, infinite where one is finite and the other is not.
        excess: In units of what is allowed: above 1 is a disagreement.
    """

    error: float = 0.0
    excess: float = 0.0

    def worse(self, other: Deviation) -> Deviation:
        """The worse of each."""
        return Deviation(max(self.error, other.error), max(self.excess, other.excess))


@dataclass(frozen=True)
class Oracle:
    """The reference at a few points.

    Attributes:
        view: What is compared.
        reference: What the reference is, in words.
        points: (P, d), as precise as the reference.
        expected: Per point, per key asked for, the reference.
        magnitudes: Per point and key, what rounding is relative to where it is not the reference
            itself: of contractions, whose terms may cancel.
        sensitivity: Per point and key, max|dR| / (|dx| / max|x|): the condition of the derivative.
        floors: Per point and key, the natural size of a derivative, max|f| / max|x|^k: what vanishes
            by cancellation is only known to within the rounding of this.
        noises: Per point, relative noise in the values of a function that computes less precisely
            than its inputs are; 0 for others.
        roundings: Per point and key, error of the reference itself at the job's precision; None where
            that is float64.
    """

    view: View
    reference: str
    points: Tensor
    expected: Sequence[Sequence[Tensor]]
    magnitudes: Sequence[Sequence[float]]
    sensitivity: Sequence[Sequence[float]]
    floors: Sequence[Sequence[float]]
    noises: Sequence[float]
    roundings: Sequence[Sequence[float]] | None

    @property
    def noise(self) -> float:
        """The worst noise of all points."""
        return max(self.noises)

    @property
    def rounding(self) -> float | None:
        """The worst error of the reference at the job's precision; None where that is float64."""
        return None if self.roundings is None else max(map(max, self.roundings))

    def tolerance(self, point: int, position: int) -> float:
        """Largest normwise error that is no disagreement, of a key at a point."""
        rounding = 0.0 if self.roundings is None else self.roundings[point][position]
        least = self.view.request.precision.tolerance
        return max(least, 10 * rounding, min(1000 * self.noises[point], MOST))

    def compare(self, levels: Sequence[Tensor]) -> dict[Key, Deviation]:
        """Compare a batch with the reference.

        Args:
            levels: Per key asked for, (B, …): point b of the batch is point b mod P.

        Returns:
            Key -> worst deviation over the batch.
        """
        worst: dict[Key, Deviation] = dict.fromkeys(self.view.request.keys, Deviation())
        for position, key in enumerate(self.view.request.keys):
            for point in range(min(len(self.expected), len(levels[position]))):
                expected = self.expected[point][position]
                look = torch.func.vmap(partial(self.view.of, key=key, expected=expected))
                rows = levels[position][point :: len(self.expected)].to(torch.float64)
                worst[key] = worst[key].worse(self._deviation(look(rows), point, position))
        return worst

    def asymmetry(self) -> tuple[str, ...]:
        """Say where the reference itself is not symmetric: a custom backward pass can be wrong twice.

        Returns:
            A sentence, or nothing; large results are only seen contracted, and not checked here.
        """
        order = self.view.request.whole_order
        if order < 2 or self.view.weights is not None:
            return ()
        worst = 0.0
        for point, rows in enumerate(self.expected):
            residual = symmetry_residual(rows[self._last][None], order) or 0.0
            if residual > self._most_asymmetry(point):
                worst = max(worst, residual)
        if worst == 0.0:
            return ()
        return (f"the reference of order {order} is not symmetric: residual {worst:.1e}",)

    def allows_asymmetry(self, residual: float) -> bool:
        """Tell whether a symmetry residual can be rounding at one of the points."""
        return any(residual <= self._most_asymmetry(point) for point in range(len(self.expected)))

    def _most_asymmetry(self, point: int) -> float:
        last = self._last
        size = float(self.expected[point][last].nan_to_num(0, 0, 0).abs().max())
        slack = self._unit(point) * self.sensitivity[point][last] + self._conceded(point, last)
        return 10 * self.tolerance(point, last) + slack / max(size, TINY)

    def _unit(self, point: int) -> float:
        """What rounding may amount to, relative to the condition of a derivative."""
        precision = self.view.request.precision
        return precision.roundings * max(precision.epsilon, self.noises[point])

    @property
    def _last(self) -> int:
        """Where the whole derivative of the highest order stands."""
        return max(len(self.view.request.orders) - 1, 0)

    def _deviation(self, seen: Tensor, point: int, position: int) -> Deviation:
        change = self.sensitivity[point][position]
        slack = self._unit(point) * (change + self.floors[point][position])
        size, difference = size_and_difference(seen, self.expected[point][position])
        size = max(size, self.magnitudes[point][position])
        if difference == 0 or (math.isinf(difference) and self._overflows(point, position)):
            return Deviation()
        error = difference / (size if size > 1000 * slack else max(size, change, TINY))
        tolerance = self.tolerance(point, position)
        allowed = tolerance * size + slack + TINY
        if allowed < difference < float("inf"):
            allowed += self._conceded(point, position)
        return Deviation(error, difference / allowed)

    def _overflows(self, point: int, position: int) -> bool:
        """Whether the job's precision is too narrow there: then the point is flagged."""
        request = self.view.request
        if self.points.dtype == request.example.dtype:
            return False
        level = plain(request, self.points[point].to(request.example.dtype))[position]
        return not bool(level.isfinite().all())

    def _conceded(self, point: int, position: int) -> float:
        """Rounding of what cancels within the function, at most what is small in its natural size."""
        _, z = self.view.request.at(self.points[point])
        scale = float(z.abs().max().clamp_min(1e-30))
        order = order_of(self.view.request.keys[position])
        natural = self.floors[point][position] * power(max(1.0, 1 / scale), order)
        tolerance = self.tolerance(point, position)
        return min(8 * self._wobbles[point][position], tolerance * natural)

    @cached_property
    def _wobbles(self) -> list[list[float]]:
        """Per point and key, how much the reference changes over a few units of rounding."""
        return [wobble(self.view, *pair) for pair in zip(self.points, self.expected, strict=True)]


def build_oracle(request: Request, points: Tensor, seed: int | None = None) -> Oracle:
    """Evaluate the reference at a few points.

    Args:
        request: What is evaluated.
        points: (P, n) of the job's dtype and device.
        seed: Of the random directions that results are contracted with, at the cost of a few
            backward passes. None: entry by entry, unless there are too many.

    Returns:
        The oracle, in float64 wherever the function can be evaluated in float64.

    Raises:
        FunctionError: Torch cannot differentiate the function in reverse mode.
    """
    passes = request.m * request.n ** max(request.order - 1, 0)
    most = FULL_COMPARISON if request.pattern is None else SPARSE_COMPARISON
    few = seed is None and passes <= most
    every_entry = few and fits_entry_by_entry(request, points, passes)
    view = View(request, None, ()) if every_entry else contracted(request, points, seed or 0)
    dtype = torch.float64 if runs_in_float64(request, points) else points.dtype
    expected = _differentiate(view, points.to(dtype))
    width = fits_together(request) if seed is None else 1
    sensitivity = sensitivities(view, points.to(dtype), expected, width)
    roundings = None
    if dtype != points.dtype:
        own = _differentiate(view, points)
        roundings = _roundings(own, expected)
        expected = [
            [_as_finite(*pair) for pair in zip(*rows, strict=True)]
            for rows in zip(expected, own, strict=True)
        ]
    words = f"loop over torch.autograd.grad in {str(dtype).removeprefix('torch.')}"
    words += "" if view.weights is None else ", contracted with random directions"
    floors = [natural_sizes(view, point.to(dtype)) for point in points]
    magnitudes = [view.magnitudes(point.to(dtype)) for point in points]
    noises = noises_above(
        NOISY * request.precision.epsilon, view, points.to(dtype), expected, width
    )
    return Oracle(
        view, words, points.to(dtype), expected, magnitudes, sensitivity, floors, noises, roundings
    )


def _differentiate(view: View, points: Tensor) -> list[list[Tensor]]:
    try:
        return [view.reference(point) for point in points]
    except Exception as error:  # torch has no derivative of some operations, by any kind of error
        raise FunctionError(
            f"the function cannot be differentiated {view.request.order} times in reverse mode, which all "
            f"results are checked against: {type(error).__name__}: {one_line(error)}; "
            "finite_differences=true takes differences of its values"
        ) from error


def _roundings(
    own: Sequence[Sequence[Tensor]], expected: Sequence[Sequence[Tensor]]
) -> list[list[float]]:
    return [
        [_relative(*size_and_difference(*pair)) for pair in zip(*rows, strict=True)]
        for rows in zip(own, expected, strict=True)
    ]


def _relative(size: float, gap: float) -> float:
    return gap / size if size > 0 and gap < float("inf") else 0.0


def _as_finite(expected: Tensor, own: Tensor) -> Tensor:
    """The reference, without a number where the job's precision has none: it overflows."""
    return torch.where(own.isfinite(), expected, own)
