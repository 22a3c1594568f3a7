"""Discretised equations, networks and objectives whose derivatives are mostly zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline import AnySize, Function, hookimpl


def build_burgers(viscosity: float = 0.01, length: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Build the right-hand side of Burgers' equation u_t = nu u_xx - u u_x, zero at both ends.

    Central differences on n inner points.

    Args:
        viscosity: nu.
        length: Of the interval.

    Returns:
        Maps u, (n,), to u_t, (n,).
    """

    def rate(u: Tensor) -> Tensor:
        h = length / (len(u) + 1)
        whole = pad(u, (1, 1))
        left, right = whole[:-2], whole[2:]
        return viscosity * (right - 2 * u + left) / h**2 - u * (right - left) / (2 * h)

    return rate


def burgers_jacobian(u: Tensor, viscosity: float = 0.01, length: float = 1.0) -> Tensor:
    """Jacobian of `build_burgers` by hand, (n, n)."""
    h = length / (len(u) + 1)
    whole = pad(u, (1, 1))
    middle = -2 * viscosity / h**2 - (whole[2:] - whole[:-2]) / (2 * h)
    upper = viscosity / h**2 - u[:-1] / (2 * h)
    lower = viscosity / h**2 + u[1:] / (2 * h)
    return torch.diag(middle) + torch.diag(upper, 1) + torch.diag(lower, -1)


def build_brusselator(
    a: float = 1.0, b: float = 3.4, diffusion: float = 0.02
) -> Callable[[Tensor], Tensor]:
    """Build the right-hand side of the Brusselator on a periodic square of N x N points.

    u_t = a + u^2 v - (b + 1) u + D Δu, v_t = b u - u^2 v + D Δv, five-point Laplacian on [0, 1]^2.

    Args:
        a: Feed.
        b: Feed.
        diffusion: D.

    Returns:
        Maps u and v, row by row, (2 N^2,), to their time derivatives, (2 N^2,).
    """

    def rate(y: Tensor) -> Tensor:
        size = _side(y)
        u, v = y.reshape(2, size, size)
        reaction = u * u * v
        first = a + reaction - (b + 1) * u + diffusion * size**2 * _laplacian(u)
        second = b * u - reaction + diffusion * size**2 * _laplacian(v)
        return torch.cat([first.reshape(-1), second.reshape(-1)])

    return rate


