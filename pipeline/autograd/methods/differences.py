"""Derivatives from values alone: extrapolated central differences of any order, with their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor

from pipeline.autograd.functions.variable import OnPoint
from pipeline.autograd.methods.extrapolation import extrapolate
from pipeline.autograd.methods.nearby import random_signs
from pipeline.autograd.packing import unpack
from pipeline.autograd.request import Request

FIRST_STEP = 0.11  # in units of what an input changes by; no fraction of a usual period
NATURAL = 1e-4  # size of a derivative that vanishes, relative to how much the function changes
CONVERGED = 1e-3  # relative error up to which differences are taken for a derivative


@dataclass(frozen=True)
class Known:
    """A derivative, and how far off each of its entries may be.

    Attributes:
        value: (*output_shape,) + (n,) * order, float64.
        error: Of the same shape; infinite where nothing converged.
    """

    value: Tensor
    error: Tensor


def difference(g: OnPoint, z: Tensor, scale: Tensor, order: int) -> Known:
    """Derivative of any order of any function of values, by central differences.

    The differences along k inputs are taken one within the other, with the same step, so that their
    error is a series in its square, which is extrapolated to step 0, entry by entry.

    Args:
        g: Maps (n,) to any shape; where it raises beside z, smaller steps are taken.
        z: Where, (n,).
        scale: What each input typically changes by, (n,).
        order: k >= 1.

    Returns:
        g's derivative of order k, the k inputs last.
    """
    offsets, places, signs = _stencil(len(z), order)
    entries = list(combinations_with_replacement(range(len(z)), order))
    widths = scale[torch.tensor(entries)].prod(dim=1).to(torch.float64)
    evaluate, largest = _guarded(g, z), torch.zeros((), dtype=torch.float64, device=z.device)

    def quotient(h: float) -> Tensor:
        nonlocal largest
        steps = h * scale * offsets.to(z)
        values = torch.stack([evaluate(z + step) for step in steps])
        largest = torch.maximum(largest, values.abs().nan_to_num(0, 0, 0).max())
        terms = values[places] * signs.to(z.device).reshape(1, -1, *[1] * (values.ndim - 1))
        return terms.sum(1).movedim(0, -1) / ((2 * h) ** order * widths)

    def noise(h: float) -> Tensor:
        return torch.finfo(z.dtype).eps * largest / (h**order * widths)

    value, error = extrapolate(quotient, FIRST_STEP, noise)
    return Known(unpack(value, order), unpack(error, order))


@lru_cache(maxsize=16)
def _stencil(n: int, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Steps (S, n), and for every distinct entry which of them (E, 2^k) with which signs (2^k,)."""
    rows: dict[tuple[int, ...], int] = {}
    places = []
    for entry in combinations_with_replacement(range(n), order):
        for signs in product((1, -1), repeat=order):
            step = [0] * n
            for sign, index in zip(signs, entry, strict=True):
                step[index] += sign
            places.append(rows.setdefault(tuple(step), len(rows)))
    signs_of = [math.prod(signs) for signs in product((1, -1), repeat=order)]
    steps = torch.tensor(list(rows), dtype=torch.float64)
    return steps, torch.tensor(places).reshape(-1, 2**order), torch.tensor(signs_of)


def _guarded(g: OnPoint, z: Tensor) -> OnPoint:
    """NaN where a function raises beside a point at which it does not."""
    with torch.no_grad():
        shape = g(z.clone()).shape

    def evaluate(place: Tensor) -> Tensor:
        try:
            return g(place).detach().to(torch.float64)
        except Exception:  # the user's function may raise anything where nobody asked for it
            return torch.full(shape, math.nan, dtype=torch.float64, device=z.device)

    return evaluate


