"""Every sum of entries through every route, of scalars and vectors, in both precisions."""

import pytest
import torch

import pipeline
from pipeline.autograd.reference import derivatives

GENERATOR = torch.Generator().manual_seed(11)
POINTS = torch.rand(5, 4, generator=GENERATOR, dtype=torch.float64) + 0.3
TANGENTS = torch.randn(5, 4, generator=GENERATOR, dtype=torch.float64)
COTANGENTS = torch.randn(5, 3, generator=GENERATOR, dtype=torch.float64)


def scalar(x):
    return torch.sin(x[0] * x[1]) + torch.exp(-x[2]) * x[3] ** 3 + torch.log(x).sum()


def vector(x):
    return torch.stack([scalar(x), (x**3).sum() * x[0], x[1] / x[2]])


def linear(x):
    return x[:3] * 2 - x[3]


def constant_row(x):
    return torch.stack([x[0] ** 2, x.new_ones(()), x[3] * x[1]])


FUNCTIONS = {f.__name__: f for f in (scalar, vector, linear, constant_row)}


def directions_of(name, common):
    each = COTANGENTS if name == "vjp" else TANGENTS
    return each[0] if common else each


def expected(name, f, points, v):
    """Sums of the entries of the loop reference in float64."""
    rows = []
    for index, point in enumerate(points.double()):
        levels = derivatives(f, point, 2)
        along = v.double() if v.ndim == 1 else v[index].double()
        diagonal = levels[2].diagonal(dim1=-2, dim2=-1)
        rows.append(
            {
                "jvp": lambda J=levels[1], w=along: J @ w,
                "vjp": lambda J=levels[1], w=along: w @ J.reshape(-1, 4),
                "hvp": lambda H=levels[2], w=along: H @ w,
                "hessian_diagonal": lambda d=diagonal: d,
                "laplacian": lambda d=diagonal: d.sum(-1),
            }[name]()
        )
    return torch.stack(rows)


def check(names, function, route, dtype, common, beside=()):
    f, points = FUNCTIONS[function], POINTS.to(dtype)
    v = directions_of(names[0], common)
    v = v.to(dtype)
    found = pipeline.evaluate(f, points, [*names, *beside], route=route, batch=3, directions=v)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for name in names:
        seen, true = found.datasets[name], expected(name, f, points, v)
        assert (found.plan.route, seen.dtype, seen.shape) == (route, dtype, true.shape)
        atol = tolerance * max(1.0, float(true.abs().max()))
        torch.testing.assert_close(seen.double(), true, rtol=0, atol=atol)
        assert found.certificate.rows_error[name] <= tolerance
    assert (found.status == 1).all()


GROUPS = (("jvp", "hvp", "hessian_diagonal", "laplacian"), ("vjp",))
CASES = [
    (names, function, route, dtype, common)
    for names in GROUPS
    for function in FUNCTIONS
    for route in ("vmap", "loop", "scalar", "compiled")
    for dtype in (torch.float64, torch.float32)
    for common in (True, False)
    if not (names == ("vjp",) and function == "scalar")  # which is the gradient, and refused
    and (
        route in ("vmap", "loop")
        or (function, dtype, common)
        in (("vector", torch.float64, False), ("scalar", torch.float32, False))
    )  # the others are compiled, which takes its time
]
FAST = ("vmap", torch.float64, False)
FULL = [pytest.param(*case, marks=() if case[2:] == FAST else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(("names", "function", "route", "dtype", "common"), FULL)
def test_sums_of_entries(names, function, route, dtype, common):
    check(names, function, route, dtype, common)


@pytest.mark.slow
@pytest.mark.parametrize("route", ["scalar", "vmap", "loop"])
@pytest.mark.parametrize("function", ["scalar", "vector"])
def test_beside_whole_derivatives(function, route):
    first = "gradient" if function == "scalar" else "jacobian"
    check(GROUPS[0], function, route, torch.float64, False, beside=("value", first, "hessian"))