def _side(y: Tensor) -> int:
    size = math.isqrt(len(y) // 2)
    if 2 * size**2 != len(y):
        raise ValueError(f"expected n = 2 N^2 inputs, such as 800 for N = 20, got {len(y)}")
    return size


def _laplacian(w: Tensor) -> Tensor:
    around = torch.roll(w, 1, 0) + torch.roll(w, -1, 0) + torch.roll(w, 1, 1) + torch.roll(w, -1, 1)
    return around - 4 * w


def brusselator_jacobian(
    y: Tensor, a: float = 1.0, b: float = 3.4, diffusion: float = 0.02
) -> Tensor:
    """Jacobian of `build_brusselator` by hand, (n, n)."""
    size = _side(y)
    u, v = y.reshape(2, -1)
    ring = torch.roll(torch.eye(size), 1, 0) + torch.roll(torch.eye(size), -1, 0)
    one = torch.eye(size)
    flat = torch.kron(ring, one) + torch.kron(one, ring) - 4 * torch.eye(size**2)
    spread = diffusion * size**2 * flat.to(y)
    above = [torch.diag(2 * u * v - (b + 1)) + spread, torch.diag(u * u)]
    below = [torch.diag(b - 2 * u * v), torch.diag(-u * u) + spread]
    return torch.cat([torch.cat(above, 1), torch.cat(below, 1)])


def build_arrow(stiffness: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Build an objective whose Hessian is an arrow: every variable meets the first one alone.

    f(x) = sum_i (x_i^2 + k (x_i - x_1)^4).

    Args:
        stiffness: k.

    Returns:
        Maps (n,) to ().
    """

    def objective(x: Tensor) -> Tensor:
        return (x**2).sum() + stiffness * ((x - x[0]) ** 4).sum()

    return objective


def arrow_hessian(x: Tensor, stiffness: float = 1.0) -> Tensor:
    """Hessian of `build_arrow` by hand, (n, n)."""
    curvature = 12 * stiffness * (x - x[0]) ** 2
    hessian = torch.diag(2 + curvature)
    hessian[0], hessian[:, 0] = -curvature, -curvature
    hessian[0, 0] = 2 + curvature.sum()
    return hessian


def build_reaction_network(rate: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Build the mass-action rates of n species in reversible reactions A_i + A_j <-> A_k.

    There are n reactions, i = r, j = 2 r + 1, k = 7 r + 3 modulo n, forward constants ``rate``
    and backward constants half of it.

    Args:
        rate: Forward rate constant.

    Returns:
        Maps concentrations, (n,), to their time derivatives, (n,).
    """

    def rates(c: Tensor) -> Tensor:
        i, j, k = (each.to(c.device) for each in _reactions(len(c)))
        flow = rate * c[i] * c[j] - 0.5 * rate * c[k]
        change = torch.zeros_like(c).index_add(0, k, flow)
        return change.index_add(0, i, -flow).index_add(0, j, -flow)

    return rates


def _reactions(n: int) -> tuple[Tensor, Tensor, Tensor]:
    r = torch.arange(n)
    return r, (2 * r + 1) % n, (7 * r + 3) % n


def reaction_network_jacobian(c: Tensor, rate: float = 1.0) -> Tensor:
    """Jacobian of `build_reaction_network` reaction by reaction, (n, n)."""
    jacobian = c.new_zeros(len(c), len(c))
    for i, j, k in zip(*(each.tolist() for each in _reactions(len(c))), strict=True):
        for column, slope in ((i, rate * c[j]), (j, rate * c[i]), (k, -0.5 * rate)):
            jacobian[k, column] += slope
            jacobian[i, column] -= slope
            jacobian[j, column] -= slope
    return jacobian


@hookimpl
def pipeline_functions() -> list[Function]:
    """Burgers, Brusselator, arrow, reaction network."""
    return [
        Function(
            "burgers",
            build_burgers,
            n=AnySize(default=32, minimum=2),
            output_shape=lambda n, **parameters: (n,),
            source="J. M. Burgers, Advances in Applied Mechanics 1 (1948) 171-199",
            summary="Burgers' equation in one dimension, right-hand side; tridiagonal Jacobian",
            closed_form={"jacobian": burgers_jacobian},
        ),
        Function(
            "brusselator",
            build_brusselator,
            n=AnySize(default=32, minimum=8, multiple=2),
            output_shape=lambda n, **parameters: (n,),
            domain=(0.5, 3.0),
            source="E. Hairer, S. P. Nørsett, G. Wanner, Solving Ordinary Differential Equations I (1993), II.10",
            summary="Brusselator with diffusion on a periodic square, right-hand side",
            closed_form={"jacobian": brusselator_jacobian},
        ),
        Function(
            "arrow",
            build_arrow,
            n=AnySize(default=8, minimum=2),
            source="T. F. Coleman, J. J. Moré, Mathematical Programming 28 (1984) 243-270: the pattern",
            summary="Objective with an arrow-shaped Hessian",
            closed_form={"hessian": arrow_hessian},
        ),
        Function(
            "reaction_network",
            build_reaction_network,
            n=AnySize(default=20, minimum=3),
            output_shape=lambda n, **parameters: (n,),
            domain=(0.1, 2.0),
            source="mass action: C. M. Guldberg, P. Waage (1864)",
            summary="Mass-action kinetics of n species, right-hand side; sparse Jacobian",
            closed_form={"jacobian": reaction_network_jacobian},
        ),
    ]
