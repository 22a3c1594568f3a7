"""Sums over entries of derivatives: closed forms, laws, every route and mode."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.autograd.definitions.contractions import (
    Across,
    Along,
    Diagonal,
    Direction,
    Divergence,
    alone,
)
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import Request
from pipeline.autograd.routes.base import one_point
from pipeline.errors import ConfigurationError

GENERATOR = torch.Generator().manual_seed(3)
POINTS = torch.rand(13, 4, generator=GENERATOR, dtype=torch.float64) + 0.3
V = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
W = torch.tensor([1.5, -0.5, 1.0], dtype=torch.float64)
MODES = ("fwd_over_rev", "fwd_over_fwd", "rev_over_rev", "rev_over_fwd")
ITEMS = {
    "jvp": Along(1, Direction(V)),
    "hvp": Along(2, Direction(V)),
    "vjp": Across(Direction(W)),
    "hessian_diagonal": Diagonal(summed=False),
    "laplacian": Diagonal(summed=True),
}


def scalar(x):
    return torch.sin(x[0] * x[1]) + torch.exp(-x[2]) * x[3] ** 3 + torch.logsumexp(x, 0)


def vector(x):
    return torch.stack([scalar(x), (x**3).sum() * x[0], x[1] / x[2]])


def field(x):
    return torch.tanh(x.roll(1)) * x**2


def branching(x):
    if x[0] > 0.8:
        return (x**3).sum() * x[0].detach().item() ** 0
    return torch.sin(x).sum() ** 2


@pytest.mark.parametrize("function", [scalar, vector])
@pytest.mark.parametrize("name", [*ITEMS, "constant"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_the_definition(mode, name, function):
    item = ITEMS.get(name, ITEMS["hvp"])
    if name == "vjp" and function is scalar:
        item = Across(Direction(W[:1]))
    f = (lambda x: function(x * 0).detach()) if name == "constant" else function
    point = POINTS[0]
    level = derivatives(f, point, item.order)[item.order]
    expected = item.of(level, point)
    assert expected.shape == item.shape(4, tuple(f(point).shape))
    modes = tuple(reversed(mode.split("_over_")))
    for chunk in (1, 3, 4):
        seen = item.transformed(f, point, point, modes, chunk)
        torch.testing.assert_close(seen, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alone(item, f, point, point), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_every_mode_of_the_divergence(mode):
    point, item = POINTS[0], Divergence()
    expected = derivatives(field, point, 1)[1].trace()
    torch.testing.assert_close(item.transformed(field, point, point, (mode,), 3), expected)
    torch.testing.assert_close(alone(item, field, point, point), expected)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.floats(-2, 2), st.floats(-2, 2))
def test_linear_in_the_direction(seed, a, b):
    u, v = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    point = POINTS[seed]

    def hvp(w):
        return Along(2, Direction(w)).transformed(vector, point, point, ("rev", "fwd"), 4)

    torch.testing.assert_close(hvp(a * u + b * v), a * hvp(u) + b * hvp(v), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("route", ["loop", "vmap", pytest.param("scalar", marks=pytest.mark.slow)])
def test_every_route(route, dtype):
    points = POINTS.to(dtype)
    names = ["value", "gradient", "hessian_diagonal", "laplacian"]
    found = pipeline.evaluate(scalar, points, names, route=route, batch=5)
    wide = POINTS.to(dtype).double()
    hessian = torch.stack([derivatives(scalar, point, 2)[2] for point in wide])
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    tolerance = {"rtol": 0, "atol": float(diagonal.abs().max()) * torch.finfo(dtype).eps * 64}
    assert found.laplacian.dtype == dtype
    torch.testing.assert_close(found.hessian_diagonal.double(), diagonal, **tolerance)
    torch.testing.assert_close(found.laplacian.double(), diagonal.sum(-1), **tolerance)
    assert set(found.certificate.reference_error) == set(names)
    assert set(found.certificate.rows_error) == set(names)
    assert (found.status == 1).all()


@pytest.mark.parametrize("count", [0, 1, 7])
def test_any_number_of_points(count):
    evaluator = pipeline.prepare(vector, POINTS, ["laplacian", "jacobian"], count=9)
    seen = evaluator(POINTS[:count])
    assert seen["laplacian"].shape == (count, 3)
    for row, point in zip(seen["laplacian"], POINTS, strict=False):
        expected = derivatives(vector, point, 2)[2].diagonal(dim1=-2, dim2=-1).sum(-1)
        torch.testing.assert_close(row, expected)


def test_closed_forms():
    found = pipeline.evaluate(lambda x: (x**2).sum(), POINTS, ["laplacian", "hessian_diagonal"])
    assert torch.equal(found.laplacian, torch.full((13,), 8.0, dtype=torch.float64))  # 2n
    assert torch.equal(found.hessian_diagonal, torch.full((13, 4), 2.0, dtype=torch.float64))
    matrix = torch.arange(16.0, dtype=torch.float64).reshape(4, 4)
    linear = pipeline.evaluate(lambda x: matrix @ x, POINTS, "divergence")
    torch.testing.assert_close(linear.divergence, matrix.trace().expand(13))
    packed = pipeline.evaluate(scalar, POINTS, ["laplacian", "hessian"], symmetric="packed")
    torch.testing.assert_close(packed.laplacian, packed.hessian.diagonal(dim1=1, dim2=2).sum(-1))


@pytest.mark.parametrize("route", ["loop", "vmap"])
def test_harmonic_functions_have_no_laplacian(route):
    """The terms cancel; what is left is rounding, and no disagreement."""

    def harmonic(x):
        return torch.exp(x[0]) * torch.cos(x[1]) + x[2] ** 2 - x[3] ** 2

    def newton(x):
        return 1 / torch.sqrt((x[:3] ** 2).sum())

    for f in (harmonic, newton):
        found = pipeline.evaluate(f, POINTS, ["laplacian", "hessian_diagonal"], route=route)
        size = found.hessian_diagonal.abs().sum(1)
        assert (found.laplacian.abs() <= 1e-14 * size).all()


def test_functions_that_branch():
    found = pipeline.evaluate(branching, POINTS, ["laplacian", "value"])
    assert found.plan.route == "loop"
    hessians = [derivatives(branching, point, 2)[2].trace() for point in POINTS]
    torch.testing.assert_close(found.laplacian, torch.stack(hessians))


def test_bad_points_are_flagged():
    points = POINTS.clone()
    points[4, 0], points[8, 1] = -1.0, 0.5

    def rough(x):
        return torch.sqrt(x[0]) + (x[1] - 0.5).abs() + (x**2).sum()

    found = pipeline.evaluate(rough, points, "laplacian")
    assert found.status.tolist() == [2 if row == 4 else 4 if row == 8 else 1 for row in range(13)]


def test_some_columns():
    found = pipeline.evaluate(vector, POINTS, ["laplacian", "hessian"], wrt=[0, 2])
    torch.testing.assert_close(found.laplacian, found.hessian.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_what_cannot_be_asked():
    with pytest.raises(ConfigurationError, match=r"divergence needs as many .* \(4,\), got \(3,\)"):
        pipeline.evaluate(vector, POINTS, "divergence")


@pytest.mark.parametrize("n", [60, 90])
def test_large_n_is_compared_without_the_whole_hessian(n):
    points = torch.rand(3, n, generator=GENERATOR, dtype=torch.float64)
    found = pipeline.evaluate(
        lambda x: torch.stack([(x**3).sum(), x.prod() + (x[1:] * x[:-1] ** 2).sum()]),
        points,
        "laplacian",
    )
    expected = torch.stack([6 * points.sum(1), 2 * points[:, 1:].sum(1)], 1)
    torch.testing.assert_close(found.laplacian, expected)


def test_a_request_gives_what_its_keys_say():
    item = Diagonal(summed=True)
    request = Request(vector, POINTS[0], (3,), (0, 1), contractions=(item,))
    assert request.keys == (0, 1, item)
    value, jacobian, laplacian = one_point(request, ("rev", "fwd"), 4)(POINTS[0])
    assert (value.shape, jacobian.shape, laplacian.shape) == ((3,), (3, 4), (3,))
    assert request.shapes() == ((3,), (3, 4), (3,))
