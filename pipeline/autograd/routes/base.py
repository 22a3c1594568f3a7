"""The interface of a route: one way to evaluate operators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.autograd.cost import Cost
from pipeline.autograd.definitions.contractions import Diagonal
from pipeline.autograd.definitions.differentiation import Levels, differentiate
from pipeline.autograd.functions.variable import WHOLE
from pipeline.autograd.request import Evaluate, Request
from pipeline.errors import ConfigurationError

BOTH = "fwd_and_rev"  # mode of a Jacobian: some of it by columns, the rest by rows


class Route(ABC):
    """One way to evaluate operators; each one that can be used lives in its own file.

    Laws:
        - ``prepare(request, mode, chunk, batch)(points)`` with points (B, d), B >= 1, gives for each
          order j in ``request.orders`` a tensor (B, *output_shape, *(n,) * j) of the dtype and
          on the device of the points; where ``request.packed``, it may give a level of order 2 or
          more without its repetitions, if it calculates none of them;
        - it equals the reference (`pipeline.autograd.reference.derivatives`) to rounding,
          whatever B, the chunk and the mode; where it cannot, it raises;
        - the points are not changed.
    """

    name: ClassVar[str]
    widest: ClassVar[int]  # most points that are worth evaluating in one call
    pointwise: ClassVar[bool]  # every point on its own: the batch has no influence on anything
    streams: ClassVar[bool] = False  # holds nothing but points and results, however many
    exact: ClassVar[bool] = True  # to rounding; others are used only where they are asked for
    pads: ClassVar[bool] = False  # every call takes as long as one of a whole batch
    operation_seconds: ClassVar[float] = 0.0  # of preparing one operation of the function

    @abstractmethod
    def modes(self, request: Request) -> tuple[str, ...]:
        """Modes that can be tried, the cheapest by shape first."""

    def takes(self, mode: str, request: Request) -> bool:
        """Tell whether a mode that fits the order can be evaluated by this route: its own, as a rule."""
        return mode in self.modes(request)

    def least_seconds(self, request: Request, mode: str) -> float:
        """Time that preparing takes at least: shorter jobs do not even ask for the cost.

        Args:
            request: What to evaluate.
            mode: One that the route takes.

        Returns:
            Seconds.
        """
        return 0.0

    def rank(self, request: Request, mode: str) -> int:
        """When a mode is considered: only where none of a lower rank agrees.

        Args:
            request: What to evaluate.
            mode: One that the route takes.

        Returns:
            0 for what is considered first.
        """
        return 0

    @abstractmethod
    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count what an evaluation takes.

        Args:
            request: What to evaluate.
            mode: One that fits the order.
            chunk: Directions evaluated together; None takes as many as fit.
            budget: Most bytes that the evaluation of one point may hold.

        Returns:
            The cost.
        """

    @abstractmethod
    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Do all costly work once.

        Args:
            request: What to evaluate.
            mode: One that fits the order, e.g. ``fwd_over_rev``, outermost first; ``none`` at order 0.
            chunk: Directions evaluated together.
            batch: Points that most calls will have; others are evaluated as well.

        Returns:
            The bare evaluation of a batch.
        """


def one_point(
    request: Request, directions: tuple[str, ...], chunk: int
) -> Callable[[Tensor], Levels]:
    """What is asked for at one point, by torch.func.

    Args:
        request: What is evaluated.
        directions: fwd or rev for each level, innermost first.
        chunk: Directions evaluated together at each level.

    Returns:
        A function from a point (d,) to what `Request.keys` says.
    """
    diagonals = [item for item in request.contractions if isinstance(item, Diagonal)]
    if diagonals and directions[:2] == ("fwd", "fwd") and request.whole_order < 2:
        return _forward(request, diagonals, chunk)

    def evaluate(point: Tensor) -> Levels:
        g, z = request.at(point)
        wholes = directions[: request.whole_order]
        levels = differentiate(g, wholes, chunk)(z) if request.orders else ()
        contracted = [
            item.of(levels[item.order], point)
            if request.has_whole(item)
            else item.transformed(g, z, point, directions, chunk)
            for item in request.contractions
        ]
        return (*(levels[order] for order in request.orders), *contracted)

    return evaluate


def _forward(request: Request, diagonals: list[Diagonal], chunk: int) -> Callable[[Tensor], Levels]:
    """Value, first derivative and diagonals in one sweep of Taylor mode; the rest beside it."""
    from pipeline.autograd.methods.taylor import push_forward  # it loads torch.fx

    summed = all(item.summed for item in diagonals)
    example = joined(request)(request.example[None])[0]
    push = push_forward(on_joined(request), example, request.n, summed)

    def evaluate(point: Tensor) -> Levels:
        value, first, second = push(joined(request)(point[None])[0])
        levels = (value, first.movedim(0, -1))
        rows = second if summed else second.movedim(0, -1)
        g, z = request.at(point)
        contracted = [
            item.finish(rows) if isinstance(item, Diagonal) and not summed
            else rows if isinstance(item, Diagonal)
            else item.of(levels[1], point) if item.order == 1
            else item.transformed(g, z, point, ("fwd", "fwd"), chunk)
            for item in request.contractions
        ]  # fmt: skip
        return (*(levels[order] for order in request.orders), *contracted)

    return evaluate


def joined(request: Request) -> Callable[[Tensor], Tensor]:
    """Inputs of the program at points (B, d): z before the point, unless they are the same."""
    if request.variable is WHOLE:
        return lambda points: points
    return lambda points: torch.cat([request.variables(points), points], dim=1)


def on_joined(request: Request) -> Callable[[Tensor], Tensor]:
    """The function of these inputs; it is differentiated with respect to the first n of them."""
    if request.variable is WHOLE:
        return request.f
    n = request.n
    return lambda inputs: request.at(inputs[n:])[0](inputs[:n])


def parse_mode(mode: str, order: int) -> tuple[str, ...]:
    """Split a mode into its directions, innermost first.

    Args:
        mode: E.g. ``fwd_over_rev``; ``none`` at order 0.
        order: Number of directions it must have.

    Returns:
        fwd or rev per level, innermost first.

    Raises:
        ConfigurationError: The mode does not fit the order.
    """
    parts = () if mode == "none" else tuple(reversed(mode.split("_over_")))
    if len(parts) != order or not set(parts) <= {"fwd", "rev"}:
        example = spell_mode(("rev",) + ("fwd",) * (order - 1)) if order else "none"
        raise ConfigurationError(
            [
                f"mode {mode!r} does not fit order {order}: expected {order} of fwd and rev, outermost first, "
                f"such as {example!r}, or auto"
            ]
        )
    return parts


def spell_mode(directions: tuple[str, ...]) -> str:
    """Write directions, innermost first, as a mode.

    Args:
        directions: fwd or rev per level.

    Returns:
        The mode, outermost first.

    Examples:
        >>> spell_mode(("rev", "fwd"))
        'fwd_over_rev'
    """
    return "_over_".join(reversed(directions)) or "none"
