"""Numbers at many places in one call: quick where a function is many small operations.

What comes out is never believed against what a function says at one place after the other: those
who ask compare, and ask again one by one where something is amiss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from pipeline.autograd.definitions.differentiation import Levels
from pipeline.autograd.definitions.passes import push, reverse
from pipeline.autograd.request import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where a function is evaluated.

    Attributes:
        points: (R, d).
        z: (R, n), in the place of the variables of each point.
    """

    points: Tensor
    z: Tensor

    def split(self, width: int) -> list[Places]:
        """Blocks of so many rows."""
        pairs = zip(torch.split(self.points, width), torch.split(self.z, width), strict=True)
        return [Places(*pair) for pair in pairs]


@dataclass(frozen=True)
class Views:
    """What takes the place of a whole derivative at each place, as in `directional`.

    Attributes:
        weights: (R, *output_shape).
        vectors: v_1 … v_j, each (R, n).
    """

    weights: Tensor
    vectors: tuple[Tensor, ...] = ()


def directional_values(
    request: Request, places: Places, views: Views, width: int
) -> list[float] | None:
    """Evaluate ``w · D^j f(z)[v_1, …, v_j]`` at many places.

    Args:
        request: What is differentiated.
        places: R places.
        views: w and v at each.
        width: Rows that are evaluated together.

    Returns:
        R numbers; None where the function cannot be evaluated at several places at once.
    """

    def evaluate(start: int, block: Places) -> Tensor:
        rows = slice(start, start + len(block.z))
        z, y = _outputs(request, block)
        value = (views.weights[rows] * y).reshape(len(z), -1).sum(1)
        for vector in views.vectors:
            value = push(value, z, vector[rows], create_graph=True)
        return value.detach()

    blocks = _tried(evaluate, places, width)
    return None if blocks is None else torch.cat(blocks).tolist()


def whole_levels(request: Request, places: Places, width: int) -> Levels | None:
    """Evaluate whole derivatives of all orders asked for at many places, by plain backward passes.

    Args:
        request: What is differentiated.
        places: R places.
        width: Rows that are evaluated together.

    Returns:
        Per order (R, …); None where the function cannot be evaluated at several places at once.
    """

    def evaluate(start: int, block: Places) -> Levels:
        z, y = _outputs(request, block)
        levels = [y]
        for level in range(1, request.whole_order + 1):
            levels.append(reverse(levels[-1], z, 1, create_graph=level < request.whole_order))
        return tuple(levels[order].detach() for order in request.orders)

    blocks = _tried(evaluate, places, width)
    if blocks is None:
        return None
    return tuple(torch.cat(level) for level in zip(*blocks, strict=True))


def _outputs(request: Request, places: Places) -> tuple[Tensor, Tensor]:
    z = places.z.detach().clone().requires_grad_()
    return z, torch.func.vmap(lambda z, point: request.at(point)[0](z))(z, places.points)


def _tried(evaluate: Callable[[int, Places], T], places: Places, width: int) -> list[T] | None:
    if width <= 1:
        return None
    blocks = places.split(width)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # torch's remarks on speed
        try:
            return [evaluate(i * width, block) for i, block in enumerate(blocks)]
        except Exception:  # torch refuses by any kind of error, and the function may raise itself
            return None
