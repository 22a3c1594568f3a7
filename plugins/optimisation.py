"""Test functions of optimisation of any number of variables, with gradients and Hessians by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline import AnySize, Function, Scenario, hookimpl

Build = Callable[[Tensor], Tensor]
TANG = -2.903534027771177


def build_rosenbrock(a: float = 1.0, b: float = 100.0) -> Build:
    """Build the sum of b (x_(i+1) - x_i^2)^2 + (a - x_i)^2.

    Args:
        a: Place of the minimum of the second term.
        b: Steepness of the valley.

    Returns:
        Maps (n,) to (), n >= 2.
    """

    def rosenbrock(x: Tensor) -> Tensor:
        return (b * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2).sum()

    return rosenbrock


def rosenbrock_gradient(x: Tensor, a: float = 1.0, b: float = 100.0) -> Tensor:
    """Gradient by hand, (n,)."""
    gap = x[1:] - x[:-1] ** 2
    gradient = torch.zeros_like(x)
    gradient[:-1] = -4 * b * x[:-1] * gap - 2 * (a - x[:-1])
    gradient[1:] += 2 * b * gap
    return gradient


def rosenbrock_hessian(x: Tensor, a: float = 1.0, b: float = 100.0) -> Tensor:
    """Hessian by hand, tridiagonal (n, n)."""
    diagonal = torch.zeros_like(x)
    diagonal[:-1] = 12 * b * x[:-1] ** 2 - 4 * b * x[1:] + 2
    diagonal[1:] += 2 * b
    beside = -4 * b * x[:-1]
    return torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1)


ROSENBROCK = Function(
    name="rosenbrock",
    build=build_rosenbrock,
    n=AnySize(default=2, minimum=2),
    domain=(-2.0, 2.0),
    source="H. H. Rosenbrock, The Computer Journal 3 (1960) 175-184",
    summary="curved valley with its minimum at (a, a^2, …)",
    closed_form={"gradient": rosenbrock_gradient, "hessian": rosenbrock_hessian},
    scenarios=[
        Scenario(
            (1.0, 1.0),
            {
                "value": 0.0,
                "gradient": (0.0, 0.0),
                "hessian": ((802.0, -400.0), (-400.0, 200.0)),
            },
        ),
        Scenario(
            (-1.2, 1.0),
            {"value": 24.2, "gradient": (-215.6, -88.0)},
            source="J. J. Moré, B. S. Garbow and K. E. Hillstrom, ACM TOMS 7 (1981) 17-41, problem 1",
        ),
    ],
)


def build_ackley(a: float = 20.0, b: float = 0.2, c: float = 2 * math.pi) -> Build:
    """Build -a exp(-b r) - exp(mean cos(c x)) + a + e, with r the root mean square of x.

    Args:
        a: Depth of the funnel.
        b: Inverse width of the funnel.
        c: Wave number of the ripples.

    Returns:
        Maps (n,) to (); not differentiable at 0.
    """

    def ackley(x: Tensor) -> Tensor:
        funnel = torch.exp(-b * (x * x).mean().sqrt())
        return -a * funnel - torch.exp(torch.cos(c * x).mean()) + a + math.e

    return ackley


def ackley_gradient(x: Tensor, a: float = 20.0, b: float = 0.2, c: float = 2 * math.pi) -> Tensor:
    """Gradient by hand, (n,)."""
    n, r = len(x), (x * x).mean().sqrt()
    ripple = torch.exp(torch.cos(c * x).mean())
    return a * b * torch.exp(-b * r) * x / (n * r) + ripple * c * torch.sin(c * x) / n


def ackley_hessian(x: Tensor, a: float = 20.0, b: float = 0.2, c: float = 2 * math.pi) -> Tensor:
    """Hessian by hand, (n, n)."""
    n, r = len(x), (x * x).mean().sqrt()
    slope, ripple = a * b * torch.exp(-b * r) / (n * r), torch.exp(torch.cos(c * x).mean())
    one, xx, sine = torch.eye(n).to(x), torch.outer(x, x), torch.sin(c * x)
    funnel = slope * (one - xx * (b / (n * r) + 1 / (n * r**2)))
    waves = torch.diag(torch.cos(c * x)) / n - torch.outer(sine, sine) / n**2
    return funnel + ripple * c**2 * waves


ACKLEY = Function(
    name="ackley",
    build=build_ackley,
    n=AnySize(),
    domain=(-32.768, 32.768),
    source="D. H. Ackley, A Connectionist Machine for Genetic Hillclimbing, Kluwer 1987",
    summary="rippled funnel, not differentiable at its minimum 0",
    closed_form={"gradient": ackley_gradient, "hessian": ackley_hessian},
    scenarios=[Scenario((0.0, 0.0), {"value": 0.0}, tolerance=1e-14)],
)


def build_rastrigin(a: float = 10.0) -> Build:
    """Build a n + the sum of x^2 - a cos(2 pi x).

    Args:
        a: Height of the ripples.

    Returns:
        Maps (n,) to ().
    """

    def rastrigin(x: Tensor) -> Tensor:
        return a * len(x) + (x * x - a * torch.cos(2 * math.pi * x)).sum()

    return rastrigin


def rastrigin_gradient(x: Tensor, a: float = 10.0) -> Tensor:
    """Gradient by hand, (n,)."""
    return 2 * x + 2 * math.pi * a * torch.sin(2 * math.pi * x)


def rastrigin_hessian(x: Tensor, a: float = 10.0) -> Tensor:
    """Hessian by hand, diagonal (n, n)."""
    return torch.diag(2 + 4 * math.pi**2 * a * torch.cos(2 * math.pi * x))


RASTRIGIN = Function(
    name="rastrigin",
    build=build_rastrigin,
    n=AnySize(),
    domain=(-5.12, 5.12),
    source="L. A. Rastrigin, Systems of Extremal Control, Nauka 1974",
    summary="rippled bowl with its minimum at 0",
    closed_form={"gradient": rastrigin_gradient, "hessian": rastrigin_hessian},
    scenarios=[Scenario((0.0, 0.0, 0.0), {"value": 0.0, "gradient": (0.0, 0.0, 0.0)})],
)


def build_styblinski_tang() -> Build:
    """Build half the sum of x^4 - 16 x^2 + 5 x.

    Returns:
        Maps (n,) to ().
    """

    def styblinski_tang(x: Tensor) -> Tensor:
        return 0.5 * (x**4 - 16 * x**2 + 5 * x).sum()

    return styblinski_tang


def styblinski_tang_gradient(x: Tensor) -> Tensor:
    """Gradient by hand, (n,)."""
    return 2 * x**3 - 16 * x + 2.5


def styblinski_tang_hessian(x: Tensor) -> Tensor:
    """Hessian by hand, diagonal (n, n)."""
    return torch.diag(6 * x**2 - 16)


STYBLINSKI_TANG = Function(
    name="styblinski_tang",
    build=build_styblinski_tang,
    n=AnySize(),
    domain=(-5.0, 5.0),
    source="M. Styblinski and T.-S. Tang, Neural Networks 3 (1990) 467-483",
    summary="separable quartic with 2^n minima",
    closed_form={"gradient": styblinski_tang_gradient, "hessian": styblinski_tang_hessian},
    scenarios=[
        Scenario(
            (TANG, TANG),
            {"value": -78.33233140754282, "gradient": (0.0, 0.0)},
            tolerance=1e-11,
        )
    ],
)


def build_griewank() -> Build:
    """Build 1 + the sum of x_i^2 / 4000 - the product of cos(x_i / sqrt(i)).

    Returns:
        Maps (n,) to ().
    """

    def griewank(x: Tensor) -> Tensor:
        return 1 + (x * x).sum() / 4000 - _product(torch.cos(x / _roots(x)))

    return griewank


def _roots(x: Tensor) -> Tensor:
    return torch.arange(1, len(x) + 1, dtype=x.dtype, device=x.device).sqrt()


def _product(factors: Tensor) -> Tensor:
    """Product by halves: the derivatives of torch.prod divide by factors that may be zero."""
    while len(factors) > 1:
        half = len(factors) // 2
        rest = factors[2 * half :]
        factors = torch.cat([factors[:half] * factors[half : 2 * half], rest])
    return factors[0]


def griewank_gradient(x: Tensor) -> Tensor:
    """Gradient by hand, (n,)."""
    roots, one = _roots(x), torch.eye(len(x), dtype=torch.bool, device=x.device)
    others = torch.cos(x / roots).repeat(len(x), 1).masked_fill(one, 1).prod(dim=1)
    return x / 2000 + others * torch.sin(x / roots) / roots


def griewank_hessian(x: Tensor) -> Tensor:
    """Hessian by hand, (n, n)."""
    n, roots, one = len(x), _roots(x), torch.eye(len(x), dtype=torch.bool, device=x.device)
    cosine, slope = torch.cos(x / roots), torch.sin(x / roots) / roots
    left_out = one[:, None, :] | one[None, :, :]
    others = cosine.repeat(n, n, 1).masked_fill(left_out, 1).prod(dim=2)
    diagonal = 1 / 2000 + others.diagonal() * cosine / roots**2
    return torch.where(one, torch.diag(diagonal), -others * torch.outer(slope, slope))


GRIEWANK = Function(
    name="griewank",
    build=build_griewank,
    n=AnySize(),
    domain=(-600.0, 600.0),
    source="A. O. Griewank, J. Optim. Theory Appl. 34 (1981) 11-39",
    summary="bowl with ripples of a product, minimum at 0",
    closed_form={"gradient": griewank_gradient, "hessian": griewank_hessian},
    scenarios=[
        Scenario(
            (0.0, 0.0),
            {
                "value": 0.0,
                "gradient": (0.0, 0.0),
                "hessian": ((1.0005, 0.0), (0.0, 0.5005)),
            },
        )
    ],
)


def build_powell_singular() -> Build:
    """Build the sum over blocks of (p + 10 q)^2 + 5 (r - s)^2 + (q - 2 r)^4 + 10 (p - s)^4.

    Returns:
        Maps (n,) to (), n a multiple of 4.
    """

    def powell_singular(x: Tensor) -> Tensor:
        p, q, r, s = x.reshape(-1, 4).unbind(1)
        return ((p + 10 * q) ** 2 + 5 * (r - s) ** 2 + (q - 2 * r) ** 4 + 10 * (p - s) ** 4).sum()

    return powell_singular


# the four linear forms inside the powers: p + 10 q, r - s, q - 2 r, p - s
FORMS = ((1.0, 10.0, 0.0, 0.0), (0.0, 0.0, 1.0, -1.0), (0.0, 1.0, -2.0, 0.0), (1.0, 0.0, 0.0, -1.0))


def powell_singular_gradient(x: Tensor) -> Tensor:
    """Gradient by hand, (n,)."""
    forms = x.new_tensor(FORMS)
    u = x.reshape(-1, 4) @ forms.T
    slopes = torch.stack([2 * u[:, 0], 10 * u[:, 1], 4 * u[:, 2] ** 3, 40 * u[:, 3] ** 3], dim=1)
    return (slopes @ forms).reshape(-1)


def powell_singular_hessian(x: Tensor) -> Tensor:
    """Hessian by hand, in blocks of four, (n, n)."""
    forms = x.new_tensor(FORMS)
    u = x.reshape(-1, 4) @ forms.T
    two, ten = torch.full_like(u[:, 0], 2), torch.full_like(u[:, 0], 10)
    bends = torch.stack([two, ten, 12 * u[:, 2] ** 2, 120 * u[:, 3] ** 2], dim=1)
    blocks = torch.einsum("bf,fi,fj->bij", bends, forms, forms)
    return torch.einsum("bij,bc->bicj", blocks, torch.eye(len(u)).to(x)).reshape(len(x), len(x))


POWELL_SINGULAR = Function(
    name="powell_singular",
    build=build_powell_singular,
    n=AnySize(default=4, minimum=4, multiple=4),
    domain=(-4.0, 5.0),
    source="M. J. D. Powell, The Computer Journal 5 (1962) 147-151",
    summary="quartic with a singular Hessian at its minimum 0",
    closed_form={"gradient": powell_singular_gradient, "hessian": powell_singular_hessian},
    scenarios=[
        Scenario((0.0, 0.0, 0.0, 0.0), {"value": 0.0, "gradient": (0.0, 0.0, 0.0, 0.0)}),
        Scenario(
            (3.0, -1.0, 0.0, 1.0),
            {"value": 215.0},
            source="J. J. Moré, B. S. Garbow and K. E. Hillstrom, ACM TOMS 7 (1981) 17-41, problem 13",
        ),
    ],
)


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the test functions of any n."""
    return [ROSENBROCK, POWELL_SINGULAR, STYBLINSKI_TANG, ACKLEY, RASTRIGIN, GRIEWANK]
