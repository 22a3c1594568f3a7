"""Chains of springs, and the points of a circle: what this package contributes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline import AnySize, Function, Grid, GridKind, Scenario, Space, hookimpl
from pipeline.grids.points import PointsGrid


def build_springs(stiffness: float = 1.0, hardening: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Build the energy of masses on a line, joined by springs, the first one to a wall.

    Args:
        stiffness: Of a spring, for small elongations.
        hardening: Strength of the quartic term.

    Returns:
        Maps displacements (n,) to the energy ().
    """

    def springs(x: Tensor) -> Tensor:
        stretch = torch.cat([x[:1], x[1:] - x[:-1]])
        return 0.5 * stiffness * stretch.square().sum() + 0.25 * hardening * (stretch**4).sum()

    return springs


def gradient(x: Tensor, stiffness: float, hardening: float) -> Tensor:
    """Give the gradient by hand, (n,)."""
    stretch = torch.cat([x[:1], x[1:] - x[:-1]])
    force = stiffness * stretch + hardening * stretch**3
    return force - torch.cat([force[1:], force.new_zeros(1)])


def build_circle(space: Space, /, count: int = 12, radius: float = 1.0) -> Grid:
    """Build points on a circle, for functions of two inputs.

    Args:
        space: Inputs of the function.
        count: Number of points.
        radius: Of the circle.

    Returns:
        The grid.
    """
    angle = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count)
    return PointsGrid(radius * torch.stack([angle.cos(), angle.sin()], dim=1))


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the functions."""
    return [
        Function(
            name="springs",
            build=build_springs,
            n=AnySize(default=3),
            domain=(-1.0, 1.0),
            source="E. Fermi, J. Pasta, S. Ulam & M. Tsingou, Los Alamos report LA-1940 (1955)",
            summary="chain of hardening springs on a wall",
            input_units="m",
            output_units="J",
            closed_form={"gradient": gradient},
            scenarios=[
                Scenario(
                    x=(0.0, 0.0, 0.0),
                    expected={"value": 0.0, "hessian": ((2, -1, 0), (-1, 2, -1), (0, -1, 1))},
                )
            ],
        )
    ]


@hookimpl
def pipeline_grids() -> list[GridKind]:
    """Contribute the kinds of grids: grid=plugin grid.name=circle."""
    return [GridKind("circle", build_circle, "points on a circle")]
