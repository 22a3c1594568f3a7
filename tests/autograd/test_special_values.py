"""Huge, tiny and signed-zero inputs: right, or flagged as not finite; the routes say the same."""

import math

import pytest
import torch

import pipeline
from pipeline.autograd.evaluated import NONFINITE, OK

SIZES = [0.0, -0.0, 1.0, 5e-324, -1e-310, 1e-200, 1e200, -1.7e308, 0.5]
POINTS = torch.tensor([[a, b] for a in SIZES for b in (1.0, -0.0)], dtype=torch.float64)


@pytest.mark.parametrize("route", ["loop", "vmap"])
def test_a_square_of_anything(route):
    found = pipeline.evaluate(lambda x: (x * x).sum(), POINTS, ["gradient", "hessian"], route=route)
    torch.testing.assert_close(found.gradient, 2 * POINTS, rtol=0, atol=0)
    torch.testing.assert_close(found.hessian, 2 * torch.eye(2).double().expand(18, 2, 2))
    overflows = (POINTS.square().sum(1).isinf()).tolist()  # the value is what says so
    assert found.status.tolist() == [NONFINITE if each else OK for each in overflows]
    assert [overflows[index] for index in (12, 14, 16)] == [True, True, False]


@pytest.mark.parametrize("route", ["loop", "vmap"])
def test_what_saturates(route):
    found = pipeline.evaluate(lambda x: x.tanh().sum(), POINTS, "hessian", route=route)
    assert set(found.status.tolist()) == {OK}
    for x, hessian in zip(POINTS.tolist(), found.hessian, strict=True):
        slopes = [-2 * math.tanh(each) * (1 - math.tanh(each) ** 2) for each in x]
        assert hessian.diagonal().tolist() == pytest.approx(slopes, rel=1e-12, abs=1e-300)


def test_the_routes_flag_the_same_points():
    def f(x):
        return x[0] ** 3 * x[1].exp() + (x[0] ** 2 + 1).log()

    found = [pipeline.evaluate(f, POINTS, "hessian", route=route) for route in ("loop", "vmap")]
    assert torch.equal(found[0].status, found[1].status)
    torch.testing.assert_close(found[0].hessian, found[1].hessian, equal_nan=True)
    assert set(found[0].status.tolist()) == {OK, NONFINITE}
