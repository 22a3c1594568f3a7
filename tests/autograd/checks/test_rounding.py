"""Digits that cancel within a function are missed: said at the points that are checked."""

import mpmath
import pytest
import torch

import pipeline
from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.checks.rounding import worst_loss
from pipeline.autograd.request import Request

DOUBLE = torch.float64
WITH_FEW_DIGITS = {
    "one_minus_cos": (lambda x: (1 - x.cos()) / x**2, lambda x: (1 - mpmath.cos(x)) / x**2),
    "sin_by_x": (lambda x: x.sin() / x, lambda x: mpmath.sin(x) / x),
    "exp_minus_one": (lambda x: (x.exp() - 1) / x, lambda x: mpmath.expm1(x) / x),
    "log_of_sigmoid": (lambda x: (1 + x).log() / x, lambda x: mpmath.log1p(x) / x),
}


def estimate(f, points, order):
    request = Request(f, points[0], (), tuple(range(order + 1)))
    oracle = build_oracle(request, points)
    return oracle, worst_loss(oracle, torch.ones(len(points), dtype=torch.bool))


@pytest.mark.parametrize("place", [1e-5, 1e-3])
@pytest.mark.parametrize("name", WITH_FEW_DIGITS)
def test_the_estimate_is_that_of_the_true_error(name, place):
    f, formula = WITH_FEW_DIGITS[name]
    oracle, loss = estimate(lambda x: f(x[0]), torch.tensor([[place]], dtype=DOUBLE), 2)
    seen = [float(row) for row in oracle.expected[0]]
    with mpmath.workdps(60):
        exact = [
            float(mpmath.diff(formula, mpmath.mpf(place), k, h=mpmath.mpf("1e-20")))
            for k in range(3)
        ]
    error = max(abs(a - b) / max(abs(a), exact[0]) for a, b in zip(seen, exact, strict=True))
    assert error > 1e-12, "otherwise there is nothing to estimate"
    assert error / 30 < loss.error < 1000 * error
    assert loss.order == 2


ALL_DIGITS = {
    "polynomial": lambda x: (x**3).sum() + x.prod(),
    "differences": lambda x: ((x[1:] - x[:-1]) ** 2).sum().sqrt(),
    "softmax": lambda x: torch.logsumexp(5 * x, 0),
    "solve": lambda x: torch.linalg.solve(torch.outer(x, x) + torch.eye(3, dtype=x.dtype), x).sum(),
    "complex": lambda x: torch.fft.fft(x).abs().square().sum().log(),
    "largest": lambda x: x.max() ** 2,
    "at_rest": lambda x: ((x - x.detach()) ** 2).sum() + (x**2).sum(),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ALL_DIGITS)
def test_nothing_is_lost_where_nothing_cancels(name, order):
    points = torch.rand(3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) + 0.5
    _, loss = estimate(ALL_DIGITS[name], points, order)
    assert loss.error < 1e-12


def test_lost_digits_are_said_and_certified(caplog):
    points = torch.tensor([[1e-8], [0.5], [1.0]], dtype=DOUBLE)
    found = pipeline.evaluate(lambda x: (x.sin() / x).sum(), points, "hessian")
    assert "rounding leaves few digits" in caplog.text
    assert "order 2 is off by about 1e+00 relative at x = [1e-08]" in caplog.text
    assert found.certificate.rounding_error == 1.0


def test_a_tie_is_no_loss(caplog):
    points = torch.tensor([[1.0, 1.0], [0.5, 2.0]], dtype=DOUBLE)
    found = pipeline.evaluate(lambda x: x.max() ** 2, points, "hessian")
    assert found.certificate.rounding_error is None
    assert caplog.text == ""
