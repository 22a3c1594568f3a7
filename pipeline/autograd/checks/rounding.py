"""How many digits rounding leaves of the reference: every operation is rounded anew, by chance.

What cancels within a function, (1 - cos x) / x² beside 0, has few digits, and all oracles that
calculate in the same precision agree on wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.autograd.checks.conditioning import TINY, natural_sizes
from pipeline.autograd.checks.effort import one_pass
from pipeline.autograd.checks.oracle import Oracle
from pipeline.autograd.checks.view import View, contracted
from pipeline.autograd.functions.zero_tensors import WITH_MEMORY
from pipeline.autograd.request import order_of

SAMPLES = 3
SECONDS = 0.5  # that it may take by count, where one point does not take longer
SLOWER = 10  # times, that a pass takes whose operations are rounded


class _RoundAnew(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Changes the result of every operation by two units of rounding at most, of either sign."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports torch._dynamo, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = WITH_MEMORY.get(func, func)
        result = func(*args, **(kwargs or {}))
        if func.is_view or func._schema.is_mutable:
            return result
        if isinstance(result, tuple):
            return type(result)(map(self._rounded, result)) if type(result) is tuple else result
        return self._rounded(result)

    def _rounded(self, value: Any) -> Any:
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        if not plain or not (value.is_floating_point() or value.is_complex()):
            return value
        unit = 2 * torch.finfo(value.dtype).eps
        factor = torch.empty(value.shape, dtype=value.dtype.to_real())
        return value * factor.uniform_(1 - unit, 1 + unit, generator=self._generator).to(value)


@dataclass(frozen=True)
class Loss:
    """Where rounding leaves the fewest digits.

    Attributes:
        order: Of the derivative.
        point: (d,).
        error: About how far off it is, relative to its largest entry or its natural size.
    """

    order: int
    point: Tensor
    error: float


def worst_loss(oracle: Oracle, usable: Tensor) -> Loss | None:
    """Estimate how far off the reference is by rounding: Monte Carlo arithmetic.

    Source: D. S. Parker, Monte Carlo arithmetic: exploiting randomness in floating-point
    arithmetic, UCLA CSD-970002 (1997).

    Args:
        oracle: The reference at a few points.
        usable: Those of them at which the function is smooth, bool (P,): at a tie any rounding decides.

    Returns:
        The worst over points and derivatives; None where nothing can be said.
    """
    chosen = usable.nonzero().flatten().tolist()
    if not chosen:
        return None
    view, seconds = _affordable(oracle.view, oracle.points)
    chosen = chosen[: max(1, int(SECONDS / max(seconds, 1e-9)))]
    points = [oracle.points[index] for index in chosen]
    if view is oracle.view:
        expected = [oracle.expected[index] for index in chosen]
        floors = [oracle.floors[index] for index in chosen]
    else:
        expected = [view.reference(point) for point in points]
        floors = [natural_sizes(view, point) for point in points]
    pairs = zip(points, expected, strict=True)
    noises = torch.tensor([_noise(view, point, rows) for point, rows in pairs])
    sizes = torch.tensor([[_largest(row) for row in rows] for rows in expected])
    natural = torch.maximum(sizes, torch.tensor(floors)).maximum(sizes.median(dim=0).values)
    errors = (noises / natural.clamp_min(TINY)).nan_to_num(0, 0, 0)
    if errors.numel() == 0 or not float(errors.max()) > 0:
        return None
    index, position = divmod(int(errors.argmax()), errors.shape[1])
    order = order_of(view.request.keys[position])
    return Loss(order, points[index], float(errors.max()))


def _affordable(view: View, points: Tensor) -> tuple[View, float]:
    """What is looked at, and seconds per point: along random directions where all entries take long."""
    request = view.request
    once = SAMPLES * SLOWER * one_pass(request).seconds
    if view.weights is not None and not request.contractions:
        return view, once
    seconds = once * request.m * request.n ** max(request.order - 1, 0)
    if seconds <= SECONDS:
        return view, seconds
    orders = tuple(sorted({*request.orders, request.order}))
    return contracted(replace(request, orders=orders, contractions=()), points, seed=0), once


def _noise(view: View, point: Tensor, rows: Sequence[Tensor]) -> list[float]:
    """Largest change of an entry, per key; 0 where nothing can be said."""
    samples = []
    for seed in range(SAMPLES):
        try:
            with _RoundAnew(seed):
                samples.append(view.reference(point))
        except Exception:  # some functions are not taken apart, by any kind of error
            return [0.0 for _ in rows]
    return [max(_largest(sample[key] - row) for sample in samples) for key, row in enumerate(rows)]


def _largest(row: Tensor) -> float:
    return float(row.abs().nan_to_num(0, 0, 0).max())
