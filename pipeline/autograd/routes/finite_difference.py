"""Route `finite_difference`: differences of values, or of derivatives as far as torch has them; only if asked for.

For functions without a derivative in torch (numpy inside, `.detach()`, no backward). Less accurate
than all others, so that it is taken only where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.autograd.methods.differences import Known, difference
from pipeline.autograd.methods.nearby import scale_of
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import Request, order_of
from pipeline.autograd.routes.pointwise import PointwiseRoute

CENTRAL = "central"


def difference_modes(order: int) -> tuple[str, ...]:
    """Modes of an order, those with the fewest differences first.

    Args:
        order: k.

    Returns:
        Modes, outermost level first.

    Examples:
        >>> difference_modes(2)
        ('central_over_rev', 'central_over_central')
    """
    k = max(order, 1)
    levels = ([CENTRAL] * outer + ["rev"] * (k - outer) for outer in range(1, k + 1))
    return tuple("_over_".join(parts) for parts in levels)


@dataclass(frozen=True, eq=False)
class FiniteDifferenceRoute(PointwiseRoute):
    """Central differences, point by point.

    Attributes:
        points: Points of the job, (P, d): they say how far inputs change that are 0; None for 1.
        precise: Whether to evaluate the function in float64, whatever the dtype of the points.
    """

    name: ClassVar[str] = "finite_difference"
    exact: ClassVar[bool] = False

    points: Tensor | None = None
    precise: bool = False

    def modes(self, request: Request) -> tuple[str, ...]:
        """Differences of the derivative below, then of lower ones, last of values."""
        return difference_modes(request.order)

    def at(self, request: Request, mode: str, point: Tensor) -> tuple[Tensor, ...]:
        """By differences, whose errors are left out.

        Returns:
            What `Request.keys` says.
        """
        known = self.known(request, mode, point)
        sums = (item.of(known[item.order].value, point) for item in request.contractions)
        levels = [*(known[order].value for order in request.orders), *sums]
        return tuple(level.to(point.dtype) for level in levels)

    def place(self, request: Request, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where a point lies.

        Args:
            request: What is evaluated.
            point: (d,).

        Returns:
            The point, as precise as the function takes it; z, (n,); and what each of its entries
            typically changes by, (n,).
        """
        here = point.to(torch.float64) if self.precise else point
        z = request.at(here)[1].detach()
        points = here[None] if self.points is None else self.points.to(here)
        return here, z, scale_of(z, request.variables(points))

    def known(self, request: Request, mode: str, point: Tensor) -> Mapping[int, Known]:
        """Derivatives at one point, with their errors.

        Args:
            request: What is evaluated.
            mode: How many of the levels are differences.
            point: (d,).

        Returns:
            Every order that is asked for, whole or contracted, float64.
        """
        here, z, scale = self.place(request, point)
        depth = mode.count("rev")
        g = request.at(here)[0]
        found = {}
        for order in sorted({order_of(key) for key in request.keys}):
            inner = min(order, depth)

            def base(at: Tensor, inner: int = inner) -> Tensor:
                return derivatives(g, at, inner)[inner] if inner else g(at)

            with torch.no_grad():
                if order == inner:
                    level = base(z).to(torch.float64)
                    found[order] = Known(level, torch.zeros_like(level))
                else:
                    found[order] = _symmetric(
                        difference(base, z, scale, order - inner), order, inner
                    )
        return found


def _symmetric(known: Known, order: int, inner: int) -> Known:
    """Mean over the exchanges of differences and derivatives; what is not symmetric is error."""
    if inner == 0:
        return known
    lead = known.value.ndim - order
    turned = [
        [
            level.permute(*range(lead), *(lead + axis for axis in axes))
            for axes in permutations(range(order))
        ]
        for level in (known.value, known.error)
    ]
    mean = torch.stack(turned[0]).mean(0)
    spread = torch.stack([(each - mean).abs() for each in turned[0]]).amax(0)
    return Known(mean, torch.stack(turned[1]).amax(0) + spread)