@dataclass(frozen=True)
class Along:
    """A number in place of a whole derivative: w · D^j f(z)[v_1, …, v_j].

    Attributes:
        weights: w, of `output_shape`.
        vectors: v_1 … v_k, each (n,), in units of what the inputs change by.
    """

    weights: Tensor
    vectors: tuple[Tensor, ...]

    @classmethod
    def random(cls, request: Request, seed: int) -> Along:
        """Random ones, as many as the highest order takes."""
        generator = torch.Generator().manual_seed(seed)
        device = request.example.device
        weights = random_signs(request.output_shape, generator).to(device)
        count = max(request.order, 1)
        vectors = [random_signs((request.n,), generator).to(device) for _ in range(count)]
        return cls(weights, tuple(vectors))

    def of(self, level: Tensor, scale: Tensor, order: int) -> Tensor:
        """Contract a whole derivative."""
        row, dims = level.to(torch.float64), self.weights.ndim
        row = torch.tensordot(self.weights, row, dims=dims) if dims else self.weights * row
        for vector in self.vectors[:order]:
            row = torch.tensordot(vector * scale, row, dims=1)
        return row

    def contracted(self, known: Known, scale: Tensor, order: int) -> Known:
        """The same of a known derivative, and the largest error that it may have."""
        sizes = Along(self.weights.abs(), tuple(vector.abs() for vector in self.vectors))
        value = self.of(known.value, scale, order)
        return Known(value, sizes.of(known.error, scale.abs(), order))

    def known(self, g: OnPoint, z: Tensor, scale: Tensor, order: int) -> Known:
        """The same number from values along these directions, none of them an axis."""
        vectors = torch.stack([vector * scale for vector in self.vectors[:order]]).to(z)
        weights = self.weights

        def phi(t: Tensor) -> Tensor:
            return (weights * g(z + t @ vectors).to(torch.float64)).sum()

        origin = z.new_zeros(order)
        found = difference(phi, origin, torch.ones_like(origin), order)
        index = tuple(range(order))
        return Known(found.value[index], found.error[index])


def is_smooth(g: OnPoint, z: Tensor, scale: Tensor, along: Along, order: int) -> bool:
    """Tell whether differences along a random direction converge, from both sides to the same.

    Central differences alone do not see a kink at z itself: those of |x| vanish at 0.

    Args:
        g: Maps (n,) to `output_shape`.
        z: Where, (n,).
        scale: What each input typically changes by, (n,).
        along: The direction, and weights of the outputs.
        order: Highest order that has to exist.

    Returns:
        Whether they do.
    """
    zero, line = z[:1] * 0, along.vectors[0] * scale
    at = _guarded(lambda t: (along.weights * g(z + t * line.to(z)).to(torch.float64)).sum(), zero)
    size = 0.0
    for k in range(1, order + 1):
        size, gap, doubt = _sides(at, zero, k, size)
        if doubt > CONVERGED * size or gap > 10 * doubt + CONVERGED * size:
            return False
    return True


def _sides(at: OnPoint, zero: Tensor, order: int, size: float) -> tuple[float, float, float]:
    """A derivative of a function of one variable at 0 from both sides: size, gap and error."""
    weights = [(-1) ** (order - j) * math.comb(order, j) for j in range(order + 1)]
    steps = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * torch.arange(order + 1)
    signs, largest, change = steps[:, 1] ** order, 0.0, 0.0

    def quotients(h: float) -> Tensor:
        nonlocal largest, change
        values = torch.stack([at(zero + step * h) for step in steps.flatten().tolist()])
        largest = max(largest, float(values.abs().nan_to_num(0, 0, 0).max()))
        change = max(change, float((values - values[0]).abs().nan_to_num(0, 0, 0).max()))
        sums = values.reshape(2, -1) @ torch.tensor(weights, dtype=torch.float64).to(values)
        return sums / (signs.to(sums) * h**order)

    def noise(h: float) -> float:
        return 2.0**order * torch.finfo(zero.dtype).eps * largest / h**order

    value, error = extrapolate(quotients, FIRST_STEP, noise, power=1)
    size = max(
        size, float(value.abs().max()), NATURAL * change, 10 * noise(FIRST_STEP / 2) / CONVERGED
    )
    return size, float((value[0] - value[1]).abs()), float(error.sum())
