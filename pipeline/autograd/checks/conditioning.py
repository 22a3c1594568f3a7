"""How well a derivative can be known at a point: its condition, its natural size, noise and rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.checks.view import View
from pipeline.autograd.methods.extrapolation import NOISE_STEPS, noise_of
from pipeline.autograd.methods.nearby import random_signs
from pipeline.autograd.methods.together import Places, Views, directional_values, whole_levels
from pipeline.autograd.request import order_of

NEAR = 2.0**-46  # relative step, of some units of rounding
SAME = 1e-6  # relative difference of what comes out of a batch and one by one
TINY = 1e-300  # keeps quotients of zeros finite


def power(base: float, order: int) -> float:
    """Infinite where it overflows, which Python's own power raises for."""
    return math.prod([base] * order)


def sensitivities(
    view: View, points: Tensor, expected: Sequence[Sequence[Tensor]], width: int
) -> list[list[float]]:
    """How much the derivatives change when the inputs change relatively: their condition.

    Args:
        view: What is looked at.
        points: (P, d), as precise as the reference.
        expected: Per point, per key, the reference.
        width: Places that may be evaluated in one call.

    Returns:
        Per point, per key; 0 where nothing can be said.
    """
    epsilon = view.request.precision.epsilon
    step = 1e-7 if points.dtype == torch.float64 else max(1e-3, 8 * epsilon)
    moves = [step * _scale(view, point) * _signs(view, point) for point in points]
    pairs = _together(view, points, moves, expected, width)
    if pairs is None:
        pairs = [_beside(view, *each) for each in zip(points, moves, expected, strict=True)]
    return [[_change(a, b) / step for a, b in zip(*pair, strict=True)] for pair in pairs]


def _change(moved: Tensor, here: Tensor) -> float:
    change = float((moved - here).abs().max())
    return change if change < float("inf") else 0.0


def _scale(view: View, point: Tensor) -> Tensor:
    return view.request.at(point)[1].abs().max().clamp_min(1e-30)


def _signs(view: View, point: Tensor) -> Tensor:
    z = view.request.at(point)[1]
    return random_signs(tuple(z.shape), torch.Generator().manual_seed(1)).to(z)


Rows = Sequence[Tensor]


def _beside(view: View, point: Tensor, move: Tensor, rows: Rows) -> tuple[Rows, Rows]:
    try:
        return view.reference(point, move), rows
    except Exception:  # beside the grid the function may raise: then nothing is conceded
        return rows, rows


def _together(
    view: View,
    points: Tensor,
    moves: Sequence[Tensor],
    expected: Sequence[Rows],
    width: int,
) -> list[tuple[Rows, Rows]] | None:
    """The same in one call; None unless it gives the reference at the points themselves."""
    request = view.request
    if view.weights is not None or request.contractions:
        return None
    z = torch.stack([request.at(point)[1] for point in points])
    places = Places(points.repeat(2, 1), torch.cat([z + torch.stack(list(moves)), z]))
    levels = whole_levels(request, places, width)
    if levels is None:
        return None
    rows = [[level[row].to(torch.float64) for level in levels] for row in range(len(places.z))]
    moved, here = rows[: len(points)], rows[len(points) :]
    pairs = zip(here, expected, strict=True)
    if not all(_is_same(*each) for pair in pairs for each in zip(*pair, strict=True)):
        return None
    return list(zip(moved, here, strict=True))


def _is_same(seen: Tensor, expected: Tensor) -> bool:
    size, gap = size_and_difference(seen, expected)
    return gap <= SAME * size


def size_and_difference(seen: Tensor, expected: Tensor) -> tuple[float, float]:
    """How large a reference is, and how far something is from it.

    Args:
        seen: (..., *expected.shape): one row or several, (R, …).
        expected: The reference.

    Returns:
        Its largest finite entry, and the largest difference of any row from it: infinite where other
        entries are finite; zeros where none is.
    """
    finite = expected.isfinite()
    if not bool((seen.isfinite() == finite).all()):
        return 0.0, float("inf")
    if not bool(finite.any()):
        return 0.0, 0.0
    size = float(expected[finite].abs().max())
    return size, float((seen - expected)[..., finite].abs().max())


