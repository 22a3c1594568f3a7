"""Test functions of optimisation of a fixed number of variables, as weighted sums of squares.

Their gradients and Hessians by hand follow from residuals r, Jacobian J and second derivatives
of the residuals: g = 2 J^T W r and H = 2 J^T W J + 2 sum_i w_i r_i H_i.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline import Function, Scenario, hookimpl

Residuals = tuple[Tensor, Tensor, Tensor, Tensor]
MORE = "J. J. Moré, B. S. Garbow and K. E. Hillstrom, ACM TOMS 7 (1981) 17-41"


def _closed_form(residuals: Callable[[Tensor], Residuals]) -> dict[str, Callable[..., Tensor]]:
    def gradient(x: Tensor) -> Tensor:
        weights, r, J, _ = residuals(x)
        return 2 * J.T @ (weights * r)

    def hessian(x: Tensor) -> Tensor:
        weights, r, J, H = residuals(x)
        return 2 * J.T @ (weights[:, None] * J) + 2 * torch.einsum("i,ijk->jk", weights * r, H)

    return {"gradient": gradient, "hessian": hessian}


def build_beale() -> Callable[[Tensor], Tensor]:
    """Build the sum over k = 1, 2, 3 of (c_k - x (1 - y^k))^2 with c = 1.5, 2.25, 2.625.

    Returns:
        Maps (2,) to ().
    """

    def beale(x: Tensor) -> Tensor:
        a, b = x.unbind()
        return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2

    return beale


def beale_residuals(x: Tensor) -> Residuals:
    """Weights, residuals (3,), Jacobian (3, 2), second derivatives (3, 2, 2)."""
    a, b = x.tolist()
    r = [c - a * (1 - b**k) for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))]
    J = [[b**k - 1, a * k * b ** (k - 1)] for k in (1, 2, 3)]
    H = [
        [[0, k * b ** (k - 1)], [k * b ** (k - 1), a * k * (k - 1) * b ** (k - 2) if k > 1 else 0]]
        for k in (1, 2, 3)
    ]
    return x.new_ones(3), x.new_tensor(r), x.new_tensor(J), x.new_tensor(H)


BEALE = Function(
    name="beale",
    build=build_beale,
    n=2,
    domain=(-4.5, 4.5),
    source="E. M. L. Beale, On an iterative method for finding a local minimum, Princeton 1958; "
    + MORE,
    summary="flat valley with its minimum 0 at (3, 0.5)",
    closed_form=_closed_form(beale_residuals),
    scenarios=[
        Scenario((3.0, 0.5), {"value": 0.0, "gradient": (0.0, 0.0)}),
        Scenario((1.0, 1.0), {"value": 14.203125}, source=MORE + ", problem 5"),
    ],
)


def build_himmelblau() -> Callable[[Tensor], Tensor]:
    """Build (x^2 + y - 11)^2 + (x + y^2 - 7)^2.

    Returns:
        Maps (2,) to ().
    """

    def himmelblau(x: Tensor) -> Tensor:
        a, b = x.unbind()
        return (a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2

    return himmelblau


def himmelblau_residuals(x: Tensor) -> Residuals:
    """Weights, residuals (2,), Jacobian (2, 2), second derivatives (2, 2, 2)."""
    a, b = x.tolist()
    H = [[[2.0, 0], [0, 0]], [[0, 0], [0, 2.0]]]
    return (
        x.new_ones(2),
        x.new_tensor([a * a + b - 11, a + b * b - 7]),
        x.new_tensor([[2 * a, 1], [1, 2 * b]]),
        x.new_tensor(H),
    )


HIMMELBLAU = Function(
    name="himmelblau",
    build=build_himmelblau,
    n=2,
    domain=(-5.0, 5.0),
    source="D. M. Himmelblau, Applied Nonlinear Programming, McGraw-Hill 1972",
    summary="four minima of the same depth 0",
    closed_form=_closed_form(himmelblau_residuals),
    scenarios=[
        Scenario(
            (3.0, 2.0),
            {"value": 0.0, "gradient": (0.0, 0.0), "hessian": ((74.0, 20.0), (20.0, 34.0))},
        ),
        Scenario((-2.805118, 3.131312), {"value": 0.0, "gradient": (0.0, 0.0)}, tolerance=1e-4),
    ],
)


def build_helical_valley() -> Callable[[Tensor], Tensor]:
    """Build 100 ((z - 10 t)^2 + (r - 1)^2) + z^2 with (r, t) the polar coordinates, t in turns.

    t runs from -1/4 to 3/4, as published: the branch cut is the negative second axis.

    Returns:
        Maps (3,) to ().
    """

    def helical_valley(x: Tensor) -> Tensor:
        a, b, c = x.unbind()
        turns = 0.25 - torch.atan2(a, b) / (2 * math.pi)
        radius = (a * a + b * b).sqrt()
        return 100 * ((c - 10 * turns) ** 2 + (radius - 1) ** 2) + c**2

    return helical_valley


def helical_valley_residuals(x: Tensor) -> Residuals:
    """Weights, residuals (3,), Jacobian (3, 3), second derivatives (3, 3, 3)."""
    a, b, c = x.tolist()
    q = a * a + b * b
    r, angle = math.sqrt(q), math.atan(b / a) + (math.pi if a < 0 else 0)
    k = 10 / (2 * math.pi)
    J = [[k * b / q, -k * a / q, 1], [a / r, b / r, 0], [0, 0, 1]]
    s, d = -k * 2 * a * b / q**2, -k * (b * b - a * a) / q**2
    turn = [[s, d, 0], [d, -s, 0], [0, 0, 0]]
    bend = [[b * b / r**3, -a * b / r**3, 0], [-a * b / r**3, a * a / r**3, 0], [0, 0, 0]]
    flat = [[0.0] * 3] * 3
    residuals = x.new_tensor([c - k * angle, r - 1, c])
    return x.new_tensor([100, 100, 1]), residuals, x.new_tensor(J), x.new_tensor([turn, bend, flat])


HELICAL_VALLEY = Function(
    name="helical_valley",
    build=build_helical_valley,
    n=3,
    domain=(-2.0, 2.0),
    source="R. Fletcher and M. J. D. Powell, The Computer Journal 6 (1963) 163-168",
    summary="helix-shaped valley with its minimum 0 at (1, 0, 0)",
    closed_form=_closed_form(helical_valley_residuals),
    scenarios=[
        Scenario((1.0, 0.0, 0.0), {"value": 0.0, "gradient": (0.0, 0.0, 0.0)}),
        Scenario((-1.0, 0.0, 0.0), {"value": 2500.0}, source=MORE + ", problem 7"),
        Scenario((-0.5, -0.5, 1.0), {"value": 100 * (5.25**2 + (1 - 0.5**0.5) ** 2) + 1}),
    ],
)


def build_wood() -> Callable[[Tensor], Tensor]:
    """Build two coupled Rosenbrock valleys.

    Returns:
        Maps (4,) to ().
    """

    def wood(x: Tensor) -> Tensor:
        a, b, c, d = x.unbind()
        valleys = 100 * (b - a**2) ** 2 + (1 - a) ** 2 + 90 * (d - c**2) ** 2 + (1 - c) ** 2
        return valleys + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2) + 19.8 * (b - 1) * (d - 1)

    return wood


def wood_residuals(x: Tensor) -> Residuals:
    """Weights, residuals (6,), Jacobian (6, 4), second derivatives (6, 4, 4), as by Moré et al."""
    a, b, c, d = x.tolist()
    r = [b - a * a, 1 - a, d - c * c, 1 - c, b + d - 2, b - d]
    J = [
        [-2 * a, 1, 0, 0],
        [-1, 0, 0, 0],
        [0, 0, -2 * c, 1],
        [0, 0, -1, 0],
        [0, 1, 0, 1],
        [0, 1, 0, -1],
    ]
    H = x.new_zeros(6, 4, 4)
    H[0, 0, 0] = H[2, 2, 2] = -2
    return x.new_tensor([100, 1, 90, 1, 10, 0.1]), x.new_tensor(r), x.new_tensor(J), H


WOOD = Function(
    name="wood",
    build=build_wood,
    n=4,
    domain=(-10.0, 10.0),
    source="A. R. Colville, IBM New York Scientific Center Report 320-2949, 1968",
    summary="two coupled valleys with their minimum 0 at (1, 1, 1, 1)",
    closed_form=_closed_form(wood_residuals),
    scenarios=[
        Scenario((1.0, 1.0, 1.0, 1.0), {"value": 0.0, "gradient": (0.0, 0.0, 0.0, 0.0)}),
        Scenario((-3.0, -1.0, -3.0, -1.0), {"value": 19192.0}, source=MORE + ", problem 14"),
    ],
)


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the test functions of fixed n."""
    return [BEALE, HIMMELBLAU, HELICAL_VALLEY, WOOD]
