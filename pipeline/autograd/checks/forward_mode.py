"""Forward against reverse mode: they share no backward formula."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.autograd.methods.nearby import beside, random_signs
from pipeline.autograd.reference import directional
from pipeline.autograd.request import Request
from pipeline.errors import told

TOLERANCE = 1e-6
NEAR = 2.0**-46  # relative step, of some units of rounding


@dataclass(frozen=True)
class ForwardMode:
    """Outcome of the comparison of forward with reverse mode."""

    residual: float | None
    unchecked: tuple[str, ...]
    disagreements: tuple[str, ...]
    places: tuple[int, ...] = ()  # the points of the disagreements


def compare_forward_with_reverse(
    request: Request, points: Tensor, confirmed: Set[int] = frozenset()
) -> ForwardMode:
    """Compare directional derivatives of the highest order by pure forward and pure reverse mode.

    ``w · D^k f(x)[v_1, …, v_k]`` along random directions, at places close to the points.

    Args:
        request: What is evaluated.
        points: (P, n), float64.
        confirmed: Points at which finite differences confirm reverse mode. Once forward mode has been
            found wrong, these are left out: they need no other witness.

    Returns:
        The worst difference, relative to the sum of the sizes of its terms.
    """
    residuals: list[float] = []
    disagreements: list[str] = []
    places: list[int] = []
    for index, point in enumerate(points if request.order else ()):
        if disagreements and index in confirmed:
            continue
        generator = torch.Generator().manual_seed(index)
        g, z = request.at(point)
        here = beside(z, request.variables(points), generator)
        draw = [random_signs(shape, generator) for shape in _shapes(request)]
        weights, *vectors = (sign.to(point.device) for sign in draw)
        both = partial(_both, g, weights, vectors)
        try:
            forward, reverse, size = both(here)
        except (
            Exception
        ) as error:  # torch has no forward mode for some functions, by any kind of error
            return ForwardMode(None, (f"no forward mode: {told(error)}"[:200],), ())
        difference = abs(forward - reverse)
        if not size < float("inf") or (
            not difference <= TOLERANCE * size and difference <= 8 * _wobble(both, here)
        ):
            continue
        residuals.append(difference / max(size, 1e-300))
        if not difference <= TOLERANCE * size:
            places.append(index)
            disagreements.append(
                f"derivative of order {request.order} near probe point {index}: forward and reverse "
                f"mode differ by {residuals[-1]:.1e} relative"
            )
    worst = max(residuals, default=None)
    unchecked = (
        () if residuals or not request.order else ("forward mode: no probe point is finite",)
    )
    return ForwardMode(worst, unchecked, tuple(disagreements), tuple(places))


def _both(
    g: Callable[[Tensor], Tensor], weights: Tensor, vectors: list[Tensor], here: Tensor
) -> tuple[float, float, float]:
    """Forward mode, reverse mode, and the sum of the sizes of the terms of the latter."""
    _, gradient = directional(g, here, weights, vectors[:-1])
    forward = _nested(_weighted(g, weights), vectors)(here)
    terms = gradient * vectors[-1]
    return float(forward), float(terms.sum()), float(terms.abs().sum())


def _wobble(both: Callable[[Tensor], tuple[float, float, float]], here: Tensor) -> float:
    """How much both change over a few units of rounding: what cancels is no better known than that."""
    seen = [both(here * (1 + NEAR * step)) for step in range(5)]
    forward, reverse = [each[0] for each in seen], [each[1] for each in seen]
    return max(forward) - min(forward) + max(reverse) - min(reverse)


def _shapes(request: Request) -> list[tuple[int, ...]]:
    return [request.output_shape, *[(request.n,)] * request.order]


def _weighted(f: Callable[[Tensor], Tensor], weights: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: (weights * f(x)).sum()


def _nested(f: Callable[[Tensor], Tensor], vectors: list[Tensor]) -> Callable[[Tensor], Tensor]:
    for vector in vectors:
        f = _along(f, vector)
    return f


def _along(f: Callable[[Tensor], Tensor], vector: Tensor) -> Callable[[Tensor], Tensor]:
    def derivative(x: Tensor) -> Tensor:
        result: Tensor = torch.func.jvp(f, (x,), (vector,))[1]
        return result

    return derivative