def wobble(view: View, point: Tensor, rows: Sequence[Tensor]) -> list[float]:
    """How much the reference changes over a few units of rounding.

    Args:
        view: What is looked at.
        point: (d,).
        rows: Per key, the reference there.

    Returns:
        Per key; 0 where nothing can be said.
    """
    z = view.request.at(point)[1]
    try:
        moved = [view.reference(point, NEAR * step * z) for step in range(1, 5)]
    except Exception:  # beside the grid the function may raise: then nothing is conceded
        return [0.0 for _ in rows]
    seen = [torch.stack(each) for each in zip(rows, *moved, strict=True)]
    return [float((each.amax(0) - each.amin(0)).nan_to_num(0, 0, 0).max()) for each in seen]


def natural_sizes(view: View, point: Tensor) -> list[float]:
    """What derivatives would be without cancellation: max|f| / max|x|^k.

    Args:
        view: What is looked at.
        point: (d,).

    Returns:
        Per key.
    """
    g, z = view.request.at(point)
    with torch.no_grad():
        value = g(z).abs().nan_to_num(0, 0, 0).max()
    scale = float(z.abs().max().clamp_min(1.0))
    return [float(value) / power(scale, order_of(key)) for key in view.request.keys]


@dataclass(frozen=True)
class _Ray:
    """Where noise is looked for: along ``z + t * direction`` the value ``w · f``."""

    point: Tensor
    weights: Tensor
    direction: Tensor

    @classmethod
    def of(cls, view: View, point: Tensor) -> _Ray:
        z = view.request.at(point)[1]
        generator = torch.Generator().manual_seed(2)
        weights = random_signs(view.request.output_shape, generator).to(point)
        signs = random_signs(tuple(z.shape), generator).to(z)
        return cls(point, weights, float(_scale(view, point)) * signs)


def noises_above(
    least: float, view: View, points: Tensor, expected: Sequence[Sequence[Tensor]], width: int
) -> list[float]:
    """Find the noise in the values of a function, relative to what the derivatives make of it.

    Args:
        least: Noise that is worth a remark.
        view: What is looked at.
        points: (P, d), as precise as the reference.
        expected: Per point, per key, the reference.
        width: Places that may be evaluated in one call.

    Returns:
        Per point; 0 where it is no more than the least.
    """
    rays = [_Ray.of(view, point) for point in points]
    values = _along(view, rays, width)
    found = [_noise(view, *each, least) for each in zip(rays, expected, values, strict=True)]
    return [noise if noise > least else 0.0 for noise in found]


def _along(view: View, rays: Sequence[_Ray], width: int) -> list[list[float]]:
    """Per ray, the values at all of its steps in one call; nothing where that fails."""
    steps = NOISE_STEPS
    pairs = [(ray, t) for ray in rays for t in steps]
    places = Places(
        torch.stack([ray.point for ray, _ in pairs]),
        torch.stack([view.request.at(ray.point)[1] + t * ray.direction for ray, t in pairs]),
    )
    weights = Views(torch.stack([ray.weights for ray, _ in pairs]))
    values = directional_values(view.request, places, weights, width)
    if values is None:
        return [[] for _ in rays]
    return [values[start : start + len(steps)] for start in range(0, len(values), len(steps))]


def _noise(
    view: View, ray: _Ray, rows: Sequence[Tensor], values: Sequence[float], least: float
) -> float:
    g, z = view.request.at(ray.point)
    scale = float(_scale(view, ray.point))
    known = dict(zip(NOISE_STEPS, values, strict=False))

    def phi(t: float) -> float:
        with torch.no_grad():
            return float((ray.weights * g(z + t * ray.direction)).sum())

    pairs = zip(view.request.keys, rows, strict=True)
    sizes = ((order_of(key), float(row.nan_to_num(0, 0, 0).abs().max())) for key, row in pairs)
    size = max(largest * power(scale, order) for order, largest in sizes)
    if known:
        noise = _relative(known.__getitem__, size)
        if noise <= least:
            return noise
    return _relative(phi, size)  # that of a batch may be the batch's own


def _relative(phi: Callable[[float], float], size: float) -> float:
    """Noise of a function of one variable, relative to a size or, where all vanishes, to its values."""
    values: list[float] = []

    def kept(t: float) -> float:
        values.append(phi(t))
        return values[-1]

    try:
        noise = noise_of(kept)
    except Exception:  # beside the point the function may raise
        return 0.0
    noise /= max(size, *map(abs, values), TINY)
    return noise if noise < float("inf") else 0.0
